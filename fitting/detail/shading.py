"""Shape from shading on a refined surface: how the brightness of a triangle answers to displacements of its corners.

Displaced by h along its normals n, a surface has the normal n - grad h, up to its length (h small against the radius
of curvature). Irradiance is nine harmonics of that, and what is compared is the logarithm of the colour, in which
light and pigment add.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from facefit.fitting.detail.seen import DARK, SeenSurface
from facefit.models.lighting import Lighting, irradiance_basis

# Light is read from red and green: melanin and haemoglobin absorb least in red (per share of blood half of what they
# do in green, `models/skin.py`), so blemishes weigh least there; blue is the noisiest of a JPEG, and red alone clips.
CHANNELS = np.array([2 / 3, 1 / 3, 0.0])
# Irradiance below this part of its mean says nothing of the normal: light from elsewhere on the face fills it.
DARKEST = 0.1
# Triangles believed less than this have no row.
LEAST_TRUST = 0.01


@dataclass(frozen=True, eq=False)
class ShadingRows:
    """Linearised at a displacement: change of log brightness = jacobian . change of displacement; residual is observed
    minus predicted; `weight` is area (mm^2) times trust over variance, per triangle in use.
    """

    jacobian: csr_array
    residual: Float[np.ndarray, "used"]
    weight: Float[np.ndarray, "used"]


@dataclass(frozen=True, eq=False)
class ShadingTerm:
    """One photograph's shading. `pigment` is what is already known to differ from the model's albedo (log, smooth).

    `noise` is the standard deviation of one square millimetre's log brightness that neither shape nor smooth pigment
    explains; triangles off by several `outlier` are no skin, or in a shadow or highlight.
    """

    surface: SeenSurface
    lighting: Lighting
    pigment: Float[np.ndarray, "triangles 3"]
    noise: float = 0.04
    outlier: float = 0.2

    @cached_property
    def trust(self) -> Float[np.ndarray, "triangles"]:
        """0-1: seen, and skin."""
        return np.asarray(self.surface.seen * self.surface.skin)

    @cached_property
    def used(self) -> Int[np.ndarray, "used"]:
        """The triangles that have rows."""
        return np.flatnonzero(self.trust > LEAST_TRUST)

    def rows(self, height: Float[np.ndarray, "vertices"]) -> ShadingRows:
        """At a displacement in mm."""
        operators = self.surface.operators
        predicted, slope = self.log_shading(height)
        observed = (self.surface.log_color[self.used] - self.pigment[self.used]) @ CHANNELS
        residual = observed - predicted
        jacobian = operators.rows(-np.einsum("tx,tkx->tk", slope, operators.hats[self.used]), self.used)
        weight = self.trust[self.used] * robust(residual, self.outlier) * operators.area[self.used]
        return ShadingRows(jacobian, residual, weight / self.noise**2)

    def log_shading(
        self, height: Float[np.ndarray, "vertices"]
    ) -> tuple[Float[np.ndarray, "used"], Float[np.ndarray, "used 3"]]:
        """Log brightness of the channels in use at a displacement, and its derivative by the normal n - grad h."""
        normal = self.surface.normals[self.used] - self.surface.operators.gradient(height, self.used)
        # einsum, for numpy sums over an axis of three one short row at a time.
        length = np.sqrt(np.einsum("tx,tx->t", normal, normal))[:, None]
        unit = normal / np.maximum(length, 1e-12)
        light, by_light, by_normal = floored(self.lighting, unit)
        reflected = self.surface.albedo[self.used] * light
        share = CHANNELS * self.surface.albedo[self.used] * by_light / (reflected + DARK)
        slope = np.einsum("tc,tcx->tx", share, by_normal)
        # Only the part across the normal turns it.
        along = np.einsum("tx,tx->t", slope, unit)[:, None]
        slope = (slope - along * unit) / np.maximum(length, 1e-12)
        return np.log(reflected + DARK) @ CHANNELS, slope


def log_color(
    surface: SeenSurface, lighting: Lighting, gradient: Float[np.ndarray, "triangles 3"] | None = None
) -> Float[np.ndarray, "triangles 3"]:
    """log(albedo x irradiance + DARK), at a surface gradient."""
    normal = surface.normals if gradient is None else surface.normals - gradient
    light, _, _ = floored(lighting, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12))
    predicted: Float[np.ndarray, "triangles 3"] = np.log(surface.albedo * light + DARK)
    return predicted


def floored(
    lighting: Lighting, unit: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 3"]]:
    """Irradiance (per channel) kept above a floor, its derivative by the raw one, and the raw one's by the normal."""
    constant, linear, quadratic = polynomial(lighting)
    curved = (unit @ quadratic.transpose(1, 0, 2).reshape(3, 9)).reshape(-1, 3, 3)
    light = constant + unit @ linear.T + np.einsum("ncy,ny->nc", curved, unit)
    floor = DARKEST * max(float(light.mean()), 1e-6)
    # Smooth and rising below the floor, so that the logarithm and its derivative exist for every light.
    low, by_raw = light <= floor, np.ones_like(light)
    light[low] = floor * np.exp(np.clip(light[low] / floor - 1, -3, 0))
    by_raw[low] = light[low] / floor
    return light, by_raw, linear + 2 * curved


def polynomial(
    lighting: Lighting,
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3 3"]]:
    """Irradiance of each channel as c + b . n + n A n: bands 0 to 2 are quadratic in the normal.

    Read off its values at the origin, the axes and between them, which is exact for a quadratic.
    """
    axes = torch.eye(3, dtype=torch.float64)
    between = axes[:, None] + axes[None]
    points = torch.cat([torch.zeros(1, 3), axes, -axes, between.reshape(9, 3)])
    values = (irradiance_basis(points) @ lighting.coefficients.double()).numpy()
    constant, ahead, behind = values[0], values[1:4], values[4:7]
    mixed = values[7:].reshape(3, 3, 3) - ahead[:, None] - ahead[None] + constant
    return constant, ((ahead - behind) / 2).T, (mixed / 2).transpose(2, 0, 1)


def robust(residual: Float[np.ndarray, "n"], scale: float) -> Float[np.ndarray, "n"]:
    """Geman and McClure's weight; half of it is lost at 1.3 times the scale."""
    weight: Float[np.ndarray, "n"] = 1 / (1 + (residual / (2 * scale)) ** 2) ** 2
    return weight
