from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from contracts import same_scene
from jaxtyping import Float
from torch import Tensor
from toy import toy_scene

from facefit.fitting.gauss_newton import GaussNewton, damped_step
from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, to_double
from facefit.fitting.result import Status
from facefit.models.scene import Scene

FREE = ("identity",)


@dataclass(frozen=True)
class Curve(AbstractResidual):
    """Any function of the identity coefficients as a term."""

    function: Callable[[Float[Tensor, "6"]], Float[Tensor, "rows"]]
    name: str = "curve"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return self.function(scene.identity)


def at(*values: float) -> Scene:
    """A scene in float64 whose first identity coefficients are these, the others zero."""
    identity = torch.zeros(6)
    identity[: len(values)] = torch.tensor(values)
    return to_double(replace(toy_scene(), identity=identity))


def rosenbrock(x: Float[Tensor, "6"]) -> Float[Tensor, "2"]:
    return torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def linear(seed: int = 0) -> tuple[Float[Tensor, "9 6"], Float[Tensor, "9"]]:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(size=(9, 6))), torch.from_numpy(random.normal(size=9))


def test_a_linear_problem_is_solved_in_one_step() -> None:
    rows, values = linear()
    term = Curve(lambda x: rows @ x - values)
    solved, report = GaussNewton(steps=1, damping=0.0).solve([term], at(), FREE)
    wanted = torch.linalg.lstsq(rows, values[:, None]).solution[:, 0]
    torch.testing.assert_close(solved.identity, wanted)
    assert report.steps == 1 and report.cost_after["curve"] == pytest.approx(cost(term, solved))


def test_two_terms_are_one_sum() -> None:
    rows, values = linear()
    halves = [Curve(lambda x, s=s: rows[s] @ x - values[s], f"part {s}") for s in (slice(0, 4), slice(4, 9))]
    solved, report = GaussNewton(steps=1, damping=0.0).solve(halves, at(), FREE)
    wanted = torch.linalg.lstsq(rows, values[:, None]).solution[:, 0]
    torch.testing.assert_close(solved.identity, wanted)
    assert (
        set(report.cost_before)
        == set(report.cost_after)
        == {"part slice(0, 4, None)", "part slice(4, 9, None)"}
    )


def test_two_terms_of_the_same_name_both_count() -> None:
    """Refusing a step needs the whole cost: here the first term's minimum is a step up for the second."""
    terms = [Curve(lambda x: 3 * torch.tanh(5 * x[:1] - 10)), Curve(lambda x: 0.1 * (x[:1] - 1))]
    start = at(2.05)
    solved, _ = GaussNewton(steps=1, damping=0.0, refusals=8).solve(terms, start, FREE)
    assert sum(cost(t, solved) for t in terms) <= sum(cost(t, start) for t in terms)
    report = GaussNewton(steps=3).solve(terms, start, FREE)[1]
    assert sum(report.cost_before.values()) == pytest.approx(sum(cost(t, start) for t in terms))


@pytest.mark.parametrize("start", [(-1.2, 1.0), (5.0, -3.0), (0.0, 0.0)])
def test_rosenbrocks_valley_is_followed_to_its_end(start: tuple[float, float]) -> None:
    solved, report = GaussNewton(steps=200, tolerance=1e-12, refusals=20).solve(
        [Curve(rosenbrock)], at(*start), FREE
    )
    assert solved.identity[:2].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert report.status.ok


def test_near_the_solution_convergence_is_quadratic_where_the_residual_vanishes() -> None:
    """Steps needed grow as the logarithm of the logarithm of the accuracy: six for twelve digits."""
    term = Curve(lambda x: torch.stack([x[0] ** 2 - 2, x[1] - torch.exp(x[0])]))
    solved, report = GaussNewton(steps=30, tolerance=1e-14, damping=1e-9).solve([term], at(1.0, 1.0), FREE)
    assert float(solved.identity[0]) == pytest.approx(math.sqrt(2), abs=1e-12)
    assert report.steps <= 7


@pytest.mark.parametrize("seed", range(12))
def test_the_cost_never_rises(seed: int) -> None:
    """Also where the model is a poor one: wiggly, random, with flat and steep directions."""
    rows, values = linear(seed)
    term = Curve(lambda x: torch.sin(3 * rows @ x) + 0.1 * (rows @ x) - values)
    start = at(*np.random.default_rng(seed).normal(0, 2, 6))
    last = cost(term, start)
    for steps in (1, 2, 5, 20):
        solved, report = GaussNewton(steps=steps, tolerance=0.0).solve([term], start, FREE)
        here = cost(term, solved)
        assert here <= last * (1 + 1e-12) and report.steps <= steps
        assert report.cost_after["curve"] == pytest.approx(here)
        last = here
    assert last < cost(term, start)


def test_a_step_into_nan_is_refused_and_shortened() -> None:
    """log(x) + 10 from x = 1: the full step lands at -9, where there is no logarithm."""
    term = Curve(lambda x: torch.log(x[:1]) + 10)
    solved, report = GaussNewton(steps=50, refusals=12, tolerance=1e-9).solve([term], at(1.0), FREE)
    assert 0 < float(solved.identity[0]) < 0.01
    assert cost(term, solved) < 0.1 * cost(term, at(1.0))
    assert report.status.ok


def test_where_every_step_is_nonsense_the_start_comes_back() -> None:
    def cliff(x: Float[Tensor, "6"]) -> Float[Tensor, "1"]:
        inside = (x[:1] - 1).abs() < 1e-9
        return torch.where(inside, 5 + x[:1], torch.full_like(x[:1], math.nan))

    start = at(1.0)
    solved, report = GaussNewton().solve([Curve(cliff)], start, FREE)
    assert same_scene(solved, start)
    assert report.status is Status.NO_DESCENT and report.steps == 0
    assert report.cost_after == report.cost_before == {"curve": pytest.approx(18)}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_ends_the_stage_where_it_began(bad: float) -> None:
    start = at(1.0, 2.0)
    solved, report = GaussNewton().solve([Curve(lambda x: x * bad)], start, FREE)
    assert same_scene(solved, start) and report.status is Status.NOT_FINITE and report.steps == 0
    assert not report.status.ok


def test_a_derivative_that_is_not_finite_ends_the_stage_too() -> None:
    start = at()
    solved, report = GaussNewton().solve([Curve(lambda x: x.abs().sqrt())], start, FREE)
    assert same_scene(solved, start) and report.status is Status.NOT_FINITE


def test_unknowns_that_no_term_sees_stay_where_they_are() -> None:
    term = Curve(lambda x: x[:1] - 3)
    start = at(0.0, 0.5, -0.5)
    solved, _ = GaussNewton().solve([term], start, ("identity", "rotation", "lighting"))
    assert float(solved.identity[0]) == pytest.approx(3, abs=1e-3)
    assert torch.equal(solved.identity[1:], start.identity[1:])
    assert torch.equal(solved.pose.rotation, start.pose.rotation)


def test_blocks_that_are_not_free_stay_bit_for_bit() -> None:
    start = at(1.0, 2.0, 3.0)
    term = Curve(rosenbrock)
    solved, _ = GaussNewton().solve([term], start, FREE)
    assert same_scene(replace(solved, identity=start.identity), start)


def test_the_same_problem_is_solved_the_same_bit_for_bit() -> None:
    rows, values = linear(3)
    term = Curve(lambda x: torch.sin(rows @ x) - values)
    first, again = (GaussNewton(steps=20).solve([term], at(), FREE)[0] for _ in range(2))
    assert same_scene(first, again)


@pytest.mark.parametrize("units", [1e-2, 1.0, 1e2])
def test_the_unit_of_an_unknown_does_not_matter(units: float) -> None:
    """Damping scales the diagonal: rescaling an unknown rescales its solution, step by step."""

    def scaled(x: Float[Tensor, "6"]) -> Float[Tensor, "2"]:
        return rosenbrock(torch.cat([x[:1] * units, x[1:]]))

    plain, _ = GaussNewton(steps=4, tolerance=0.0).solve([Curve(rosenbrock)], at(-1.2, 1.0), FREE)
    other, _ = GaussNewton(steps=4, tolerance=0.0).solve([Curve(scaled)], at(-1.2 / units, 1.0), FREE)
    assert float(other.identity[0]) * units == pytest.approx(float(plain.identity[0]), rel=1e-3)
    assert float(other.identity[1]) == pytest.approx(float(plain.identity[1]), rel=1e-3)


def test_at_the_minimum_it_says_so() -> None:
    rows, values = linear()
    term = Curve(lambda x: rows @ x - values)
    solved, _ = GaussNewton(steps=5, damping=0.0).solve([term], at(), FREE)
    again, report = GaussNewton().solve([term], solved, FREE)
    assert report.status in (Status.CONVERGED, Status.NO_DESCENT)
    torch.testing.assert_close(again.identity, solved.identity)


def test_steps_are_bounded() -> None:
    _, report = GaussNewton(steps=2, tolerance=0.0).solve([Curve(rosenbrock)], at(-1.2, 1.0), FREE)
    assert report.steps == 2 and report.status is Status.STEPS_USED
    start = at(-1.2, 1.0)
    same, report = GaussNewton(steps=0).solve([Curve(rosenbrock)], start, FREE)
    assert same_scene(same, start) and report.steps == 0


def test_without_terms_there_is_nothing_to_fit() -> None:
    start = at(1.0)
    same, report = GaussNewton().solve([], start, FREE)
    assert same_scene(same, start) and report.status is Status.NOTHING_TO_FIT


def test_with_nothing_free_there_is_nothing_to_do() -> None:
    start = at(1.0)
    same, report = GaussNewton().solve([Curve(rosenbrock)], start, ())
    assert same_scene(same, start) and report.steps == 0


def test_more_damping_means_a_shorter_step() -> None:
    rows, values = linear()
    system = NormalEquations(rows.T @ rows, rows.T @ values, 0.5 * float(values @ values))
    lengths = []
    for damping in (0.0, 1e-2, 1.0, 100.0):
        step = damped_step(system, damping)
        assert step is not None
        lengths.append(float(step.norm()))
        # Downhill, always.
        assert float(step @ system.gradient) < 0
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < 0.05 * lengths[0]


def test_a_matrix_that_is_not_positive_definite_gives_no_step() -> None:
    indefinite = NormalEquations(torch.diag(torch.tensor([1.0, -1.0])).double(), torch.ones(2).double(), 1.0)
    assert damped_step(indefinite, 1e-3) is None
    poisoned = NormalEquations(torch.full((2, 2), math.nan).double(), torch.ones(2).double(), 1.0)
    assert damped_step(poisoned, 1e-3) is None
