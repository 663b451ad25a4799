"""Finding faces: where they are, their 68 landmarks, and how far each landmark is to be believed.

Another detector is one class with one method, `detect(image) -> list[Face]`. Coordinates are edge-based
pixels (column, row) of the image as given; dlib counts from pixel centres, so half a pixel is added.
"""

from __future__ import annotations

import functools
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facefit.errors import ModelFileError, NoFaceFound

JAW = slice(0, 17)

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
_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """One detected face. `box` is left, top, right, bottom; a higher `score` is a surer face.

    `landmarks` are iBUG 68 by number, belonging to the person even where the photograph lies on its side;
    `covariance` is theirs in px^2. `turned_deg` is how far the image had to be turned counter-clockwise.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Float[np.ndarray, "68 2"]
    covariance: Float[np.ndarray, "68 2 2"]
    turned_deg: int = 0

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

    def __init__(self, predictor: str | Path | None = None) -> None:
        self.predictor = None if predictor is None else Path(predictor)

    def detect(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Face]:
        large = max(image.shape[:2]) > self.LONG_SIDE
        copy, ratio = _reduced(image, self.LONG_SIDE)
        unsure: list[_Hit] = []
        for quarter in range(4):
            turned = np.ascontiguousarray(np.rot90(copy, quarter))
            found = _distinct(_search(turned, ratio, 0) + _search(turned, ratio, 1))
            if large and quarter == 0 and (every or not found):
                found = _distinct(found + _search(*_reduced(image, self.LONG_SIDE_AGAIN), 1))
            if sure := [hit for hit in found if hit[0] >= self.SURE]:
                return self._faces(image, sure, quarter)
            if quarter == 0:
                unsure = found[:1]
        if unsure:
            return self._faces(image, unsure, 0)
        raise NoFaceFound(
            f"no face found in {image.shape[1]} x {image.shape[0]} pixels: searched at {3 if large else 2} "
            "scales and in four orientations for faces at least 40 pixels wide that roughly face the camera; "
            "crop closer, or give the 68 landmarks with --landmarks FILE.pts"
        )

    def _faces(self, image: UInt8[np.ndarray, "h w 3"], hits: list[_Hit], quarter: int) -> list[Face]:
        turned = np.rot90(image, quarter)  # a view: only the crops of the faces are copied
        faces = [self._face(turned, box, score, quarter) for score, box in hits]
        return sorted(faces, key=lambda face: -face.score * face.size)

    def _face(self, turned: UInt8[np.ndarray, "h w 3"], box: _Box, score: float, quarter: int) -> Face:
        points, spread = _align(_predictor(self.predictor), turned, box)
        points, spread = unturn(points, quarter, turned.shape), spread[:, ::-1] if quarter % 2 else spread
        corners = unturn(np.array([box[:2], box[2:]]), quarter, turned.shape)
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        covariance = landmark_covariance(points)
        covariance[:, [0, 1], [0, 1]] += (SPREAD_GAIN * spread) ** 2
        place = (float(left), float(top), float(right), float(bottom))
        return Face(place, score, points, covariance, 90 * quarter)


_Box = tuple[float, float, float, float]
_Hit = tuple[float, _Box]


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


def _distinct(hits: list[_Hit]) -> list[_Hit]:
    """The surest box of each face, the surest face first."""
    kept: list[_Hit] = []
    for hit in sorted(hits, reverse=True):
        if not any(_overlap(hit[1], other) for _, other in kept):
            kept.append(hit)
    return kept


def _overlap(a: _Box, b: _Box) -> bool:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width > 0 and height > 0 and width * height > 0.3 * smaller


def _reduced(image: UInt8[np.ndarray, "h w 3"], long_side: int) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """A copy no longer than `long_side`, and how many of the image's pixels one of its pixels is."""
    height, width = image.shape[:2]
    ratio = max(1.0, max(height, width) / long_side)
    if ratio == 1:
        return image, 1.0
    size = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    copy = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(copy), ratio


def _search(image: UInt8[np.ndarray, "h w 3"], ratio: float, upsample: int) -> list[_Hit]:
    """Scores and boxes, the boxes in pixels that are `ratio` times smaller."""
    rectangles, scores, _ = _detector().run(image, upsample, 0.0)
    return [
        (float(s), (r.left() * ratio, r.top() * ratio, (r.right() + 1) * ratio, (r.bottom() + 1) * ratio))
        for r, s in zip(rectangles, scores, strict=True)
    ]


def _align(predictor: Any, image: UInt8[np.ndarray, "h w 3"], box: _Box) -> tuple[_Points, _Points]:
    """68 landmarks and their spread (px) over ten slightly different looks at one face.

    dlib answers in whole pixels and its trees jump with the box. The face is therefore resampled to a fixed
    size and looked at with five boxes, also mirrored. Their median is a few per cent better than one look,
    and where they disagree the landmarks are wrong (correlation with the error up to 0.6 on 24 pictures).
    """
    import dlib

    left, top, right, bottom = box
    side = right - left
    x0, y0 = max(0, int(left - side)), max(0, int(top - side))
    x1, y1 = min(image.shape[1], int(right + side) + 1), min(image.shape[0], int(bottom + side) + 1)
    width, height = (max(1, round(length * 300 / side)) for length in (x1 - x0, y1 - y0))
    crop = Image.fromarray(image[y0:y1, x0:x1]).resize((width, height), Image.Resampling.BICUBIC)
    face = np.asarray(crop)
    mirrored = np.ascontiguousarray(face[:, ::-1])
    pixel = np.array([(x1 - x0) / width, (y1 - y0) / height])
    looks = []
    for right_by, down_by, wider_by in _LOOKS:
        moved = np.array([right_by, down_by])
        a = np.rint((np.array([left - x0, top - y0]) + side * (moved - wider_by / 2)) / pixel)
        b = np.rint((np.array([right - x0, bottom - y0]) + side * (moved + wider_by / 2)) / pixel)
        for picture, x_min, x_max in ((face, a[0], b[0]), (mirrored, width - b[0], width - a[0])):
            rectangle = dlib.rectangle(int(x_min), int(a[1]), int(x_max) - 1, int(b[1]) - 1)
            points = np.array([(p.x + 0.5, p.y + 0.5) for p in predictor(picture, rectangle).parts()])
            if picture is mirrored:
                points = np.stack([width - points[:, 0], points[:, 1]], axis=1)[list(_MIRROR)]
            looks.append(points)
    found = np.array(looks) * pixel + [x0, y0]
    return np.median(found, axis=0), np.std(found, axis=0)


_Points = Float[np.ndarray, "68 2"]

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
