"""Normal equations of several photographs of one person: block-arrow, solved by the Schur complement.

Each photograph has its own unknowns, which meet only the person's: the matrix is block-diagonal but for the last
rows and columns. Eliminating a photograph costs the cube of its own unknowns, so a step is linear in photographs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.gauss_newton import damped_step
from facefit.fitting.joint.scenes import SHARED, Scenes, own_sizes, shared
from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, linearised
from facefit.models.scene import Scene


@dataclass(frozen=True)
class Arm:
    """One photograph's part: its own block, its coupling to the person's unknowns, its own gradient."""

    matrix: Float[Tensor, "own own"]
    coupling: Float[Tensor, "own shared"]
    gradient: Float[Tensor, "own"]

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.matrix).all()) and bool(torch.isfinite(self.coupling).all())


@dataclass(frozen=True)
class ArrowEquations:
    """Gauss-Newton's quadratic model over `Scenes.pack`; `arms` by photograph, absent where nothing speaks of one.

    `own` is the number of each photograph's own unknowns.
    """

    own: tuple[int, ...]
    arms: Mapping[int, Arm]
    person: NormalEquations

    @property
    def cost(self) -> float:
        return self.person.cost

    @property
    def finite(self) -> bool:
        return (
            math.isfinite(self.cost) and self.person.finite and all(arm.finite for arm in self.arms.values())
        )

    def dense(self) -> NormalEquations:
        """The same as one matrix: the specification of the fast solution."""
        size = sum(self.own) + len(self.person.gradient)
        matrix = torch.zeros(size, size, dtype=torch.float64)
        gradient = torch.zeros(size, dtype=torch.float64)
        last = slice(sum(self.own), size)
        matrix[last, last], gradient[last] = self.person.matrix, self.person.gradient
        for index, arm in self.arms.items():
            start = sum(self.own[:index])
            where = slice(start, start + self.own[index])
            matrix[where, where], gradient[where] = arm.matrix, arm.gradient
            matrix[where, last], matrix[last, where] = arm.coupling, arm.coupling.T
        return NormalEquations(matrix, gradient, self.cost)

    def marginal(self) -> Float[Tensor, "shared shared"] | None:
        """The person's precision with the photographs' own unknowns integrated out; None where one is undetermined."""
        matrix = self.person.matrix
        for arm in self.arms.values():
            factor, failed = torch.linalg.cholesky_ex(_damped(arm.matrix, 0.0))
            if int(failed):
                return None
            half = torch.linalg.solve_triangular(factor, arm.coupling, upper=False)
            matrix = matrix - half.T @ half
        return matrix


@damped_step.register
def _(  # type: ignore[misc]  # a system of another form
    system: ArrowEquations, damping: float
) -> Float[Tensor, "unknowns"] | None:
    """With A own, B coupling, C the person's: (C - sum B^T A^-1 B) y = -(c - sum B^T A^-1 a), x = -A^-1 (a + B y)."""
    schur = _damped(system.person.matrix, damping)
    right = system.person.gradient
    halves = {}
    for index, arm in system.arms.items():
        factor, failed = torch.linalg.cholesky_ex(_damped(arm.matrix, damping))
        if int(failed):
            return None
        both = torch.cat([arm.coupling, arm.gradient[:, None]], 1)
        both = torch.linalg.solve_triangular(factor, both, upper=False)
        coupling, gradient = both[:, :-1], both[:, -1]
        schur = schur - coupling.T @ coupling
        right = right - coupling.T @ gradient
        halves[index] = factor, coupling, gradient
    factor, failed = torch.linalg.cholesky_ex(schur)
    if int(failed):
        return None
    person = -torch.cholesky_solve(right[:, None], factor)[:, 0]
    steps = [person.new_zeros(size) for size in system.own]
    for index, (factor, coupling, gradient) in halves.items():
        back = -(gradient + coupling @ person)
        steps[index] = torch.linalg.solve_triangular(factor.T, back[:, None], upper=True)[:, 0]
    return torch.cat([*steps, person])


def _damped(matrix: Float[Tensor, "n n"], damping: float) -> Float[Tensor, "n n"]:
    """Marquardt's damping, as in the dense step: a one holds an unknown that nothing sees."""
    diagonal = matrix.diagonal()
    return matrix + torch.diag(torch.where(diagonal > 0, damping * diagonal, torch.ones_like(diagonal)))


@dataclass(frozen=True)
class OfPhotograph:
    """A term about one photograph, asked about all scenes; the term itself does not notice."""

    index: int
    term: AbstractResidual

    @property
    def name(self) -> str:
        return self.term.name

    def freeze(self, scenes: Scenes) -> OfPhotograph:
        return OfPhotograph(self.index, self.term.freeze(scenes.each[self.index]))


@linearised.register
def _(scenes: Scenes, residuals: Sequence[OfPhotograph], free: tuple[str, ...]) -> ArrowEquations:
    """Each photograph's terms are added up as if it were alone; only then is what concerns the person set apart."""
    sizes = own_sizes(scenes, free)
    person = sum(scenes.each[0].size(name) for name in shared(free))
    arms = {}
    total = NormalEquations(
        torch.zeros(person, person, dtype=torch.float64), torch.zeros(person, dtype=torch.float64), 0.0
    )
    for index, scene in enumerate(scenes.each):
        terms = [residual.term for residual in residuals if residual.index == index]
        if terms:
            system = linearised(scene, terms, scenes.free(index, free))
            arms[index], part = split(system, scene, scenes.free(index, free))
            total = total + part
    return ArrowEquations(sizes, arms, total)


def split(system: NormalEquations, scene: Scene, free: tuple[str, ...]) -> tuple[Arm, NormalEquations]:
    """One photograph's equations as its arm and its share of the person's."""
    numbers: dict[bool, list[int]] = {True: [], False: []}
    for name, where in scene.layout(free).items():
        numbers[name in SHARED] += range(where.start, where.stop)
    own, person = (
        torch.tensor(numbers[False], dtype=torch.long),
        torch.tensor(numbers[True], dtype=torch.long),
    )
    rows = system.matrix[own]
    arm = Arm(rows[:, own], rows[:, person], system.gradient[own])
    return arm, NormalEquations(system.matrix[person][:, person], system.gradient[person], system.cost)


@cost.register
def _(residual: OfPhotograph, scenes: Scenes) -> float:  # type: ignore[misc]  # answers for scenes
    return cost(residual.term, scenes.each[residual.index])
