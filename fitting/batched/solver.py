"""Levenberg-Marquardt for many photographs at once.

Every photograph keeps its own damping, its own acceptance and its own end; those that have ended are carried along
and not moved. `GaussNewton.solve` is the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facefit.fitting.batched.geometry import Scenes
from facefit.fitting.batched.terms import AbstractTerm
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.result import Status


@dataclass(frozen=True)
class Ends:
    """How each photograph's solve ended."""

    status: list[Status]
    steps: list[int]


def solve(
    solver: GaussNewton, terms: Sequence[AbstractTerm], scenes: Scenes, free: tuple[str, ...]
) -> tuple[Scenes, Ends]:
    """`GaussNewton.solve` on every photograph."""
    photos, device = len(scenes.x), scenes.x.device
    if not terms:
        return scenes, Ends([Status.NOTHING_TO_FIT] * photos, [0] * photos)
    damping = torch.full((photos,), solver.damping, dtype=torch.float64, device=device)
    active = torch.ones(photos, dtype=torch.bool, device=device)
    steps = torch.zeros(photos, dtype=torch.int64, device=device)
    status = [Status.STEPS_USED] * photos
    for _ in range(solver.steps):
        if not bool(active.any()):
            break
        terms = [term.freeze(scenes) for term in terms]
        matrix, gradient, cost = normal_equations(terms, scenes, free)
        finite = cost.isfinite() & matrix.isfinite().all(-1).all(-1)
        _mark(status, active & ~finite, Status.NOT_FINITE)
        active &= finite
        scenes, total, taken, damping = _descend(
            solver, terms, scenes, free, (matrix, gradient, cost), damping, active
        )
        _mark(status, active & ~taken, Status.NO_DESCENT)
        active &= taken
        steps += active
        converged = active & (cost - total <= solver.tolerance * cost)
        _mark(status, converged, Status.CONVERGED)
        active &= ~converged
    return scenes, Ends(status, steps.tolist())


def _mark(status: list[Status], where: Bool[Tensor, "photos"], value: Status) -> None:
    for b in where.nonzero()[:, 0].tolist():
        status[b] = value


def normal_equations(
    terms: Sequence[AbstractTerm], scenes: Scenes, free: tuple[str, ...]
) -> tuple[Float[Tensor, "photos n n"], Float[Tensor, "photos n"], Float[Tensor, "photos"]]:
    """Summed J^T J, J^T r and |r|^2 / 2 over the freed unknowns: products in float32, sums over terms in float64."""
    columns = scenes.columns(free)
    size, photos = len(columns), len(scenes.x)
    place = torch.full((scenes.x.shape[1],), -1, dtype=torch.int64, device=columns.device)
    place[columns] = torch.arange(size, device=columns.device)
    matrix = torch.zeros(photos, size, size, dtype=torch.float64, device=columns.device)
    gradient = torch.zeros(photos, size, dtype=torch.float64, device=columns.device)
    cost = torch.zeros(photos, dtype=torch.float64, device=columns.device)
    for term in terms:
        values, jacobian = term.linearise(scenes)
        where = place[scenes.columns(term.blocks)]
        kept = (where >= 0).nonzero()[:, 0]
        target = where[kept]
        gradient[:, target] += (jacobian[..., kept].transpose(1, 2) @ values[..., None])[..., 0].double()
        jacobian = term.for_curvature(jacobian)[..., kept]
        matrix[:, target[:, None], target[None]] += (jacobian.transpose(1, 2) @ jacobian).double()
        cost += 0.5 * (values.double() ** 2).sum(1)
    return matrix, gradient, cost


def _descend(
    solver: GaussNewton,
    terms: Sequence[AbstractTerm],
    scenes: Scenes,
    free: tuple[str, ...],
    system: tuple[Tensor, Tensor, Tensor],
    damping: Float[Tensor, "photos"],
    active: Bool[Tensor, "photos"],
) -> tuple[Scenes, Float[Tensor, "photos"], Bool[Tensor, "photos"], Float[Tensor, "photos"]]:
    """Damped steps until each active photograph has one that lowers its cost, or too many were refused."""
    matrix, gradient, cost = system
    columns = scenes.columns(free)
    taken = torch.zeros_like(active)
    total = cost.clone()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    for _ in range(solver.refusals):
        waiting = active & ~taken
        if not bool(waiting.any()):
            break
        added = torch.where(diagonal > 0, damping[:, None] * diagonal, torch.ones_like(diagonal))
        damped = matrix + torch.diag_embed(added)
        factor, failed = torch.linalg.cholesky_ex(damped)
        step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        tried = scenes.x.clone()
        tried[:, columns] += step.to(tried)
        candidate = scenes.with_x(tried)
        trial = sum(0.5 * (term.values(candidate).double() ** 2).sum(1) for term in terms)
        assert isinstance(trial, Tensor)
        better = waiting & (failed == 0) & (trial < cost)
        scenes = scenes.with_x(torch.where(better[:, None], tried, scenes.x))
        total = torch.where(better, trial, total)
        taken |= better
        shrunk, grown = (damping / 3).clamp(min=1e-9), (4 * damping).clamp(min=1e-6)
        damping = torch.where(better, shrunk, torch.where(waiting, grown, damping))
    return scenes, total, taken, damping
