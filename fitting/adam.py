"""Adam on any differentiable loss of a scene, with the signature of `GaussNewton`."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.residual import AbstractResidual
from facefit.fitting.result import StageReport, Status
from facefit.models.scene import Scene

Loss = Callable[[Scene], Float[Tensor, ""]]
Schedule = Callable[[float], float]

# How far an unknown moves in a step, in its own unit: radians, mm, log pixels, standard deviations, light,
# mm. Found on a grid with all scaled together (benchmarks/adam_race.py).
LEARNING_RATES: Mapping[str, float] = {
    "rotation": 0.02,
    "translation": 2.0,
    "focal": 0.02,
    "identity": 0.1,
    "expression": 0.1,
    "albedo": 0.1,
    "lighting": 0.04,
    "offsets": 0.05,
}


def constant(_share: float) -> float:
    """The same rate all the time."""
    return 1.0


def cosine(share: float) -> float:
    """From 1 to 0 along half a cosine.

    Source: Munireddy et al., "3D Face Reconstruction from 2D Images Using CNN", section 3.5.
    """
    return 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Cyclical:
    """`cycles` half cosines, each from 1 to 0: warm restarts (the same paper, section 3.6.4)."""

    cycles: int = 3

    def __call__(self, share: float) -> float:
        return cosine((share * self.cycles) % 1.0) if share < 1 else 0.0


@dataclass(frozen=True)
class Adam:
    """First-order descent: evaluate, keep the best, step; each unknown normalised by its own gradient.

    Takes residuals (cost: half their sum of squares) and functions of a scene. The normalisation removes the
    units, so `learning_rates` are the sizes of a step per block, in the block's own unit; blocks without one
    take `LEARNING_RATES`; the `schedule` scales them by the share of the steps done. Residuals are frozen
    anew every `refreeze` steps. What is returned is the best state whose loss was computed, never an
    extrapolation.

    The three coordinates of an offset share one second moment, so that the result does not depend on the axes
    (Ling, Sharp and Jacobson, "VectorAdam for Rotation Equivariant Geometry Optimization", NeurIPS 2022).

    A loss or gradient that is not finite sends the search back to the best state with half the rate, at most
    `retreats` times. The stage has converged where `patience` steps together lower the best loss by less than
    `tolerance` of it. Source of the method: Kingma and Ba, "Adam", ICLR 2015, algorithm 1.
    """

    steps: int = 300
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule = cosine
    betas: tuple[float, float] = (0.9, 0.999)
    refreeze: int = 20
    tolerance: float = 1e-4
    patience: int = 50
    retreats: int = 6

    def __post_init__(self) -> None:
        if unknown := set(self.learning_rates) - set(LEARNING_RATES):
            raise ValueError(
                f"a learning rate for {', '.join(sorted(unknown))}: a scene has {', '.join(LEARNING_RATES)}"
            )
        if self.refreeze < 1 or self.steps < 0:
            raise ValueError(f"steps = {self.steps}, refreeze = {self.refreeze}: wanted >= 0 and >= 1")

    def solve(
        self,
        losses: Sequence[AbstractResidual | Loss],
        scene: Scene,
        free: tuple[str, ...],
        name: str = "adam",
    ) -> tuple[Scene, StageReport]:
        """The scene with the lowest loss found; start and end compared by the terms as last frozen."""
        started = time.perf_counter()
        with torch.enable_grad(), _repeatable():
            descent = _Descent(self, list(losses), scene, free)
            status = descent.run()
        if descent.best_step:
            end = scene.with_packed(free, descent.best_x)
        else:
            end = scene
        before, after = descent.costs(scene), descent.costs(end)
        seconds = time.perf_counter() - started
        return end, StageReport(name, status, descent.best_step, before, after, seconds)

    def rates(self, scene: Scene, free: tuple[str, ...]) -> Float[Tensor, "unknowns"]:
        """The learning rate of each unknown."""
        rates = torch.zeros_like(scene.pack(free))
        for block, where in scene.layout(free).items():
            rates[where] = self.learning_rates.get(block, LEARNING_RATES[block])
        return rates


class _Descent:
    """One run: where it is, the best it has seen, and the terms as they are frozen now."""

    def __init__(
        self, solver: Adam, losses: list[AbstractResidual | Loss], scene: Scene, free: tuple[str, ...]
    ) -> None:
        self.solver, self.losses, self.scene, self.free = solver, losses, scene, free
        self.x = self.best_x = scene.pack(free).detach()
        self.best, self.best_step = math.inf, 0
        # Progress is judged against `reference`, reached at `reference_step`.
        self.reference, self.reference_step = math.inf, 0
        self.slowed, self.retreats = 1.0, 0
        self.moments = _Moments(self.x, scene.layout(free).get("offsets"), solver.betas)

    def run(self) -> Status:
        solver = self.solver
        if not self.losses or not len(self.x):
            return Status.NOTHING_TO_FIT
        rates = solver.rates(self.scene, self.free)
        for step in range(solver.steps + 1):
            if step % solver.refreeze == 0:
                self._freeze()
            y = self.x.clone().requires_grad_()
            total = self._total(y)
            if step == 0 and not math.isfinite(float(total.detach())):
                return Status.NOT_FINITE
            if not total.requires_grad:
                return Status.NOTHING_TO_FIT
            self._record(float(total.detach()), step)
            if step - self.reference_step >= solver.patience:
                return Status.CONVERGED
            if step == solver.steps:
                break
            # None where the loss depends on a network's own parameters only.
            found: tuple[Tensor | None, ...] = torch.autograd.grad(total, y, allow_unused=True)
            gradient = found[0]
            if gradient is None:
                return Status.NOTHING_TO_FIT
            if bool(torch.isfinite(total)) and bool(torch.isfinite(gradient).all()):
                rate = self.slowed * solver.schedule(step / solver.steps)
                self.x = self.x - rate * rates * self.moments.direction(gradient)
            elif self.retreats == solver.retreats:
                return Status.NOT_FINITE
            else:
                self.x, self.slowed, self.retreats = self.best_x, 0.5 * self.slowed, self.retreats + 1
                self.moments.forget()
        return Status.STEPS_USED if self.best_step else Status.NO_DESCENT

    def _freeze(self) -> None:
        frozen = [_freeze(loss, self.scene.with_packed(self.free, self.x)) for loss in self.losses]
        same = all(a is b for a, b in zip(frozen, self.losses, strict=True))
        self.losses = frozen
        if self.best_step and not same:
            # Refrozen terms are another function: the best so far is measured anew by them, and what counts as
            # progress keeps its ratio to it.
            with torch.no_grad():
                best = float(self._total(self.best_x))
            self.reference *= best / self.best if self.best else 1.0
            self.best = best

    def _total(self, x: Float[Tensor, "unknowns"]) -> Float[Tensor, ""]:
        scene = self.scene.with_packed(self.free, x)
        return torch.stack([_value(loss, scene) for loss in self.losses]).sum()

    def _record(self, value: float, step: int) -> None:
        # A NaN compares false and is never the best.
        if value < self.best:
            self.best, self.best_x, self.best_step = value, self.x, step
        if self.reference == math.inf or self.best < self.reference * (1 - self.solver.tolerance):
            self.reference, self.reference_step = self.best, step

    def costs(self, scene: Scene) -> dict[str, float]:
        """Each term's cost by its name (or its function's); terms of one name are added."""
        costs: dict[str, float] = {}
        with torch.no_grad():
            for loss in self.losses:
                name = getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)
                costs[str(name)] = costs.get(str(name), 0.0) + float(_value(loss, scene))
        return costs


class _Moments:
    """Adam's running means of gradient and squared gradient, corrected for their start at zero."""

    def __init__(self, x: Tensor, vectors: slice | None, betas: tuple[float, float]) -> None:
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.vectors, self.betas, self.count = vectors, betas, 0

    def forget(self) -> None:
        self.first, self.second, self.count = self.first * 0, self.second * 0, 0

    def direction(self, gradient: Float[Tensor, "unknowns"]) -> Float[Tensor, "unknowns"]:
        self.count += 1
        squared = gradient * gradient
        if self.vectors is not None:
            rows = squared[self.vectors].reshape(-1, 3)
            squared[self.vectors] = rows.sum(1, keepdim=True).expand_as(rows).reshape(-1)
        a, b = self.betas
        self.first = a * self.first + (1 - a) * gradient
        self.second = b * self.second + (1 - b) * squared
        first, second = self.first / (1 - a**self.count), self.second / (1 - b**self.count)
        # Squares of gradients below 1e-19 vanish in float32; such an unknown stays where it is.
        step: Tensor = first / (second.sqrt() + torch.finfo(first.dtype).tiny ** 0.5)
        return step


def _freeze(loss: AbstractResidual | Loss, scene: Scene) -> AbstractResidual | Loss:
    if not isinstance(loss, AbstractResidual):
        return loss
    with torch.no_grad():
        return loss.freeze(scene)


def _value(loss: AbstractResidual | Loss, scene: Scene) -> Float[Tensor, ""]:
    value = loss(scene)
    return 0.5 * (value @ value) if isinstance(loss, AbstractResidual) else value


@contextmanager
def _repeatable() -> Iterator[None]:
    """Sums over gathered indices in a fixed order: by default torch adds them as its threads arrive."""
    on = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = importlib.import_module("torch.utils.deterministic")
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # guards, slowly, against a mistake not made here
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warn)
        memory.fill_uninitialized_memory = fill
