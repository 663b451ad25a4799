"""What is believed before the photograph is seen: coefficients, focal length, light."""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LightPrior(AbstractResidual):
    """Plausible light: nearly white, brighter from some side but rarely black from any other.

    In shares of the present mean ambient level (frozen): the colour of each coefficient strays from grey by
    `chroma`, the grey of each directional coefficient from zero by `contrast`; the ambient level itself is free.
    """

    level: float = 0.0
    chroma: float = 0.12
    contrast: float = 0.7
    name: str = "light prior"

    def freeze(self, scene: Scene) -> LightPrior:
        level = float(scene.lighting.coefficients[0].mean().clamp(min=0.1))
        return LightPrior(level, self.chroma, self.contrast, self.name)

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return self.of_light(scene.lighting)

    def of_light(self, lighting: Lighting) -> Float[Tensor, "rows"]:
        coefficients = lighting.coefficients
        level = self.level or float(coefficients[0].detach().mean().clamp(min=0.1))
        grey = coefficients.mean(1)
        colour = (coefficients - grey[:, None]) / (self.chroma * level)
        return torch.cat([colour.reshape(-1), grey[1:] / (self.contrast * level)])


@add_to.register
def _(residual: LightPrior, total: Total, scene: Scene) -> None:
    rows, values = _light(residual, scene)
    total.add_rows(rows, values, scene, ("lighting",))


@cost.register
def _(residual: LightPrior, scene: Scene) -> float:
    _, values = _light(residual, scene)
    return 0.5 * float(values @ values)


def _light(
    residual: LightPrior, scene: Scene
) -> tuple[Float[np.ndarray, "rows 27"], Float[np.ndarray, "rows"]]:
    frozen = residual if residual.level else residual.freeze(scene)
    rows = light_rows(frozen.chroma, frozen.contrast) / frozen.level
    return rows, rows @ scene.lighting.coefficients.numpy().astype(np.float64).ravel()


normal_equations.register(LightPrior, alone)


@lru_cache(maxsize=4)
def light_rows(chroma: float, contrast: float) -> Float[np.ndarray, "rows 27"]:
    """The light prior at level 1 is linear in the light: its rows are its values at the 27 unit lights."""
    prior = LightPrior(1.0, chroma, contrast)
    units = torch.eye(27, dtype=torch.float64).reshape(27, 9, 3)
    return torch.stack([prior.of_light(Lighting(unit)) for unit in units], 1).numpy()
