"""What is known of each pixel and landmark once it is known where the photograph shows the face, and where not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import label, uniform_filter

from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.residuals.landmarks import landmark_covariance
from facefit.observation import Observation

# A landmark is hidden where less than half of the face within this many texels of a level of 64 is seen.
AROUND_LANDMARK = 5
# A detector's guess of a landmark that it cannot see is worth something: four times its sigma.
HIDDEN_SIGMA = 4.0
# A patch at the top of the face, cut off from the rest and smaller than this share of it, is hair of skin's colour.
PATCH = 0.15
# With less of the face explained than this, it is the explanation that is wrong (or there is no face).
FEWEST = 0.2


@dataclass(frozen=True, eq=False)
class SkinMask:
    """The face region on the texels of a pyramid level, and the probability of each texel to show the face.

    Off the face region `shown` is 1: nothing is known against those pixels. `light` is where the next estimate begins.
    """

    face: Bool[np.ndarray, "rows columns"]
    shown: Float[np.ndarray, "rows columns"]
    scale: float
    origin: Float[np.ndarray, "2"]
    light: Float[np.ndarray, "9 3"] | None = None

    @property
    def share(self) -> float:
        """How much of the visible face region is seen; NaN where there is none in the picture."""
        return float((self.shown[self.face] > 0.5).mean()) if self.face.any() else float("nan")

    @property
    def believable(self) -> bool:
        return self.share >= FEWEST

    def at_photo(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """False where the face is hidden, at the photograph's own size; True outside the crop.

        Nor is a small patch believed that only hair could reach, beyond what hides the face.
        """
        seen = np.ones((height, width), dtype=bool)
        side = np.array(self.shown.shape[::-1]) / self.scale
        left, top = np.maximum(self.origin, 0).astype(int)
        right, bottom = np.minimum(np.ceil(self.origin + side), [width, height]).astype(int)
        across = (np.arange(left, right) + 0.5 - self.origin[0]) * self.scale
        down = (np.arange(top, bottom) + 0.5 - self.origin[1]) * self.scale
        seen[top:bottom, left:right] = (
            replace(self, shown=self._without_patches())._between(down, across) > 0.5
        )
        return seen

    def _without_patches(self) -> Float[np.ndarray, "rows columns"]:
        pieces, count = label((self.shown > 0.5) & self.face)
        if count < 2:
            return self.shown
        size = np.bincount(pieces.ravel())[1:]
        top = self.face.argmax(0)
        patches = []
        for number in np.flatnonzero(size < PATCH * size.max()) + 1:
            columns = np.flatnonzero((pieces == number).any(0))
            highest = (pieces[:, columns] == number).argmax(0)
            if (highest <= top[columns] + 1).mean() > 0.5:
                patches.append(number)
        return np.where(np.isin(pieces, patches), 0.0, self.shown)

    def on(self, level: PyramidLevel) -> PyramidLevel:
        """A level of the same photograph without the texels where the face is hidden."""
        rows, columns = level.usable.shape
        ratio = self.scale / level.scale
        shown = self._between((np.arange(rows) + 0.5) * ratio, (np.arange(columns) + 0.5) * ratio) > 0.5
        return replace(level, usable=level.usable & shown)

    def hides(self, pixels: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, "n"]:
        """Whether what lies over the face hides points given in pixels; False off the face and for NaN."""
        around = max(3, round(AROUND_LANDMARK * len(self.face) / 64)) | 1
        face = uniform_filter(self.face.astype(float), around)
        seen = uniform_filter(np.where(self.face, self.shown, 0.0), around)
        texel = np.nan_to_num((pixels - self.origin) * self.scale, nan=-1.0)
        inside = ((texel >= 0) & (texel < self.face.shape[::-1])).all(1)
        column, row = texel[inside].astype(int).T
        hidden = np.zeros(len(pixels), dtype=bool)
        hidden[inside] = (face[row, column] > 0.1) & (seen[row, column] < 0.5 * face[row, column])
        return hidden

    def believed(self, observation: Observation) -> Observation:
        """The observation with less belief in landmarks that are hidden."""
        if observation.landmarks is None:
            return observation
        hidden = self.hides(observation.landmarks.astype(np.float64))
        if not hidden.any():
            return observation
        factor = np.where(hidden, HIDDEN_SIGMA**2, 1.0)[:, None, None]
        return replace(observation, landmark_covariance=landmark_covariance(observation) * factor)

    def _between(
        self, down: Float[np.ndarray, "height"], across: Float[np.ndarray, "width"]
    ) -> Float[np.ndarray, "height width"]:
        """`shown` at texel coordinates (edge-based), linear between the texels' centres."""
        rows, columns = self.shown.shape
        between: Float[np.ndarray, "height width"] = (
            _tent(down, rows) @ self.shown.astype(np.float32) @ _tent(across, columns).T
        )
        return between


def _tent(at: Float[np.ndarray, "n"], count: int) -> Float[np.ndarray, "n count"]:
    """Rows of linear interpolation between `count` centres at 0.5, 1.5 ...; constant beyond the outer ones."""
    place = np.clip(at - 0.5, 0, count - 1)
    low = np.minimum(place.astype(int), max(count - 2, 0))
    part = (place - low).astype(np.float32)
    rows = np.zeros((len(at), count), dtype=np.float32)
    index = np.arange(len(at))
    rows[index, low] = 1 - part
    rows[index, np.minimum(low + 1, count - 1)] += part
    return rows
