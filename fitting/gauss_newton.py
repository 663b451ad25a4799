"""Levenberg-Marquardt on summed normal equations. It never sees a face."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import lapack
from torch import Tensor

from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, linearised
from facefit.fitting.result import StageReport, Status
from facefit.models.scene import Scene


@dataclass(frozen=True)
class GaussNewton:
    """Freeze, linearise, damp, Cholesky, accept or damp more.

    `steps` bounds the accepted steps; a step that lowers the cost by less than `tolerance` of it ends the stage.
    Damping scales the diagonal (Marquardt), so it does not depend on the unknowns' units; it starts at
    `damping`, shrinks threefold after a good step and grows fourfold after a refused one.
    """

    steps: int = 10
    tolerance: float = 1e-3
    damping: float = 1e-3
    refusals: int = 6

    def solve(
        self,
        residuals: Sequence[AbstractResidual],
        scene: Scene,
        free: tuple[str, ...],
        name: str = "gauss-newton",
    ) -> tuple[Scene, StageReport]:
        """The scene with the lowest cost found, and how it went.

        The report compares start and end by one yardstick, the terms as they were last frozen: sigmas and robust
        weights that follow the fit would make costs incomparable.
        """
        started = time.perf_counter()
        start, damping, accepted = scene, self.damping, 0
        status = Status.STEPS_USED if residuals else Status.NOTHING_TO_FIT
        after: list[float] | None = None
        while residuals and scene.layout(free) and accepted < self.steps:
            # Each freezes from its last frozen self, so that it may keep what has not changed.
            residuals, after = [residual.freeze(scene) for residual in residuals], None
            system = linearised(scene, residuals, free)
            if not system.finite:
                status = Status.NOT_FINITE
                break
            taken, damping = self._descend(residuals, scene, free, system, damping)
            if taken is None:
                status = Status.NO_DESCENT
                break
            (scene, after), accepted = taken, accepted + 1
            if system.cost - sum(after) <= self.tolerance * system.cost:
                status = Status.CONVERGED
                break
        seconds = time.perf_counter() - started
        if after is None:
            after = [cost(residual, scene) for residual in residuals]
        first = by_term(residuals, [cost(residual, start) for residual in residuals])
        last = by_term(residuals, after)
        return scene, StageReport(name, status, accepted, first, last, seconds)

    def _descend(
        self,
        residuals: Sequence[AbstractResidual],
        scene: Scene,
        free: tuple[str, ...],
        system: NormalEquations,
        damping: float,
    ) -> tuple[tuple[Scene, list[float]] | None, float]:
        """The scene after the first damped step that lowers the cost, with each term's (None after too many refusals),
        and the next damping.
        """
        x = scene.pack(free)
        for _ in range(self.refusals):
            step = damped_step(system, damping)
            if step is not None:
                candidate = scene.with_packed(free, x + step.to(x))
                costs = [cost(residual, candidate) for residual in residuals]
                # A NaN compares false, so a step into nonsense is refused like one uphill.
                if sum(costs) < system.cost:
                    return (candidate, costs), max(damping / 3, 1e-9)
            damping = max(4 * damping, 1e-6)
        return None, damping


def by_term(residuals: Sequence[AbstractResidual], costs: Sequence[float]) -> dict[str, float]:
    """Each term's cost; terms of one name are added."""
    named: dict[str, float] = {}
    for residual, value in zip(residuals, costs, strict=True):
        named[residual.name] = named.get(residual.name, 0.0) + value
    return named


@singledispatch
def damped_step(system: NormalEquations, damping: float) -> Float[Tensor, "unknowns"] | None:
    """The minimiser of the damped quadratic, or None where the matrix is not positive definite.

    Systems of another form than one dense matrix register their own way.
    """
    damped, gradient = system.matrix.numpy().copy(), system.gradient.numpy()
    diagonal = np.einsum("ii->i", damped)
    # An unknown that no residual sees has a zero row; a one on its diagonal holds it where it is.
    diagonal += np.where(diagonal > 0, damping * diagonal, 1.0)
    # Symmetric, so its transpose is the same matrix, in the order of columns that LAPACK reads without a copy.
    _, step, failed = lapack.dposv(damped.T, gradient, lower=1, overwrite_a=1)
    if failed or not np.isfinite(step).all():
        return None
    return torch.from_numpy(-step)
