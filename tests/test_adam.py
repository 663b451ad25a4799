"""Adam: the same signature and the same minimum as Gauss-Newton, for any loss, whatever the loss does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from contracts import SMOOTH_BLOCKS, same_scene
from jaxtyping import Float
from toy import observe, toy_model, toy_scene

from facefit.fitting.adam import LEARNING_RATES, Adam, Cyclical, Loss, constant, cosine
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.linear import landmark_start
from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.recipe import fit
from facefit.fitting.residual import AbstractResidual, NormalEquations, normal_equations
from facefit.fitting.residuals.landmarks import landmark_residual
from facefit.fitting.residuals.photometric import PhotometricResidual
from facefit.fitting.residuals.priors import CoefficientPrior, LightPrior
from facefit.fitting.result import Status
from facefit.fitting.stages import FAST, STANDARD
from facefit.fitting.surface_samples import surface_samples
from facefit.models.scene import BLOCKS, Scene

Number = Float[torch.Tensor, ""]


def evidence(samples: int = 150) -> tuple[list[AbstractResidual], Scene]:
    model, observation = toy_model(), observe(toy_scene(3))
    (level,) = face_pyramid(observation, [64])
    landmarks = landmark_residual(observation, model)
    assert landmarks is not None
    priors = [CoefficientPrior(block) for block in ("identity", "expression", "albedo")]
    photometric = PhotometricResidual(model, surface_samples(model, samples), level)
    return [landmarks, photometric, *priors, LightPrior()], landmark_start(observation, model)


def to_two(scene: Scene) -> Number:
    return ((scene.identity - 2) ** 2).sum()


def test_it_reaches_the_minimum_that_gauss_newton_finds() -> None:
    landmarks, _, *priors, _ = evidence()[0]
    start, free = toy_scene(4, spread=0.0), ("rotation", "translation", "identity", "expression")
    # Frozen once: the robust weights are part of the function both descend.
    terms = [landmarks.freeze(start), *priors[:2]]
    solver = Adam(200, refreeze=1000)
    _, first = solver.solve([Fixed(term) for term in terms], start, free)
    _, second = GaussNewton(steps=20, tolerance=1e-9).solve([Fixed(term) for term in terms], start, free)
    assert sum(first.cost_after.values()) == pytest.approx(sum(second.cost_after.values()), rel=1e-3)


@dataclass(frozen=True)
class Fixed(AbstractResidual):
    """A term whose discrete choices stay as they are."""

    term: AbstractResidual

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.term.name

    def __call__(self, scene: Scene) -> Float[torch.Tensor, "rows"]:
        return self.term(scene)


@normal_equations.register
def _(residual: Fixed, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    return normal_equations(residual.term, scene, free)


def test_it_descends_a_whole_fit() -> None:
    terms, start = evidence()
    free = tuple(b for b in SMOOTH_BLOCKS if b != "focal")
    # Frozen once: the photometric term is in units of its own error, estimated anew at each freeze.
    scene, report = Adam(60, refreeze=1000).solve(terms, start, free, "colour")
    assert report.name == "colour" and report.status is Status.STEPS_USED
    assert set(report.cost_after) == {term.name for term in terms}
    assert sum(report.cost_after.values()) < 0.5 * sum(report.cost_before.values())
    assert float((scene.camera.focal_px - start.camera.focal_px).abs()) == 0


def test_a_recipe_may_use_it_in_any_stage() -> None:
    stages = (*FAST, replace(STANDARD[-1], name="light", samples=200, photometric_px=64, solver=Adam(20)))
    result = fit(observe(toy_scene(3)), toy_model(), stages=stages)
    assert [stage.name for stage in result.stages] == [stage.name for stage in stages]
    assert result.stages[-1].status is Status.STEPS_USED
    assert result.photometric_rms < result.photometric_rms_start


def test_the_same_input_gives_the_same_bits_with_one_thread_and_with_two() -> None:
    terms, start = evidence()
    threads, scenes = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            scenes.append(Adam(4).solve(terms, start, SMOOTH_BLOCKS)[0])
    finally:
        torch.set_num_threads(threads)
    assert same_scene(scenes[1], scenes[2])
    assert same_scene(scenes[0], scenes[1])
    assert not torch.are_deterministic_algorithms_enabled()


def test_any_function_of_a_scene_is_a_loss() -> None:
    scene, report = Adam(200).solve([to_two], toy_scene(1), ("identity",))
    torch.testing.assert_close(scene.identity, torch.full((6,), 2.0), atol=0.01, rtol=0)
    assert list(report.cost_after) == ["to_two"]


def test_a_residual_costs_half_its_squares_and_a_function_its_value() -> None:
    start = toy_scene(1)
    _, report = Adam(0).solve([CoefficientPrior("albedo"), to_two, to_two], start, ("albedo", "identity"))
    assert list(report.cost_before) == ["albedo prior", "to_two"]
    assert report.cost_before["albedo prior"] == pytest.approx(0.5 * float(start.albedo @ start.albedo))
    assert report.cost_before["to_two"] == pytest.approx(2 * float(to_two(start)))


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_what_is_returned_has_the_loss_that_is_reported(steps: int) -> None:
    """At a rate that overshoots, the best state seen, not the last."""
    seen: list[float] = []

    def loss(scene: Scene) -> Number:
        value = to_two(scene)
        if value.requires_grad:
            seen.append(float(value.detach()))
        return value

    solver = Adam(steps, {"identity": 1.5}, constant)
    scene, report = solver.solve([loss], toy_scene(1), ("identity",))
    assert report.cost_after["loss"] == min(seen) == pytest.approx(float(to_two(scene)), rel=1e-6)
    assert len(seen) == steps + 1


def test_only_the_freed_blocks_move() -> None:
    start = toy_scene(1)
    scene, _ = Adam(3).solve([to_two, CoefficientPrior("albedo")], start, ("albedo",))
    assert same_scene(replace(scene, albedo=start.albedo), start)
    assert not torch.equal(scene.albedo, start.albedo)


def cliff(edge: float) -> Loss:
    """Falls towards 2, but is NaN beyond an edge before it."""

    def loss(scene: Scene) -> Number:
        return torch.where((scene.identity > edge).any(), torch.nan, 1.0) * to_two(scene)

    return loss


def test_a_cliff_of_nan_is_not_crossed() -> None:
    start = replace(toy_scene(1), identity=torch.zeros(6))
    scene, report = Adam(100, {"identity": 0.3}).solve([cliff(1.0)], start, ("identity",))
    assert bool(torch.isfinite(scene.identity).all())
    assert 0.8 < float(scene.identity.max()) <= 1.0
    assert report.status is Status.NOT_FINITE
    assert all(math.isfinite(value) for value in report.cost_after.values())


def test_a_start_that_has_no_finite_loss_is_returned_as_it_is() -> None:
    start = toy_scene(1)
    scene, report = Adam(10).solve([cliff(-100.0)], start, ("identity",))
    assert scene is start and report.status is Status.NOT_FINITE and report.steps == 0


def test_a_gradient_that_is_not_finite_ends_it_without_harm() -> None:
    start = replace(toy_scene(1), identity=torch.zeros(6))
    scene, report = Adam(10).solve([lambda s: (s.identity**2).sum().sqrt()], start, ("identity",))
    assert report.status is Status.NOT_FINITE and same_scene(scene, start)


def test_without_anything_to_descend_it_says_so() -> None:
    start = toy_scene(1)
    weight = torch.nn.Parameter(torch.ones(()))
    network: Loss = lambda _scene: 2 * weight  # noqa: E731
    for losses, free in (
        ([], ("identity",)),
        ([to_two], ("albedo",)),
        ([to_two], ()),
        ([network], ("focal",)),
    ):
        scene, report = Adam(10).solve(losses, start, free)
        assert scene is start and report.status is Status.NOTHING_TO_FIT


def test_at_a_minimum_there_is_no_descent_and_later_convergence() -> None:
    start = replace(toy_scene(1), identity=torch.full((6,), 2.0))
    _, report = Adam(10).solve([to_two], start, ("identity",))
    assert report.status is Status.NO_DESCENT and report.steps == 0
    _, report = Adam(400, patience=20).solve([lambda s: 1 + to_two(s)], toy_scene(1), ("identity",))
    assert report.status is Status.CONVERGED and report.steps < 300


def test_offsets_descend_alike_in_all_directions() -> None:
    """The path of a rotated problem is the rotated path; plain Adam would prefer the axes."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    target = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    target = target * torch.tensor([1.0, 5.0, 0.1])
    start = replace(toy_scene(1), offsets=torch.zeros(5, 3))

    def end(goal: torch.Tensor) -> torch.Tensor:
        def loss(scene: Scene) -> Number:
            assert scene.offsets is not None
            return ((scene.offsets - goal) ** 2).sum()

        offsets = Adam(20).solve([loss], start, ("offsets",))[0].offsets
        assert offsets is not None
        return offsets

    torch.testing.assert_close(end(target @ turn), end(target) @ turn, atol=1e-5, rtol=1e-4)


def test_schedules_end_at_rest() -> None:
    for schedule in (cosine, Cyclical(3)):
        assert schedule(0.0) == 1.0 and schedule(1.0) == pytest.approx(0.0)
    assert Cyclical(4)(0.25) == 1.0 and Cyclical(4)(0.2499) < 1e-3


def test_every_block_has_a_rate_and_a_wrong_name_is_refused() -> None:
    assert set(LEARNING_RATES) == set(BLOCKS)
    with pytest.raises(ValueError, match="learning rate for pose"):
        Adam(10, {"pose": 0.1})
    with pytest.raises(ValueError, match="refreeze = 0"):
        Adam(10, refreeze=0)
