"""What every term owes the solver: normal equations that are its derivative, a cost that is its squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts import (
    SMOOTH_BLOCKS,
    assert_cost_is_half_the_squares,
    assert_equations_are_the_derivative,
    central_difference,
    oracle,
    subsets,
)
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.residual import AbstractResidual, cost, linearised, normal_equations, to_double
from facefit.fitting.residuals.contour import contour_residual
from facefit.fitting.residuals.landmarks import landmark_residual
from facefit.fitting.residuals.photometric import PhotometricResidual
from facefit.fitting.residuals.priors import CoefficientPrior, FocalPrior, LightPrior
from facefit.fitting.surface_samples import surface_samples
from facefit.models.camera import Pose
from facefit.models.scene import Scene
from facefit.observation import Observation

# The photometric kernel keeps its Jacobian in float32 (found: 1e-6); the others read float32 scenes (4e-7).
TOLERANCE = {"photometric": 1e-5}
VIEWS = [(0.0, 0.0, 0.0), (-50.0, 15.0, -20.0), (75.0, 0.0, 60.0)]
NAMES = (
    "landmarks",
    "contour",
    "photometric",
    "identity prior",
    "albedo prior",
    "focal prior",
    "light prior",
)


def disturbed(scene: Scene, seed: int = 7) -> Scene:
    """A scene some pixels and grey levels away, so that no residual is nearly zero."""
    random = torch.Generator().manual_seed(seed)
    x = scene.pack(SMOOTH_BLOCKS)
    sizes = {"rotation": 0.03, "translation": 4.0, "focal": 0.03, "lighting": 0.1}
    step = torch.cat(
        [torch.full((scene.block(n).numel(),), sizes.get(n, 0.3)) for n in scene.layout(SMOOTH_BLOCKS)]
    )
    return scene.with_packed(SMOOTH_BLOCKS, x + step * torch.randn(len(x), generator=random))


def terms(observation: Observation, samples: int = 150) -> dict[str, AbstractResidual]:
    model = toy_model()
    landmarks, contour = landmark_residual(observation, model), contour_residual(observation, model)
    assert landmarks is not None and contour is not None
    (level,) = face_pyramid(observation, [64])
    found: list[AbstractResidual] = [
        landmarks,
        contour,
        PhotometricResidual(model, surface_samples(model, samples), level),
        CoefficientPrior("identity", 1.3),
        CoefficientPrior("expression"),
        CoefficientPrior("albedo"),
        FocalPrior(6.0, 0.3),
        LightPrior(),
    ]
    return {term.name: term for term in found}


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"yaw {view[0]:.0f}")
def case(request: pytest.FixtureRequest) -> tuple[Scene, dict[str, AbstractResidual]]:
    """A scene, and all terms frozen there against the photograph of another scene nearby."""
    truth = toy_scene(5, *request.param)
    scene = disturbed(truth)
    observation = observe(truth, focal_sigma=0.3, jaw=True)
    frozen = {name: term.freeze(scene) for name, term in terms(observation).items()}
    assert all(len(term(scene)) and float(term(scene).abs().max()) > 0.1 for term in frozen.values())
    return scene, frozen


@pytest.mark.parametrize("name", [*NAMES, "expression prior"])
def test_normal_equations_are_the_derivative_for_all_unknowns_together(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    scene, frozen = case
    assert_equations_are_the_derivative(frozen[name], scene, SMOOTH_BLOCKS, TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_normal_equations_of_any_free_blocks_are_a_part_of_the_whole(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    """For every one of the 127 choices: the rows and columns of the freed blocks, the same cost."""
    scene, frozen = case
    whole, layout = normal_equations(frozen[name], scene, SMOOTH_BLOCKS), scene.layout(SMOOTH_BLOCKS)
    for free in subsets(SMOOTH_BLOCKS):
        part = normal_equations(frozen[name], scene, free)
        index = torch.cat([torch.arange(len(whole.gradient))[layout[n]] for n in scene.layout(free)])
        scale = whole.matrix.diagonal().sqrt()[index]
        # Sums over rows may run in another order when the matrix has another shape.
        error = (part.matrix - whole.matrix[index][:, index]).abs() - 1e-5 * torch.outer(scale, scale)
        assert float(error.max()) <= 1e-12, free
        error = (part.gradient - whole.gradient[index]).abs() - 1e-5 * scale * (2 * whole.cost) ** 0.5
        assert float(error.max()) <= 1e-12, free
        assert part.cost == pytest.approx(whole.cost, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_subset_agrees_with_automatic_differentiation(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    scene, frozen = case
    for number, free in enumerate(subsets(SMOOTH_BLOCKS)):
        if number % 21 == 0:
            assert_equations_are_the_derivative(frozen[name], scene, free, TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_is_half_the_sum_of_squares(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    scene, frozen = case
    assert_cost_is_half_the_squares(frozen[name], scene, TOLERANCE.get(name, 1e-6))
    assert_cost_is_half_the_squares(frozen[name], disturbed(scene, 8), TOLERANCE.get(name, 1e-6))


@pytest.mark.parametrize("name", ["landmarks", "contour", "photometric", "focal prior", "light prior"])
def test_the_oracles_gradient_is_a_central_difference(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    """In float64, values of 1 to 100 over a step of 1e-5: 1e-9 of rounding and as much of curvature."""
    scene, frozen = case
    exact = to_double(scene)

    def half_squares(x: torch.Tensor) -> torch.Tensor:
        values = frozen[name](exact.with_packed(SMOOTH_BLOCKS, x))
        return 0.5 * (values @ values)[None]

    equations = oracle(frozen[name], scene, SMOOTH_BLOCKS)
    difference = central_difference(half_squares, exact.pack(SMOOTH_BLOCKS), 1e-5)[0]
    scale = equations.matrix.diagonal().sqrt() * (2 * equations.cost) ** 0.5
    assert bool(((equations.gradient - difference).abs() <= 1e-6 * scale + 1e-7).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_along_the_gradient_lowers_the_cost(
    case: tuple[Scene, dict[str, AbstractResidual]], name: str
) -> None:
    scene, frozen = case
    equations = normal_equations(frozen[name], scene, SMOOTH_BLOCKS)
    direction = -equations.gradient
    curvature = float(direction @ equations.matrix @ direction)
    if curvature == 0:
        pytest.skip("this scene costs nothing in this term")
    step = 0.1 * float(direction @ direction) / curvature * direction
    moved = to_double(scene).with_packed(SMOOTH_BLOCKS, scene.pack(SMOOTH_BLOCKS).double() + step)
    values = frozen[name](moved)
    assert 0.5 * float(values @ values) < equations.cost


def test_the_default_normal_equations_are_those_of_a_linear_problem() -> None:
    class Plane(AbstractResidual):
        name = "plane"
        rows = torch.tensor(np.random.default_rng(0).normal(size=(9, 6)))

        def __call__(self, scene: Scene) -> torch.Tensor:
            return self.rows @ scene.identity - 1

    scene = toy_scene()
    equations = normal_equations(Plane(), scene, ("identity",))
    values = Plane.rows @ scene.identity.double() - 1
    torch.testing.assert_close(equations.matrix, Plane.rows.T @ Plane.rows)
    torch.testing.assert_close(equations.gradient, Plane.rows.T @ values)
    assert equations.cost == pytest.approx(0.5 * float(values @ values))
    twice = equations + equations
    torch.testing.assert_close(twice.matrix, 2 * equations.matrix)
    assert twice.cost == pytest.approx(2 * equations.cost)


def test_terms_that_see_nothing_add_nothing() -> None:
    """A head beside the picture: no visible sample, no silhouette within reach; finite zeros."""
    truth = toy_scene(5)
    aside = truth.with_pose(
        Pose(truth.pose.rotation, truth.pose.translation_mm + torch.tensor([5000.0, 0.0, 0.0]))
    )
    for name in ("contour", "photometric"):
        frozen = terms(observe(truth, jaw=True))[name].freeze(aside)
        equations = normal_equations(frozen, aside, SMOOTH_BLOCKS)
        assert equations.cost == 0 and not equations.matrix.any() and not equations.gradient.any()


def test_to_double_changes_the_type_and_nothing_else() -> None:
    scene = toy_scene()
    exact = to_double(scene)
    for name in SMOOTH_BLOCKS:
        assert exact.block(name).dtype == torch.float64
        torch.testing.assert_close(exact.block(name).float(), scene.block(name), rtol=1e-6, atol=0)


def test_the_photographs_own_scene_costs_next_to_nothing() -> None:
    """Its landmarks are exact, its colours to the resampling: an eighth of a disturbed scene's cost."""
    truth = toy_scene(5)
    observation = observe(truth)
    assert np.allclose(landmarks_of(truth)[17:], observation.landmarks[17:])  # type: ignore[index]
    model = toy_model()
    (level,) = face_pyramid(observation, [128])
    photometric = PhotometricResidual(model, surface_samples(model, 800), level)
    landmarks = landmark_residual(observation, model)
    assert landmarks is not None
    wrong = disturbed(truth)
    for term, ratio in ((landmarks, 1e-6), (photometric, 0.125)):
        there = term.freeze(wrong)
        at_truth, away = (float((there(s).double() ** 2).sum()) for s in (truth, wrong))
        assert at_truth <= ratio * away


def test_a_total_of_terms_is_the_sum_of_their_own_equations(
    case: tuple[Scene, dict[str, AbstractResidual]],
) -> None:
    """But for the photometric matrix of a step, which lacks little of the shape's part and nothing else."""
    scene, found = case
    terms = list(found.values())
    for free in (SMOOTH_BLOCKS, ("albedo", "focal"), ("rotation", "expression", "lighting")):
        total = linearised(scene, terms, free)
        parts = [normal_equations(term, scene, free) for term in terms]
        whole = sum(parts[1:], parts[0])
        layout = scene.layout(free)
        shape = torch.zeros(len(whole.gradient), dtype=torch.bool)
        for name in {"identity", "expression"} & set(layout):
            shape[layout[name]] = True
        scale = whole.matrix.diagonal().sqrt() + 1e-9
        error = (total.matrix - whole.matrix) / torch.outer(scale, scale)
        assert float(error[~shape][:, ~shape].abs().max()) < 1e-5
        missing = whole.matrix.diagonal()[shape].sum() - total.matrix.diagonal()[shape].sum()
        assert -1e-6 <= float(missing) <= 0.05 * float(whole.matrix.diagonal()[shape].sum())
        torch.testing.assert_close(total.gradient, whole.gradient, rtol=1e-9, atol=1e-9)
        assert total.cost == pytest.approx(whole.cost)
        assert total.cost == pytest.approx(sum(cost(term, scene) for term in terms), rel=1e-5)


def test_without_shape_the_photometric_step_is_exact(
    case: tuple[Scene, dict[str, AbstractResidual]],
) -> None:
    scene, term = case[0], case[1]["photometric"]
    for free in (("albedo", "lighting"), ("rotation", "translation", "focal", "albedo", "lighting")):
        whole, total = normal_equations(term, scene, free).matrix, linearised(scene, [term], free).matrix
        scale = whole.diagonal().sqrt()
        assert float(((total - whole).abs() / torch.outer(scale, scale)).max()) < 1e-5
