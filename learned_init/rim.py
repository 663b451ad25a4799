"""Where a detector sees the jaw: on the outline of the face, which on a turned head is not the jaw's own line."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from facefit.models.camera import FACING
from facefit.models.face_model import LinearFaceModel

# A jaw landmark slides over the surface along the ray from the tip of the nose to it, seen from the front: over
# vertices within this angle of the ray, not further out than the jaw, not nearer to the nose than this share.
ANGLE_RAD, INNERMOST = 0.06, 0.4


class Rim:
    """For each of the 17 jaw landmarks the vertices over which the outline of the face passes as the head turns."""

    def __init__(self, model: LinearFaceModel) -> None:
        mean = model.mean.double().numpy()
        marks = model.landmark_points(model.mean).double().numpy()
        region = np.asarray(model.topology.region("jaw_contour"), np.int64)
        angle, away = polar(mean[region] - marks[30])
        jaw_angle, jaw_away = polar(marks[:17] - marks[30])
        chosen = []
        for at, reach in zip(jaw_angle, jaw_away, strict=True):
            aside = np.abs((angle - at + np.pi) % (2 * np.pi) - np.pi)
            near = (aside < ANGLE_RAD) & (away < 1.02 * reach) & (away > INNERMOST * reach)
            chosen.append(region[near] if near.any() else region[[np.argmin(aside)]])
        self.starts = np.cumsum([0, *(len(c) for c in chosen)])
        self.vertices = np.concatenate(chosen)
        self.outward = np.stack([np.cos(jaw_angle), np.sin(jaw_angle)], 1)

    def seen(
        self, pixels: Float[np.ndarray, "n 2"], camera_from_model: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "17 2"]:
        """The outermost of each landmark's vertices, of the `pixels` of all `vertices`."""
        up = camera_from_model[:2, 1] / np.linalg.norm(camera_from_model[:2, 1])
        # Right angles to up in the picture, towards where a frontal head's +x is seen.
        side = np.sign(FACING[0][0]) * np.array([-up[1], up[0]])
        outward = self.outward @ np.stack([side, up])
        found = []
        for number, direction in enumerate(outward):
            part = pixels[self.starts[number] : self.starts[number + 1]]
            found.append(part[np.argmax(part @ direction)])
        return np.stack(found)


def polar(points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Angle and distance as seen from the front."""
    return np.arctan2(points[:, 1], points[:, 0]), np.hypot(points[:, 0], points[:, 1])
