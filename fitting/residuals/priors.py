"""What is believed before the photograph is seen: coefficients, focal length, light."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene


@dataclass(frozen=True)
class CoefficientPrior(AbstractResidual):
    """N(0, 1) on every identity, expression and albedo coefficient; `weight` > 1 believes it more."""

    block: str
    weight: float = 1.0

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.block} prior"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return self.weight * scene.block(self.block)


@add_to.register
def _(residual: CoefficientPrior, total: Total, scene: Scene) -> None:
    value, precision = scene.block(residual.block).numpy().astype(np.float64), residual.weight**2
    total.cost += 0.5 * precision * float(value @ value)
    if (where := total.where.get(residual.block)) is not None:
        index = np.arange(where.start, where.stop)
        total.matrix[index, index] += precision
        total.gradient[where] += precision * value


@cost.register
def _(residual: CoefficientPrior, scene: Scene) -> float:
    value = scene.block(residual.block).numpy().astype(np.float64)
    return 0.5 * residual.weight**2 * float(value @ value)


normal_equations.register(CoefficientPrior, alone)


@dataclass(frozen=True)
class FocalPrior(AbstractResidual):
    """log focal length ~ N(log of the camera prior's, sigma)."""

    log_focal: float
    sigma: float
    name: str = "focal prior"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return (scene.block("focal") - self.log_focal) / self.sigma


@add_to.register
def _(residual: FocalPrior, total: Total, scene: Scene) -> None:
    value = (math.log(float(scene.camera.focal_px)) - residual.log_focal) / residual.sigma
    total.add_rows(np.array([[1 / residual.sigma]]), np.array([value]), scene, ("focal",))


normal_equations.register(FocalPrior, alone)


# Irradiance of white ambient light of level 1 by its coefficient (0, 0): the basis function itself.
AMBIENT = 0.5 / math.sqrt(math.pi)
# The ambient's channels over their mean: no light is of one colour alone.
TINTS = (0.3, 2.0)


@dataclass(frozen=True)
class LightPrior(AbstractResidual):
    """Plausible light: nearly white, brighter from some side but rarely black from any other, as bright as exposed.

    In shares of the present mean ambient level (frozen): the colour of the ambient coefficient strays from grey by
    `chroma`, that of each directional one as much from the ambient's (frozen `tint`: a lamp and a camera's white
    balance colour all light alike), the grey of each directional coefficient from zero by `contrast`. The logarithm
    of the ambient level strays from 0 by `exposure`: cameras expose so that white paper beside the face would come
    out nearly white.
    Without that a dark skin in glaring light and a light skin in the dusk look the same, and what the albedo
    modes do not hold (eyes, teeth) glows or goes out.
    """

    level: float = 0.0
    tint: tuple[float, ...] = (1.0, 1.0, 1.0)
    chroma: float = 0.12
    contrast: float = 0.7
    exposure: float = 0.5
    name: str = "light prior"

    def freeze(self, scene: Scene) -> LightPrior:
        level = ambient_coefficient(scene.lighting)
        tint = (scene.lighting.coefficients[0].detach() / level).clamp(*TINTS)
        return replace(self, level=level, tint=tuple(tint.tolist()))

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        if not self.level:
            return self.freeze(scene)(scene)
        shares = scene.lighting.coefficients / self.level
        grey = shares.mean(1)
        # log(a) at the frozen level, to first order.
        brightness = math.log(AMBIENT * self.level) + grey[:1] - 1
        tint = torch.cat([torch.ones(1, 3), torch.tensor([self.tint]).expand(8, 3)]).to(shares)
        colour = (shares - grey[:, None] * tint) / self.chroma
        return torch.cat([colour.reshape(-1), grey[1:] / self.contrast, brightness / self.exposure])


@add_to.register
def _(residual: LightPrior, total: Total, scene: Scene) -> None:
    rows, values = _light(residual, scene)
    total.add_rows(rows, values, scene, ("lighting",))


@cost.register
def _(residual: LightPrior, scene: Scene) -> float:
    _, values = _light(residual, scene)
    return 0.5 * float(values @ values)


def ambient_coefficient(lighting: Lighting) -> float:
    """The mean of the channels' coefficients (0, 0); never so small that a share of it would be infinite."""
    return float(lighting.coefficients[0].detach().mean().clamp(min=0.1))


def _light(
    residual: LightPrior, scene: Scene
) -> tuple[Float[np.ndarray, "rows 27"], Float[np.ndarray, "rows"]]:
    residual = residual if residual.level else residual.freeze(scene)
    rows, tinted = light_rows(residual.chroma, residual.contrast, residual.exposure)
    rows = rows.copy()
    rows[3:27] += np.tile(residual.tint, 8)[:, None] * tinted
    rows /= residual.level
    values = rows @ scene.lighting.coefficients.numpy().astype(np.float64).ravel()
    values[-1] += (math.log(AMBIENT * residual.level) - 1) / residual.exposure
    return rows, values


normal_equations.register(LightPrior, alone)


@lru_cache(maxsize=4)
def light_rows(
    chroma: float, contrast: float, exposure: float
) -> tuple[Float[np.ndarray, "rows 27"], Float[np.ndarray, "24 27"]]:
    """The rows of the light prior at level 1 in a black tint; what a unit of tint adds to those of the directions.

    It is linear in the light but for the last row's constant.
    """
    grey = np.kron(np.eye(9), np.full((1, 3), 1 / 3))
    by_channel = np.repeat(grey, 3, axis=0) / chroma
    colour = np.eye(27) / chroma
    colour[:3] -= by_channel[:3]
    return np.concatenate([colour, grey[1:] / contrast, grey[:1] / exposure]), -by_channel[3:]
