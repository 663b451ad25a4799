"""Finding faces: where they are, their 68 landmarks, and how far each landmark is to be believed.

Another detector is one class with one method, `detect(image) -> list[Face]`. Coordinates are edge-based
pixels (column, row) of the image as given; dlib counts from pixel centres, so half a pixel is added.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facefit.errors import ModelFileError, NoFaceFound

JAW = slice(0, 17)

# Whose the landmarks are: dlib's 68-point file excludes commercial use, our own network does not.
LandmarkSource = Literal["dlib", "facefit", "given"]

# Standard deviations as fractions of the outer-eye distance: along the line of the eyes, and across it; for
# the jaw along its contour, and across it. Measured as the 68 % quantile of |dlib - truth| on 18 of 24
# path-traced pictures with exact landmarks (those on which dlib repeats itself within 1.15 %), which contains
# the disagreement between annotation schemes as much as dlib's own error; the jaw on the 8 frontal ones.
LANDMARK_SIGMA: tuple[tuple[tuple[int, ...], tuple[float, float]], ...] = (
    (tuple(range(0, 17)), (0.053, 0.020)),  # jaw: slides along the contour
    (tuple(range(17, 27)), (0.024, 0.030)),  # brows
    (tuple(range(27, 31)), (0.015, 0.034)),  # bridge of the nose: slides along the bridge
    (tuple(range(31, 36)), (0.019, 0.030)),  # base of the nose
    ((36, 39, 42, 45), (0.022, 0.012)),  # eye corners
    ((37, 38, 40, 41, 43, 44, 46, 47), (0.023, 0.024)),  # eyelids
    ((48, 54, 60, 64), (0.020, 0.020)),  # mouth corners
    ((49, 50, 51, 52, 53, 55, 56, 57, 58, 59, 61, 62, 63, 65, 66, 67), (0.028, 0.018)),  # lips
)

# How much of a detector's disagreement with itself is added: with 1.5, 68 % of all 24 pictures' errors lie
# within 0.9 sigma and 95 % within 2.4; without it 5 % lie beyond 3.3.
SPREAD_GAIN = 1.5

# Landmarks of the mirrored face, in the order of the face.
MIRRORED_LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """One detected face. `box` is left, top, right, bottom; a higher `score` is a surer face.

    `landmarks` are iBUG 68 by number, belonging to the person even where the photograph lies on its side;
    `covariance` is theirs in px^2. `turned_deg` is how far the image had to be turned counter-clockwise; `by` is who
    found the landmarks, which decides what a result may be used for ("given": neither dlib's file nor our network).
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Float[np.ndarray, "68 2"]
    covariance: Float[np.ndarray, "68 2 2"]
    turned_deg: int = 0
    by: LandmarkSource = "dlib"

    @property
    def size(self) -> float:
        """Side of the square that has the box's area, in pixels."""
        left, top, right, bottom = self.box
        return float(np.sqrt(max(0.0, right - left) * max(0.0, bottom - top)))


class AbstractDetector(ABC):
    """Finds the faces of an image, the most prominent first."""

    @abstractmethod
    def detect(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Face]:
        """At least one face, or `NoFaceFound`. `every` looks longer, for small faces beside a large one."""


class DlibDetector(AbstractDetector):
    """dlib's HOG detector of frontal faces and its regression trees for 68 landmarks.

    Licence: the landmark file was trained on iBUG 300-W, whose terms exclude commercial use. `predictor` is
    the path of another file in the same format.
    """

    # Long side of the copy that is searched, and of a second one for small faces in large pictures. The
    # window of dlib's detector is 80 px, 40 px when the copy is upsampled. The first copy is always searched
    # both ways: the surer of two boxes gives better landmarks (mean error on 24 pictures 4.9 -> 4.7 %).
    LONG_SIDE = 1024
    LONG_SIDE_AGAIN = 2048
    # Below this a hit counts only as the one upright face of a photograph that has no other, turned or not:
    # a badge on a space suit scores 0.12, faces seen upside down up to 0.23.
    SURE = 0.3
    # What an error says was looked for.
    SEARCHED_FOR = "that roughly face the camera"

    def __init__(self, predictor: str | Path | None = None) -> None:
        self.predictor = None if predictor is None else Path(predictor)

    def detect(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Face]:
        faces = [self.face(image, hit) for hit in self.find(image, every)]
        return sorted(faces, key=lambda face: -face.score * face.size)

    def find(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Hit]:
        """Where the faces are, by the gradient detector alone: at least one, or `NoFaceFound`."""
        large = max(image.shape[:2]) > self.LONG_SIDE
        copy, ratio = reduced(image, self.LONG_SIDE)
        upright = distinct(_search(copy, ratio))
        if large and (every or not upright):
            upright = distinct(upright + _search(*reduced(image, self.LONG_SIDE_AGAIN), upsamples=(1,)))
        if found := [hit for hit in upright if hit.score >= self.SURE]:
            return found
        lying = [distinct(_search(copy, ratio, quarter)) for quarter in (1, 2, 3)]
        surest = max(lying, key=lambda hits: max((hit.score for hit in hits), default=-1.0))
        if found := [hit for hit in surest if hit.score >= self.SURE] or upright[:1]:
            return found
        raise NoFaceFound(
            f"no face found in {image.shape[1]} x {image.shape[0]} pixels: searched at {3 if large else 2} "
            f"scales and in four orientations for faces at least 40 pixels wide {self.SEARCHED_FOR}; "
            "crop closer, or give the 68 landmarks with --landmarks FILE.pts"
        )

    def face(self, image: UInt8[np.ndarray, "height width 3"], hit: Hit) -> Face:
        """The landmarks of one hit."""
        points, spread = _align(_predictor(self.predictor), image, hit)
        covariance = landmark_covariance(points) + SPREAD_GAIN**2 * spread
        return Face(hit.box, hit.score, points, covariance, 90 * hit.quarter)


class Hit(NamedTuple):
    """A square in the image and how its face leans: `tilt` degrees counter-clockwise. `turned` from the camera, it has
    no landmarks that dlib could find.
    """

    score: float
    centre: tuple[float, float]
    side: float
    tilt: float
    quarter: int
    turned: bool = False

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        left, top = (c - self.side / 2 for c in self.centre)
        return left, top, left + self.side, top + self.side


def landmark_covariance(landmarks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "68 2 2"]:
    """Default uncertainty of 68 landmarks in px^2, in the axes of the face (see `LANDMARK_SIGMA`)."""
    eyes = landmarks[45] - landmarks[36]
    scale = float(np.linalg.norm(eyes))
    if not np.isfinite(scale) or scale == 0:
        # Without both outer eye corners: a face's landmarks extend over about 1.6 eye distances.
        known = landmarks[np.isfinite(landmarks).all(axis=1)]
        scale = float(np.max(np.ptp(known, axis=0))) / 1.6 if len(known) else 1.0
        eyes = np.array([1.0, 0.0])
    along = np.tile(eyes / np.linalg.norm(eyes), (68, 1))
    contour = np.gradient(landmarks[JAW], axis=0)
    length = np.linalg.norm(contour, axis=1, keepdims=True)
    usable = np.isfinite(length[:, 0]) & (length[:, 0] > 0)
    along[JAW][usable] = contour[usable] / length[usable]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    sigma = np.empty((68, 2))
    for numbers, pair in LANDMARK_SIGMA:
        sigma[list(numbers)] = pair
    axes = np.stack([along, across], axis=2) * (scale * sigma)[:, None, :]
    return np.asarray(axes @ axes.transpose(0, 2, 1))


def unturn(
    points: Float[np.ndarray, "n 2"], quarter: int, shape: tuple[int, ...]
) -> Float[np.ndarray, "n 2"]:
    """Points of `np.rot90(image, quarter)`, of the given shape, in the image itself (edge-based pixels)."""
    height, width = shape[:2]
    x, y = points[:, 0], points[:, 1]
    return np.stack([(x, y), (height - y, x), (width - x, height - y), (y, width - x)][quarter], axis=1)


def distinct(hits: list[Hit]) -> list[Hit]:
    """The surest hit of each face, the surest face first."""
    kept: list[Hit] = []
    for hit in sorted(hits, reverse=True):
        if not any(overlap(hit, other) for other in kept):
            kept.append(hit)
    return kept


def overlap(a: Hit, b: Hit) -> bool:
    """Whether more than 30 % of the smaller square lies in the other."""
    reach = (a.side + b.side) / 2
    smaller = min(a.side, b.side)
    width, height = (min(smaller, reach - abs(p - q)) for p, q in zip(a.centre, b.centre, strict=True))
    return width > 0 and height > 0 and width * height > 0.3 * smaller**2


def reduced(image: UInt8[np.ndarray, "h w 3"], long_side: int) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """A copy no longer than `long_side`, and how many of the image's pixels one of its pixels is."""
    height, width = image.shape[:2]
    ratio = max(1.0, max(height, width) / long_side)
    if ratio == 1:
        return image, 1.0
    size = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    copy = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(copy), ratio


def _search(
    copy: UInt8[np.ndarray, "h w 3"], ratio: float, quarter: int = 0, upsamples: tuple[int, ...] = (0, 1)
) -> list[Hit]:
    """Hits in a copy `ratio` times smaller, turned by quarters; in the pixels of the image as it lies."""
    turned = np.ascontiguousarray(np.rot90(copy, quarter))
    hits = []
    for upsample in upsamples:
        for rectangle, score, part in zip(*_detector().run(turned, upsample, 0.0), strict=True):
            corners = np.array([(rectangle.left(), rectangle.top()), (rectangle.right(), rectangle.bottom())])
            centre = unturn((corners.mean(axis=0) + 0.5)[None], quarter, turned.shape)[0] * ratio
            # The last two of the detector's five parts look for faces that lean by about 30 degrees.
            tilt = {3: 30.0, 4: -30.0}.get(int(part), 0.0) - 90.0 * quarter
            side = float(rectangle.width()) * ratio
            hits.append(Hit(float(score), (float(centre[0]), float(centre[1])), side, tilt, quarter))
    return hits


def _align(predictor: Any, image: UInt8[np.ndarray, "h w 3"], hit: Hit) -> tuple[_Points, _Covariances]:
    """68 landmarks and the covariance (px^2) of ten slightly different looks at one face.

    dlib answers in whole pixels, its trees jump with the box and are at a loss when a face leans by more than
    30 degrees. The face is therefore resampled upright at a fixed size and looked at with five boxes, also
    mirrored. Their median is a few per cent better than one look, and where they disagree the landmarks are
    wrong (correlation with the error up to 0.6 on 24 pictures).
    """
    tilt = hit.tilt
    for _ in range(4):
        upright, scale, axes = _upright(image, hit, tilt)
        looks = _looks(predictor, upright)
        points = np.median(looks, axis=0)
        across, down = points[45] - points[36]
        lean = -math.degrees(math.atan2(down, across))
        if abs(lean) < 8:
            break
        tilt += lean
    apart = looks - points
    spread = np.einsum("kni,knj->nij", apart, apart) / len(looks)
    place = np.array(hit.centre) + scale * (points - 1.5 * _FACE_PX) @ axes.T
    return place, scale**2 * axes @ spread @ axes.T


_FACE_PX = 300


def _upright(
    image: UInt8[np.ndarray, "h w 3"], hit: Hit, tilt: float
) -> tuple[UInt8[np.ndarray, "size size 3"], float, Float[np.ndarray, "2 2"]]:
    """The hit in the middle of a square three times its side, upright, black beyond the border; the image's
    pixels in one of the square's, and the directions of its axes in the image.
    """
    scale = hit.side / _FACE_PX
    cos, sin = (round(f(math.radians(tilt)), 12) for f in (math.cos, math.sin))
    axes = np.array([[cos, sin], [-sin, cos]])
    reach = 1.5 * hit.side * (abs(cos) + abs(sin)) + 2 * scale
    x0, y0 = (max(0, math.floor(c - reach)) for c in hit.centre)
    x1, y1 = (math.ceil(c + reach) for c in hit.centre)
    shrink = max(1, round(scale))
    crop = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1])).reduce(shrink)
    # Pillow wants, for a pixel of the square, the place in the crop it comes from.
    linear = scale / shrink * axes
    origin = (np.array(hit.centre) - (x0, y0)) / shrink - linear @ np.full(2, 1.5 * _FACE_PX)
    affine = (linear[0, 0], linear[0, 1], origin[0], linear[1, 0], linear[1, 1], origin[1])
    size = (3 * _FACE_PX, 3 * _FACE_PX)
    square = crop.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(square), scale, axes


def _looks(predictor: Any, upright: UInt8[np.ndarray, "size size 3"]) -> Float[np.ndarray, "looks 68 2"]:
    import dlib

    mirrored = np.ascontiguousarray(upright[:, ::-1])
    looks = []
    for right_by, down_by, wider_by in _LOOKS:
        for picture, sign in ((upright, 1), (mirrored, -1)):
            left, top = (round(_FACE_PX * (1 + by - wider_by / 2)) for by in (sign * right_by, down_by))
            side = round(_FACE_PX * (1 + wider_by))
            rectangle = dlib.rectangle(left, top, left + side - 1, top + side - 1)
            points = np.array([(p.x + 0.5, p.y + 0.5) for p in predictor(picture, rectangle).parts()])
            if sign < 0:
                points = np.stack([3 * _FACE_PX - points[:, 0], points[:, 1]], axis=1)[
                    list(MIRRORED_LANDMARKS)
                ]
            looks.append(points)
    return np.array(looks)


_Points = Float[np.ndarray, "68 2"]
_Covariances = Float[np.ndarray, "68 2 2"]

# Boxes moved right and down and widened by these fractions of their side.
_LOOKS = (
    (0.0, 0.0, 0.0),
    (0.04, 0.02, 0.05),
    (-0.04, 0.02, -0.05),
    (0.02, -0.04, -0.05),
    (-0.02, -0.04, 0.05),
)


@functools.cache
def _detector() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor(path: Path | None) -> Any:
    import dlib

    path = path or _packaged_predictor()
    if not path.is_file():
        raise ModelFileError(f"no landmark predictor at {path}: give the path of a dlib 68-point .dat file")
    try:
        return dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise ModelFileError(
            f"{path} is not a dlib landmark predictor ({error}): download it again"
        ) from None


def _packaged_predictor() -> Path:
    # The package is only located: importing it needs pkg_resources, which setuptools has dropped.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            "dlib's landmark file is not installed: pip install face_recognition_models, "
            "or give the landmarks with --landmarks FILE.pts"
        )
    return Path(spec.submodule_search_locations[0]) / "models" / "shape_predictor_68_face_landmarks.dat"
