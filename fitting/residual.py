"""What a term of the fit is, and how its normal equations are formed when nobody has written a faster way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
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
        # A sum with NaN or infinity in it is one or the other.
        return math.isfinite(self.cost) and math.isfinite(float(self.matrix.sum()))


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


class Total:
    """Normal equations being added up in place, over a scene's freed unknowns: one matrix for all terms."""

    def __init__(self, scene: Scene, free: tuple[str, ...]) -> None:
        self.free, self.where = free, scene.layout(free)
        size = max((part.stop for part in self.where.values()), default=0)
        self.matrix, self.gradient, self.cost = np.zeros((size, size)), np.zeros(size), 0.0

    def equations(self) -> NormalEquations:
        return NormalEquations(torch.from_numpy(self.matrix), torch.from_numpy(self.gradient), self.cost)

    def columns(self, scene: Scene, blocks: tuple[str, ...]) -> tuple[slice, slice | Int[np.ndarray, "kept"]]:
        """Where the freed ones of `blocks` lie here, and among the columns of a Jacobian of these blocks.

        `blocks` follow each other in the packed order, so their freed ones lie together.
        """
        inside = [self.where[name] for name in blocks if name in self.where]
        if not inside:
            return slice(0, 0), slice(0, 0)
        here = slice(inside[0].start, inside[-1].stop)
        sizes = tuple((scene.size(name), name in self.where) for name in blocks)
        return here, _kept(sizes)

    def add(
        self,
        matrix: Float[np.ndarray, "columns columns"],
        gradient: Float[np.ndarray, "columns"],
        cost: float,
        scene: Scene,
        blocks: tuple[str, ...],
    ) -> None:
        """Add equations over `blocks` side by side."""
        here, kept = self.columns(scene, blocks)
        inside = (kept, kept) if isinstance(kept, slice) else np.ix_(kept, kept)
        self.matrix[here, here] += matrix[inside]
        self.gradient[here] += gradient[kept]
        self.cost += cost

    def add_rows(
        self,
        jacobian: Float[np.ndarray, "rows columns"],
        values: Float[np.ndarray, "rows"],
        scene: Scene,
        blocks: tuple[str, ...],
    ) -> None:
        """Add a term by its Jacobian, whose columns are `blocks` side by side."""
        exact = values.astype(np.float64)
        # numpy sees A^T A and computes one triangle only (syrk), 1.6 times faster than a general product.
        self.add(jacobian.T @ jacobian, values @ jacobian, 0.5 * float(exact @ exact), scene, blocks)


@lru_cache(maxsize=64)
def _kept(sizes: tuple[tuple[int, bool], ...]) -> slice | Int[np.ndarray, "kept"]:
    """The columns of the wanted ones of blocks side by side, each given by its size and whether it is wanted."""
    starts = np.cumsum([0, *(size for size, _ in sizes)])
    kept = np.concatenate(
        [
            np.arange(start, start + size)
            for start, (size, wanted) in zip(starts, sizes, strict=False)
            if wanted
        ]
    )
    if len(kept) and kept[-1] - kept[0] + 1 == len(kept):
        return slice(int(kept[0]), int(kept[-1]) + 1)
    return kept


@singledispatch
def add_to(residual: AbstractResidual, total: Total, scene: Scene) -> None:
    """Add a term's normal equations to a total, for a step: whole unless somebody has written a way that fills less.

    Cost and gradient are exact; the matrix may be nearly so, which a step forgives and a posterior does not.
    """
    found = normal_equations(residual, scene, total.free)
    total.matrix += found.matrix.numpy()
    total.gradient += found.gradient.numpy()
    total.cost += found.cost


def alone(residual: AbstractResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    """`normal_equations` of a term that has an `add_to` of its own."""
    total = Total(scene, free)
    add_to(residual, total, scene)
    return total.equations()


@singledispatch
def linearised(scene: Any, residuals: Sequence[AbstractResidual], free: tuple[str, ...]) -> Any:
    """The summed normal equations of all terms at a state of any kind."""
    parts = [normal_equations(residual, scene, free) for residual in residuals]
    return sum(parts[1:], parts[0])


@linearised.register
def _(scene: Scene, residuals: Sequence[AbstractResidual], free: tuple[str, ...]) -> NormalEquations:
    total = Total(scene, free)
    for residual in residuals:
        add_to(residual, total, scene)
    return total.equations()


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
