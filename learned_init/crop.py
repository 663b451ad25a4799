"""What the network looks at: an upright square around the face, cut from the photograph by a similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

SIZE_PX = 128
# Side of the crop over the longer side of the landmarks' bounding box.
MARGIN = 1.55
# Side of the crop over a detector's box, which spans brows to chin.
BOX_MARGIN = 1.6


@dataclass(frozen=True)
class Crop:
    """crop_px = scale R(-roll) (photo_px - centre) + SIZE_PX / 2.

    `roll` (radians) is how far the face's own up direction leans to the right in the photograph.
    """

    centre: tuple[float, float]
    side: float
    roll: float = 0.0

    @property
    def scale(self) -> float:
        return SIZE_PX / self.side

    @property
    def turn(self) -> Float[np.ndarray, "2 2"]:
        """Rotates directions of the photograph into the crop."""
        c, s = math.cos(self.roll), math.sin(self.roll)
        return np.array([[c, s], [-s, c]])

    def apply(self, photo_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        return np.asarray((photo_px - np.array(self.centre)) @ (self.scale * self.turn.T) + SIZE_PX / 2)

    def invert(self, crop_px: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        return np.asarray((crop_px - SIZE_PX / 2) @ (self.turn / self.scale) + np.array(self.centre))

    def cut(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "128 128 3"]:
        """The pixels of the crop, each the mean of what it covers; black outside the photograph."""
        from PIL import Image

        ratio = max(1.0, self.side / SIZE_PX)
        # Around the crop, reduced by whole numbers first: a bicubic reading alone would alias.
        reach = 0.75 * self.side + 2
        left, top = (int(math.floor(c - reach)) for c in self.centre)
        right, bottom = (int(math.ceil(c + reach)) for c in self.centre)
        part = Image.fromarray(image).crop((left, top, right, bottom))
        factor = max(1, int(ratio))
        part = part.reduce(factor) if factor > 1 else part
        corner = self.invert(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) - [left, top]
        origin, across, down = (
            corner[0] / factor,
            (corner[1] - corner[0]) / factor,
            (corner[2] - corner[0]) / factor,
        )
        matrix = (across[0], down[0], origin[0], across[1], down[1], origin[1])
        found = part.transform((SIZE_PX, SIZE_PX), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        return np.array(found)


def crop_of_landmarks(landmarks: Float[np.ndarray, "68 2"]) -> Crop | None:
    """The square around the known landmarks, upright from mouth (or chin) to eyes; None with fewer than four."""
    known = np.isfinite(landmarks).all(axis=1)
    if known.sum() < 4:
        return None
    roll = 0.0
    eyes, below = _mean(landmarks, range(36, 48)), _mean(landmarks, range(48, 68))
    if eyes is not None and below is not None:
        up = eyes - below
        if np.linalg.norm(up) > 1e-6:
            roll = math.atan2(up[0], -up[1])
    turned = landmarks[known] @ Crop((0.0, 0.0), 1.0, roll).turn.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = 0.5 * (low + high) @ Crop((0.0, 0.0), 1.0, roll).turn
    side = MARGIN * float((high - low).max())
    return Crop((float(centre[0]), float(centre[1])), side, roll) if side > 0 else None


def _mean(points: Float[np.ndarray, "68 2"], numbers: range) -> Float[np.ndarray, "2"] | None:
    part = points[list(numbers)]
    part = part[np.isfinite(part).all(axis=1)]
    return part.mean(axis=0) if len(part) else None
