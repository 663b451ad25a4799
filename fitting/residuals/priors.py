"""What is believed before the photograph is seen: coefficients, focal length, light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.residual import AbstractResidual, NormalEquations, normal_equations
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


@normal_equations.register
def _(residual: CoefficientPrior, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    rows = residual.weight * torch.eye(len(scene.block(residual.block)), dtype=torch.float64)
    return linear_in_block(residual.block, rows, residual(scene), scene, free)


def linear_in_block(
    block: str,
    rows: Float[Tensor, "rows size"],
    values: Float[Tensor, "rows"],
    scene: Scene,
    free: tuple[str, ...],
) -> NormalEquations:
    """Normal equations of a term that sees one block only, through constant `rows`."""
    where = scene.layout(free)
    size = sum(part.stop - part.start for part in where.values())
    matrix, gradient = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    values = values.double()
    if block in where:
        matrix[where[block], where[block]] = rows.T @ rows
        gradient[where[block]] = rows.T @ values
    return NormalEquations(matrix, gradient, 0.5 * float(values @ values))


@dataclass(frozen=True)
class FocalPrior(AbstractResidual):
    """log focal length ~ N(log of the camera prior's, sigma)."""

    log_focal: float
    sigma: float
    name: str = "focal prior"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return (scene.block("focal") - self.log_focal) / self.sigma


@normal_equations.register
def _(residual: FocalPrior, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    rows = torch.tensor([[1 / residual.sigma]], dtype=torch.float64)
    return linear_in_block("focal", rows, residual(scene), scene, free)


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


@normal_equations.register
def _(residual: LightPrior, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    frozen = residual if residual.level else residual.freeze(scene)
    rows = light_rows(frozen.chroma, frozen.contrast) / frozen.level
    return linear_in_block("lighting", rows, frozen(scene), scene, free)


@lru_cache(maxsize=4)
def light_rows(chroma: float, contrast: float) -> Float[Tensor, "rows 27"]:
    """The light prior at level 1 is linear in the light: its rows are its values at the 27 unit lights."""
    prior = LightPrior(1.0, chroma, contrast)
    units = torch.eye(27, dtype=torch.float64).reshape(27, 9, 3)
    return torch.stack([prior.of_light(Lighting(unit)) for unit in units], 1)
