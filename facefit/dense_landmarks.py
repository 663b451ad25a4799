"""Hundreds of surface points seen in a photograph, with how sure each is and how far their errors are one error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class DenseLandmarks:
    """Where points of one model's surface (triangle and barycentric weights) lie in the photograph.

    `whitening[i]` takes a difference in pixels to unit variance: the covariance of point i is inv(W^T W). A network's
    errors are not independent: along the orthonormal `patterns` of whitened errors their variance is `variances`, along
    everything else `floor`. Counting them as independent would make hundreds of points believe themselves far too much.

    Nor are they independent of the face: where a network sees little, it stays with what it was shown, the points of
    an earlier fit, `reference`. Whitened displacements of the true points from these, along `shapes` (rows
    orthonormal), come out changed by `response`: error = response^T (shapes . displacement) + noise, and patterns and
    variances are those of the noise. Without this a network would argue for the earlier fit against everything else
    that is known.
    """

    model: str
    triangles: Int[np.ndarray, "points"]
    barycentric: Float[np.ndarray, "points 3"]
    pixels: Float[np.ndarray, "points 2"]
    whitening: Float[np.ndarray, "points 2 2"]
    reference: Float[np.ndarray, "points 2"]
    patterns: Float[np.ndarray, "patterns points 2"]
    variances: Float[np.ndarray, "patterns"]
    floor: float
    shapes: Float[np.ndarray, "shapes points 2"]
    response: Float[np.ndarray, "shapes points 2"]

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if (
            not len(self.triangles)
            == len(self.barycentric)
            == len(self.whitening)
            == len(self.reference)
            == count
        ):
            raise ValueError(
                f"{count} pixels, but {len(self.triangles)} triangles, {len(self.whitening)} whitenings and "
                f"{len(self.reference)} points of reference"
            )
        if not all(np.isfinite(numbers).all() for numbers in (self.pixels, self.whitening, self.reference)):
            raise ValueError(
                "dense landmarks hold NaN or infinite numbers; leave out the points that are unknown"
            )

    @property
    def covariance(self) -> Float[np.ndarray, "points 2 2"]:
        """Of each point alone, px^2."""
        return np.linalg.inv(np.swapaxes(self.whitening, 1, 2) @ self.whitening)
