"""A photograph as the fit sees it: pixels, landmarks with their uncertainty, what to ignore, a camera prior.

All coordinates are pixels of the original photograph after its EXIF orientation is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from facefit.models.camera import Camera


@dataclass(frozen=True)
class Observation:
    """One face in one photograph.

    `image` is 8-bit sRGB at the original size. `landmarks` are iBUG 68 positions (column, row) in pixels, edge-based (the centre
    of the first pixel is (0.5, 0.5)), NaN where a point is unknown; `landmark_covariance` in px^2 (68, 2, 2).
    `mask` is False where a pixel must not be used. `camera` is the prior: its focal is believed to a factor of
    exp(+-`focal_sigma`); 0 means known.
    """

    image: UInt8[np.ndarray, "height width 3"]
    camera: Camera
    landmarks: Float[np.ndarray, "68 2"] | None = None
    landmark_covariance: Float[np.ndarray, "68 2 2"] | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
    focal_sigma: float = 0.3
    path: Path | None = None

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def interocular_px(self) -> float:
        """Distance of the outer eye corners, the yardstick of landmark errors."""
        assert self.landmarks is not None
        return float(np.linalg.norm(self.landmarks[36] - self.landmarks[45]))
