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
        started = time.perf_counter()
        with torch.enable_grad(), _repeatable():
            x, taken, status, before, after = self._descend(list(losses), scene, free)
        if taken:
            scene = scene.with_packed(free, x)
        seconds = time.perf_counter() - started
        return scene, StageReport(name, status, taken, before, after, seconds)

    def _descend(
        self, losses: list[AbstractResidual | Loss], scene: Scene, free: tuple[str, ...]
    ) -> tuple[Tensor, int, Status, dict[str, float], dict[str, float]]:
        names = _names(losses)
        rates = self._rates(scene, free)
        x = scene.pack(free).detach()
        moments = _Moments(x, scene.layout(free).get("offsets"), self.betas)
        best, best_x, best_step = math.inf, x, 0
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        slowed, retreats, reference, reference_step = 1.0, 0, math.inf, 0
        for step in range(self.steps + 1):
            if step % self.refreeze == 0:
                frozen = [_freeze(loss, scene.with_packed(free, x)) for loss in losses]
                if best_step and any(a is not b for a, b in zip(frozen, losses, strict=True)):
                    # Refrozen terms are another function: the best so far is measured anew by them, and what
                    # counts as progress keeps its ratio to it.
                    with torch.no_grad():
                        total, values = _evaluate(frozen, scene.with_packed(free, best_x))
                    reference *= float(total) / best if best else 1.0
                    best = float(total)
                    after = dict(zip(names, values, strict=True))
                losses = frozen
            y = x.clone().requires_grad_()
            total, values = _evaluate(losses, scene.with_packed(free, y))
            value = float(total.detach())
            if not before:
                before = after = dict(zip(names, values, strict=True))
                if not math.isfinite(value):
                    return x, 0, Status.NOT_FINITE, before, after
                if not (total.requires_grad and len(x)):
                    return x, 0, Status.NOTHING_TO_FIT, before, after
            if value < best:
                best, best_x, best_step = value, x, step
                after = dict(zip(names, values, strict=True))
            if best < reference - self.tolerance * abs(reference) or reference == math.inf:
                reference, reference_step = best, step
            elif step - reference_step >= self.patience:
                return best_x, best_step, Status.CONVERGED, before, after
            if step == self.steps:
                break
            gradient: Tensor | None = None
            if math.isfinite(value):
                # None where the loss depends on a network's own parameters only.
                found: tuple[Tensor | None, ...] = torch.autograd.grad(total, y, allow_unused=True)
                gradient = found[0]
                if gradient is None:
                    return best_x, 0, Status.NOTHING_TO_FIT, before, after
            if gradient is None or not bool(torch.isfinite(gradient).all()):
                if retreats == self.retreats:
                    return best_x, best_step, Status.NOT_FINITE, before, after
                retreats, slowed, x = retreats + 1, 0.5 * slowed, best_x
                moments.forget()
                continue
            x = x - slowed * self.schedule(step / self.steps) * rates * moments.direction(gradient)
        return best_x, best_step, Status.STEPS_USED if best_step else Status.NO_DESCENT, before, after

    def _rates(self, scene: Scene, free: tuple[str, ...]) -> Float[Tensor, "unknowns"]:
        rates = torch.zeros_like(scene.pack(free))
        for block, where in scene.layout(free).items():
            rates[where] = self.learning_rates.get(block, LEARNING_RATES[block])
        return rates


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


def _evaluate(losses: Sequence[AbstractResidual | Loss], scene: Scene) -> tuple[Tensor, list[float]]:
    """The sum to descend, and each part's value."""
    parts = []
    for loss in losses:
        value = loss(scene)
        parts.append(0.5 * (value @ value) if isinstance(loss, AbstractResidual) else value)
    if not parts:
        return torch.zeros(()), []
    return torch.stack(parts).sum(), [float(part.detach()) for part in parts]


def _names(losses: Sequence[AbstractResidual | Loss]) -> list[str]:
    """What each is called in the report: its `name`, its function's or its type's; numbered if it repeats."""
    found: list[str] = []
    for loss in losses:
        name = str(getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__))
        found.append(name if name not in found else f"{name} {sum(n.startswith(name) for n in found) + 1}")
    return found


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
