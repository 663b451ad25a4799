"""The NoW evaluation: how far the surface of a neutral scan is from a predicted neutral face.

Re-implemented from the description of the protocol (Sanyal et al., "Learning to Regress 3D Face Shape and
Expression from an Image without 3D Supervision", CVPR 2019; https://now.is.tue.mpg.de): crop the scan to a
ball, align seven landmarks, refine by least squares over every cropped scan vertex, measure again. Figures
agree with the published evaluation to 1e-5 mm on the golden case (golden.py).

Millimetres. `non-metrical` fits a scale, `metrical` takes the prediction's size at its word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from facefit.benchmarks.alignment import refine
from facefit.benchmarks.meshfiles import SurfaceMesh, read_landmarks, read_mesh, read_picked_points
from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths, procrustes
from facefit.errors import FacefitError, UnreadableInput

Variant = Literal["non-metrical", "metrical"]
VARIANTS: tuple[Variant, ...] = ("non-metrical", "metrical")

# Right eye outer and inner corner, left eye inner and outer, base of the nose, right and left corner of the
# mouth.
IBUG_OF_NOW = (36, 39, 42, 45, 33, 48, 54)
CHALLENGES = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0}

# The crop of the scan: centre this far from the base of the nose to the bridge, radius this many times the
# mean of the outer-eye distance and the height of the nose.
CROP_CENTRE, CROP_RADIUS = 0.3, 1.4


@dataclass(frozen=True)
class Scan:
    """A subject's neutral ground truth, mm."""

    mesh: SurfaceMesh
    landmarks: Float[np.ndarray, "7 3"]

    def crop(self, radius_factor: float = CROP_RADIUS) -> Bool[np.ndarray, "vertices"]:
        centre, radius = crop_ball(self.landmarks, radius_factor)
        return lengths(self.mesh.vertices - centre) <= radius

    @property
    def scored(self) -> Points:
        """The vertices that are measured: all in the ball, whether a triangle uses them or not."""
        return np.asarray(self.mesh.vertices[self.crop()])


@dataclass(frozen=True)
class Prediction:
    """A neutral reconstruction in its own frame and unit, with its seven landmarks."""

    mesh: SurfaceMesh
    landmarks: Float[np.ndarray, "7 3"]

    @staticmethod
    def read(stem: Path) -> Prediction:
        """STEM.obj or .ply and STEM.npy or .txt; the first of each pair is preferred, as in the protocol."""
        mesh = next((p for p in (_with(stem, ".obj"), _with(stem, ".ply")) if p.exists()), None)
        points = next((p for p in (_with(stem, ".npy"), _with(stem, ".txt")) if p.exists()), None)
        if mesh is None or points is None:
            lacking = "mesh (.obj or .ply)" if mesh is None else "landmark file (.npy or .txt)"
            raise UnreadableInput(f"{stem}: no {lacking}")
        return Prediction(read_mesh(mesh), read_landmarks(points))


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


@dataclass(frozen=True)
class Measurement:
    """Distances of the cropped scan's vertices, and the motion that brought the prediction onto the scan.

    `transform` takes the prediction as given to the scan in mm; `landmarks_only` are the distances before the
    refinement.
    """

    distances: Float[np.ndarray, "scored"]
    transform: Similarity
    sum_of_squares: tuple[float, ...]
    landmarks_only: Float[np.ndarray, "scored"]


def crop_ball(
    landmarks: Float[np.ndarray, "7 3"], radius_factor: float = CROP_RADIUS
) -> tuple[Float[np.ndarray, "3"], float]:
    bridge = (landmarks[1] + landmarks[2]) / 2
    nose = landmarks[4]
    width, height = np.linalg.norm(landmarks[0] - landmarks[3]), np.linalg.norm(bridge - nose)
    return nose + CROP_CENTRE * (bridge - nose), radius_factor * float(width + height) / 2


def measure(
    prediction: Prediction,
    scan: Scan,
    variant: Variant = "non-metrical",
    *,
    unit: str = "mm",
    threads: int = 0,
    tolerance: float = 1e-4,
) -> Measurement:
    """One prediction against one scan. `unit` is the prediction's; non-metrical ignores it."""
    points = scan.scored
    if len(points) == 0:
        raise FacefitError(
            "no vertex of the scan lies in the crop around its landmarks: are they of one subject?"
        )
    start = procrustes(prediction.landmarks, scan.landmarks, reflection=True)
    if variant == "metrical":
        # The protocol keeps the translation that belongs to the fitted scale; the refinement takes it out.
        start = Similarity(MM_PER_UNIT[unit], start.rotation, start.translation)
    placed = SurfaceMesh(start.apply(prediction.mesh.vertices), prediction.mesh.triangles)
    surface = Surface(placed, threads)
    best = refine(surface, points, scale=variant == "non-metrical", tolerance=tolerance)
    return Measurement(best.distances, start.then(best.transform), best.trace, best.before)


@dataclass(frozen=True)
class Image:
    """One line of the image list: SUBJECT/CHALLENGE/NAME.jpg."""

    subject: str
    challenge: str
    file: str

    @property
    def name(self) -> str:
        return self.file.rsplit(".", 1)[0]

    @property
    def key(self) -> str:
        return f"{self.subject}/{self.challenge}/{self.name}"


@dataclass(frozen=True)
class Dataset:
    """A folder in NoW's layout: image list, scans/, scans_lmks_onlypp/, and the photographs."""

    root: Path
    image_set: Literal["validation", "test"] = "validation"

    def images(self) -> list[Image]:
        path = self.root / f"imagepaths{self.image_set}.txt"
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise UnreadableInput(
                f"{path}: {error.strerror or error}. --data must name the folder that holds imagepaths"
                f"{self.image_set}.txt, scans/ and scans_lmks_onlypp/"
            ) from error
        listed = [Image(*line.split("/")[-3:]) for line in lines if line.count("/") >= 2]
        if strange := [i.key for i in listed if {".", "..", ""} & {i.subject, i.challenge, i.name}]:
            raise UnreadableInput(f"{path}: {strange[0]!r} is no SUBJECT/CHALLENGE/NAME")
        if not listed:
            raise UnreadableInput(f"{path}: no line reads SUBJECT/CHALLENGE/NAME.jpg")
        return listed

    def photograph(self, image: Image) -> Path:
        relative = Path(image.subject) / image.challenge / image.file
        for folder in ("NoW_Dataset/final_release_version/iphone_pictures", "iphone_pictures", "images", "."):
            if (path := self.root / folder / relative).exists():
                return path
        raise UnreadableInput(f"{relative}: no such photograph below {self.root}")

    def box(self, image: Image) -> tuple[float, float, float, float] | None:
        """(left, top, right, bottom) of the face where the data set gives one."""
        relative = Path(image.subject) / image.challenge / f"{image.name}.npy"
        for folder in ("NoW_Dataset/final_release_version/detected_face", "detected_face"):
            if (path := self.root / folder / relative).exists():
                return _read_box(path)
        return None

    def scan(self, subject: str) -> Scan:
        meshes = sorted(_meshes(self.root / "scans" / subject))
        points = sorted((self.root / "scans_lmks_onlypp" / subject).glob("*.pp"))
        if not meshes or not points:
            folder = "scans" if not meshes else "scans_lmks_onlypp"
            raise UnreadableInput(
                f"{self.root / folder / subject}: no {'scan' if not meshes else '.pp file'}"
            )
        return Scan(read_mesh(meshes[0]), read_picked_points(points[0]))


def _meshes(folder: Path) -> Iterator[Path]:
    return (p for p in folder.glob("*") if p.suffix.lower() in (".obj", ".ply"))


def _read_box(path: Path) -> tuple[float, float, float, float]:
    """The detected box, a pickled dictionary left, right, top, bottom. Only plain numbers are unpickled."""
    from facefit.benchmarks.safe_pickle import load_plain_dictionary

    values = load_plain_dictionary(path)
    left, top, right, bottom = (float(values[side]) for side in ("left", "top", "right", "bottom"))
    return left, top, right, bottom
