"""Laws that several modules obey, written once: derivatives, and what a term of the fit owes the solver."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import chain, combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, normal_equations, to_double
from facefit.models.scene import Scene

with warnings.catch_warnings():
    # The first derivative in forward mode makes torch compile a table of its own by a way it deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.func.jacfwd(torch.sin)(torch.zeros(1))

SMOOTH_BLOCKS = ("rotation", "translation", "focal", "identity", "expression", "albedo", "lighting")


def central_difference(
    function: Callable[[Float[Tensor, "unknowns"]], Float[Tensor, "rows"]],
    x: Float[Tensor, "unknowns"],
    step: float | Float[Tensor, "unknowns"] = 1e-5,
) -> Float[Tensor, "rows unknowns"]:
    """The Jacobian by differences, in float64.

    Truncation falls with step^2, rounding grows as 1e-16 / step: near 1e-5 both are about 1e-10.
    """
    steps = torch.full_like(x, step) if isinstance(step, float) else step
    columns = []
    with torch.no_grad():
        for k in range(len(x)):
            delta = torch.zeros_like(x)
            delta[k] = steps[k]
            columns.append((function(x + delta) - function(x - delta)) / (2 * steps[k]))
    return torch.stack(columns, -1)


def subsets(blocks: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every non-empty choice of the blocks."""
    return chain.from_iterable(combinations(blocks, size) for size in range(1, len(blocks) + 1))


def oracle(residual: AbstractResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    """The normal equations by automatic differentiation."""
    return normal_equations.dispatch(AbstractResidual)(residual, scene, free)


def assert_same_equations(
    fast: NormalEquations, slow: NormalEquations, relative: float, absolute: float = 1e-12
) -> None:
    """Equal in each unknown's own unit: an entry may err by `relative` of the mean of its two diagonals."""
    scale = slow.matrix.diagonal().clamp(min=0).sqrt()
    matrix = (fast.matrix - slow.matrix).abs() - relative * torch.outer(scale, scale)
    assert float(matrix.max()) <= absolute, f"matrix off by {float(matrix.max()):.3g} beyond tolerance"
    length = (2 * slow.cost) ** 0.5
    gradient = (fast.gradient - slow.gradient).abs() - relative * scale * length
    assert float(gradient.max()) <= absolute, f"gradient off by {float(gradient.max()):.3g} beyond tolerance"
    assert abs(fast.cost - slow.cost) <= relative * slow.cost + absolute


def assert_equations_are_the_derivative(
    residual: AbstractResidual, scene: Scene, free: tuple[str, ...], relative: float
) -> None:
    """The term's own normal equations, symmetric, are those of automatic differentiation."""
    fast = normal_equations(residual, scene, free)
    torch.testing.assert_close(fast.matrix, fast.matrix.T)
    assert fast.matrix.dtype == torch.float64
    assert_same_equations(fast, oracle(residual, scene, free), relative)


def assert_cost_is_half_the_squares(residual: AbstractResidual, scene: Scene, relative: float) -> None:
    values = residual(to_double(scene)).double()
    expected = 0.5 * float(values @ values)
    assert abs(cost(residual, scene) - expected) <= relative * expected + 1e-12


def assert_finite(scene: Scene) -> None:
    for name in SMOOTH_BLOCKS:
        assert bool(torch.isfinite(scene.block(name)).all()), f"{name} is not finite"


def same_scene(a: Scene, b: Scene) -> bool:
    """Bit for bit."""
    return all(np.array_equal(a.block(n).numpy(), b.block(n).numpy()) for n in SMOOTH_BLOCKS)
