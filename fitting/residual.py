"""What a term of the fit is, and how its normal equations are formed when nobody has written a faster way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.models.scene import Scene


class AbstractResidual(ABC):
    """Whitened numbers that a good scene makes small: each has unit variance where the scene is right.

    The cost of a term is half their sum of squares. `freeze` fixes, at a scene, what is not smooth (visible
    samples, contour points, robust weights) and returns the term to be linearised there.
    """

    name: str

    @abstractmethod
    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        """The whitened residuals, differentiable in the scene."""

    def freeze(self, scene: Scene) -> Self:
        return self


@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton's quadratic model cost + gradient . step + step . matrix . step / 2, in float64."""

    matrix: Float[Tensor, "unknowns unknowns"]
    gradient: Float[Tensor, "unknowns"]
    cost: float

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(
            self.matrix + other.matrix, self.gradient + other.gradient, self.cost + other.cost
        )

    @property
    def finite(self) -> bool:
        return math.isfinite(self.cost) and bool(torch.isfinite(self.matrix).all())


@singledispatch
def normal_equations(residual: AbstractResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    """J^T J, J^T r and |r|^2 / 2 by automatic differentiation: the specification of every faster way.

    Forward mode, since most terms have more rows than unknowns.
    """
    x = scene.pack(free).double()
    exact = to_double(scene)

    def rows(y: Float[Tensor, "unknowns"]) -> Float[Tensor, "rows"]:
        return residual(exact.with_packed(free, y))

    jacobian = torch.func.jacfwd(rows)(x)
    values = rows(x)
    return NormalEquations(jacobian.T @ jacobian, jacobian.T @ values, 0.5 * float(values @ values))


@singledispatch
def cost(residual: AbstractResidual, scene: Scene) -> float:
    """Half the sum of squares."""
    values = residual(scene)
    return 0.5 * float(values.double() @ values.double())


def to_double(scene: Scene) -> Scene:
    """The scene in float64."""
    from facefit.models.scene import BLOCKS

    free = tuple(name for name in BLOCKS if name != "offsets" or scene.offsets is not None)
    return scene.with_packed(free, scene.pack(free).double())
