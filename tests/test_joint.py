"""Several photographs of one person: the arrow is the dense system, copies teach nothing, strangers are noticed."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from contracts import assert_finite, central_difference, same_scene
from toy import observe, toy_model, toy_scene

import facefit as ff
from facefit.fitting.gauss_newton import GaussNewton, damped_step
from facefit.fitting.joint import recipe, same_person
from facefit.fitting.joint.arrow import Arm, ArrowEquations, OfPhotograph
from facefit.fitting.joint.recipe import fit_together, together
from facefit.fitting.joint.result import JointResult
from facefit.fitting.joint.same_person import strangeness
from facefit.fitting.joint.scenes import SHARED, Scenes
from facefit.fitting.recipe import fit, priors, terms
from facefit.fitting.residual import NormalEquations, cost, linearised, to_double
from facefit.fitting.result import FitResult
from facefit.fitting.stages import FAST, SHAPE, STANDARD, Stage
from facefit.models.camera import Pose
from facefit.models.scene import Scene
from facefit.observation import Observation

FREE = ("rotation", "translation", "focal", "identity", "expression", "albedo")


def scene_of(person: int, look: int, yaw: float, **size: int) -> Scene:
    """One person's identity and albedo in a pose, light and expression of their own."""
    who, how = toy_scene(person), toy_scene(look, yaw=yaw, **size)
    return replace(how, identity=who.identity, albedo=who.albedo)


@lru_cache
def seen(person: int, look: int, yaw: float, width: int = 220, height: int = 240) -> Observation:
    return observe(scene_of(person, look, yaw, width=width, height=height), focal_sigma=0.1)


def random_arrow(own: tuple[int, ...], person: int, seed: int = 0) -> ArrowEquations:
    """A positive definite system whose photographs meet only in the person."""
    random = np.random.default_rng(seed)
    arms = {}
    last = NormalEquations(0.3 * torch.eye(person, dtype=torch.float64), torch.zeros(person).double(), 1.0)
    for index, size in enumerate(own):
        rows = torch.from_numpy(random.normal(size=(size + person + 3, size + person)))
        matrix, gradient = rows.T @ rows, torch.from_numpy(random.normal(size=size + person))
        arms[index] = Arm(matrix[:size, :size], matrix[:size, size:], gradient[:size])
        last = last + NormalEquations(matrix[size:, size:], gradient[size:], 0.0)
    return ArrowEquations(own, arms, last)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.5])
def test_the_schur_complement_gives_the_dense_step(damping: float) -> None:
    system = random_arrow((4, 7, 1, 3), 5)
    torch.testing.assert_close(damped_step(system, damping), damped_step(system.dense(), damping))


def test_the_marginal_is_the_inverse_of_the_covariance_block() -> None:
    system = random_arrow((4, 7, 2), 5)
    marginal = system.marginal()
    assert marginal is not None
    wanted = torch.linalg.inv(system.dense().matrix)[-5:, -5:]
    torch.testing.assert_close(torch.linalg.inv(marginal), wanted)


def test_a_photograph_nobody_speaks_of_stays_where_it_is() -> None:
    system = random_arrow((4, 3), 5)
    silent = ArrowEquations((4, 2, 3), {0: system.arms[0], 2: system.arms[1]}, system.person)
    step, wanted = damped_step(silent, 1e-3), damped_step(system, 1e-3)
    assert step is not None and wanted is not None
    assert not step[4:6].any()
    torch.testing.assert_close(torch.cat([step[:4], step[6:]]), wanted)


def test_a_step_is_linear_in_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each photograph is factored by itself, and what is kept of it does not depend on how many there are."""
    sizes: list[int] = []
    factor = torch.linalg.cholesky_ex

    def watched(matrix: torch.Tensor) -> object:
        sizes.append(len(matrix))
        return factor(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", watched)
    for count in (2, 20):
        sizes.clear()
        damped_step(random_arrow((6,) * count, 5), 1e-3)
        assert sizes == [6] * count + [5]


def two_scenes() -> Scenes:
    return Scenes.of([scene_of(1, 2, -15), scene_of(1, 3, 20, width=150, height=260)], [False, True])


def test_packing_holds_the_person_once_and_comes_back() -> None:
    scenes = two_scenes()
    packed = scenes.pack(FREE)
    layout = scenes.layout(FREE)
    model = toy_model()
    own = 6 + model.n_expression
    # The second photograph's focal length is known.
    assert [layout[k].stop - layout[k].start for k in ("0", "1", "shared")] == [
        own + 1, own, model.n_identity + model.n_albedo
    ]  # fmt: skip
    moved = scenes.with_packed(FREE, packed + 0.125)
    torch.testing.assert_close(moved.pack(FREE), packed + 0.125)
    assert moved.each[0].identity is moved.each[1].identity
    assert float(moved.each[1].camera.focal_px) == float(scenes.each[1].camera.focal_px)


def test_the_gradient_is_the_summed_cost_s_derivative() -> None:
    scenes = two_scenes()
    scenes = Scenes(tuple(to_double(scene) for scene in scenes.each), scenes.known_focal)
    stage = Stage("test", FREE)
    model = toy_model()
    residuals = [
        OfPhotograph(i, term).freeze(scenes)
        for i, one in enumerate([seen(4, 5, 0.0), seen(4, 6, 10.0, 150, 260)])
        for term in (*terms(stage, one, model, None), *priors(stage, one))
        if term.name != "focal prior" or i == 0
    ]
    x = scenes.pack(FREE)

    def total(y: torch.Tensor) -> torch.Tensor:
        moved = scenes.with_packed(FREE, y)
        costs = [cost(residual, moved) for residual in residuals]
        return torch.tensor([sum(costs)], dtype=torch.float64)

    # Costs of some 1e4 in float64, cubic terms of order 1: 1e-4 keeps both errors below 1e-6 of the gradient.
    wanted = central_difference(total, x, 1e-4)[0]
    found = linearised(scenes, residuals, FREE).dense().gradient
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3 * float(wanted.abs().max()))


def test_one_photograph_is_the_single_fit() -> None:
    one = seen(1, 2, -15.0)
    joint, single = ff.fit([one], toy_model()), ff.fit(one, toy_model())
    assert isinstance(joint, JointResult) and isinstance(single, FitResult)
    assert same_scene(joint.results[0].scene, single.scene)
    assert not joint.warnings and "1 photograph " in joint.summary()


# Steps enough to arrive: how far each way has come after a few differs.
PATIENT = tuple(replace(stage, solver=GaussNewton(40, 1e-9)) for stage in FAST[:2])


def test_copies_of_a_photograph_teach_nothing_new() -> None:
    one = seen(1, 2, -15.0)
    single = fit(one, toy_model(), stages=PATIENT)
    for result in together([one] * 3, toy_model(), PATIENT):
        for block in ("identity", "expression"):
            torch.testing.assert_close(
                result.scene.block(block), single.scene.block(block), atol=2e-3, rtol=0
            )


def test_independent_copies_are_evidence_as_often_as_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """N copies against one prior: the single fit with the prior of the person's blocks an N-th."""
    monkeypatch.setattr(recipe, "COMMON", 0.0)
    one, model = seen(1, 2, -15.0), toy_model()
    many = together([one] * 4, model, PATIENT)[0].scene
    stage = PATIENT[-1]
    known = [
        replace(term, weight=0.5) if getattr(term, "block", None) in SHARED else term
        for term in (*terms(stage, one, model, None), *priors(stage, one))
    ]
    wanted, _ = GaussNewton(40, 1e-9).solve(known, many, SHAPE, "single")
    torch.testing.assert_close(many.identity, wanted.identity, atol=2e-3, rtol=0)
    single = fit(one, model, stages=PATIENT).scene
    assert float(many.identity.norm()) > float(single.identity.norm())


@pytest.mark.slow
def test_views_together_know_a_person_better_than_each_alone() -> None:
    errors = []
    for person in range(3):
        views = [seen(person, 7, -25.0), seen(person, 8, 0.0, 180, 200), seen(person, 9, 25.0)]
        truth = toy_scene(person).identity
        single = [float((fit(one, toy_model()).scene.identity - truth).norm()) for one in views]
        joint = together(views, toy_model())
        errors.append((float((joint[0].scene.identity - truth).norm()), np.mean(single)))
        assert joint[0].scene.identity is joint[2].scene.identity
        for result in joint:
            assert_finite(result.scene)
    mine, theirs = np.mean(errors, axis=0)
    assert mine < 0.9 * theirs


def test_each_photograph_keeps_what_is_its_own() -> None:
    views = [seen(1, 7, -20.0), seen(1, 8, 15.0, 180, 200)]
    joint = fit_together(views, toy_model())
    for result, look, yaw in zip(joint.results, (7, 8), (-20.0, 15.0), strict=True):
        truth = toy_scene(look, yaw=yaw)
        found = Pose(result.scene.pose.rotation, result.scene.pose.translation_mm).yaw_pitch_roll_deg()[0]
        assert abs(found - yaw) < 4
        near = float((result.scene.expression - truth.expression).norm())
        assert near < float(truth.expression.norm())
        assert result.scene.camera.width == result.observation.width


def test_the_person_s_doubt_shrinks_with_views() -> None:
    views = [seen(1, 7, -25.0), seen(1, 8, 25.0)]
    joint = fit_together(views, toy_model())
    assert joint.posterior is not None
    together_sigma = joint.posterior.sigma("identity")
    for result in joint.results:
        single = fit(result.observation, toy_model()).posterior
        assert single is not None
        # COMMON halves what two views are worth, and never below what the better one knows.
        assert float(together_sigma.mean()) < 1.02 * float(single.sigma("identity").mean())
    sigma = joint.vertex_sigma_mm()
    assert sigma is not None and np.isfinite(sigma).all()


def test_somebody_else_is_noticed() -> None:
    def fits(*people: int) -> list[FitResult]:
        return [fit(seen(who, 10 + k, 10.0 * k - 10), toy_model()) for k, who in enumerate(people)]

    same, mixed = strangeness(fits(1, 1, 1)), strangeness(fits(1, 1, 5))
    assert mixed.argmax() == 2
    assert mixed[2] > 2 * same.max()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((0.3, 0.7, 0.6), None),
        ((0.3, 0.4, 1.05), r"^photograph 3 may not .* by 3\.0 times"),
        ((0.3, 0.4, 0.9, 0.2, 1.4), r"^photograph 3 and photograph 5 may not .* by 4\.0 times"),
        ((0.4, 0.9, 1.0), "^The photographs may not show one person"),
        ((0.8, 0.8), "^The photographs may not show one person"),
        ((np.nan, 0.3, 1.1), "^photograph 3 may not"),
    ],
)
def test_strangers_are_named_in_the_warnings(
    found: tuple[float, ...], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = [fit(seen(1, 10, 0.0), toy_model(), stages=FAST)] * len(found)
    monkeypatch.setattr(same_person, "strangeness", lambda results: np.array(found))
    _, warnings = same_person.strangers(fits)
    assert len(warnings) == (said is not None)
    if said is not None:
        assert re.search(said, warnings[0])


def test_no_photograph_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ff.fit([], toy_model())


def test_a_start_belongs_to_one_photograph() -> None:
    with pytest.raises(ValueError, match="start"):
        ff.fit([seen(1, 7, -20.0)], toy_model(), toy_scene())  # type: ignore[call-overload]


def test_a_photograph_without_landmarks_among_others_spoils_nothing() -> None:
    blind = replace(seen(1, 8, 15.0), landmarks=None)
    joint = together([seen(1, 7, -20.0), blind], toy_model(), STANDARD)
    for result in joint:
        assert_finite(result.scene)
