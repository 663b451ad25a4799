"""Random smooth fields over a head: what makes it bent, blotched and uneven."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

# By wavelength in mm: blotches, freckles, uneven beard.
WAVELENGTHS_MM = (60.0, 25.0, 10.0)
EACH = 8
# Heads outside the model: deviation of a stretch along each axis; for the first two sets of fields the largest
# amplitude; the share of it that differs between the sides.
STRETCH = 0.035
WARP_MM = (3.0, 0.7)
UNLIKE = 0.3


class Fields:
    """`smooth` holds sets of random fields of unit variance, coarse to fine."""

    def __init__(
        self, mean: Float[np.ndarray, "vertices 3"], mirror: Int[np.ndarray, "vertices"] | None
    ) -> None:
        self.smooth: Float[np.ndarray, "fields vertices"] = _waves(mean)
        # What a warp weighs: the mean face's coordinates; of each set what is alike on both sides, then what is not.
        warps = [(mean - mean.mean(0)).T]
        for number in range(len(WARP_MM)):
            one = self.smooth[number * EACH : (number + 1) * EACH]
            other = one if mirror is None else one[:, mirror]
            warps += [(one + other) / 2**0.5, (one - other) / 2**0.5]
        self.warps: Float[np.ndarray, "warps vertices"] = np.concatenate(warps)

    def warp(self, rng: np.random.Generator) -> Float[np.ndarray, "vertices 3"]:
        """A smooth displacement that no mode of the model says, mm: real heads lie outside every model's space.

        Stretched along each axis, and bent by the random fields; mostly alike on both sides, as faces are.
        """
        found = [np.diag(rng.normal(size=3) * STRETCH)]
        for largest in WARP_MM:
            weights = rng.normal(size=(2, EACH, 3)) * rng.uniform(0, largest) / EACH**0.5
            # A symmetric displacement is odd in x and even in y and z.
            alike, unlike = weights[0], UNLIKE * weights[1]
            even = np.concatenate([unlike[:, :1], alike[:, 1:]], 1)
            odd = np.concatenate([alike[:, :1], unlike[:, 1:]], 1)
            found += [even, odd]
        return _weighed(np.concatenate(found), self.warps).T

    def blotches(self, rng: np.random.Generator) -> Float[np.ndarray, "3 vertices"]:
        """A factor on the albedo: uneven pigment and redness."""
        weights = rng.normal(size=(len(self.smooth), 2)) * rng.uniform(0, 0.02, (1, 2))
        return 1 + _weighed(weights @ np.array([[1.0, 1.0, 1.0], [0.3, -0.5, -0.4]]), self.smooth)


def _weighed(
    weights: Float[np.ndarray, "fields 3"], fields: Float[np.ndarray, "fields vertices"]
) -> Float[np.ndarray, "3 vertices"]:
    """Three sums of the fields; by torch, which those who draw hold to one thread: numpy's product would take all."""
    return np.asarray((torch.from_numpy(weights.T).float() @ torch.from_numpy(fields)).numpy())


def _waves(mean: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "fields vertices"]:
    """Sums of random plane waves of one wavelength."""
    rng = np.random.default_rng(5)
    fields = []
    for wavelength in WAVELENGTHS_MM:
        for _ in range(EACH):
            waves = rng.normal(size=(3, 12))
            waves *= 2 * np.pi / wavelength / np.linalg.norm(waves, axis=0)
            phase = mean.astype(np.float64) @ waves + rng.uniform(0, 2 * np.pi, 12)
            fields.append(np.sin(phase).sum(1) / np.sqrt(6))
    return np.stack(fields).astype(np.float32)
