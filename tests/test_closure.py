"""Eyes and lips: the term sees how far apart the edges are, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import SMOOTH_BLOCKS, assert_cost_is_half_the_squares, assert_equations_are_the_derivative
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.fitting.residual import normal_equations
from facefit.fitting.residuals.closure import EYES, LIPS, ClosureResidual, closure_residual
from facefit.fitting.residuals.landmarks import landmark_covariance
from facefit.models.scene import Scene
from facefit.observation import Observation


def closure(observation: Observation) -> ClosureResidual:
    term = closure_residual(observation, toy_model())
    assert term is not None
    return term


def moved(observation: Observation, numbers: list[int], shift: tuple[float, float]) -> Observation:
    assert observation.landmarks is not None
    landmarks = observation.landmarks.copy()
    landmarks[numbers] += shift
    return replace(observation, landmarks=landmarks)


@pytest.mark.parametrize("yaw", [0.0, 12.0, -50.0])
@pytest.mark.parametrize("free", [SMOOTH_BLOCKS, ("expression", "identity", "rotation"), ("focal",)])
def test_normal_equations_are_the_derivative(yaw: float, free: tuple[str, ...]) -> None:
    term = closure(observe(toy_scene(5, yaw)))
    scene = toy_scene(9, yaw + 4)
    for frozen in (term, term.freeze(scene)):
        # The oracle's focal length passes through a float32 logarithm: 1e-7 of pixels that cancel.
        assert_equations_are_the_derivative(frozen, scene, free, 1e-5)
        assert_cost_is_half_the_squares(frozen, scene, 1e-5)


def test_a_shift_of_all_landmarks_does_not_matter() -> None:
    observation, scene = observe(toy_scene(5)), toy_scene(9)
    everywhere = moved(observation, list(range(68)), (7.0, -11.0))
    torch.testing.assert_close(closure(everywhere)(scene), closure(observation)(scene), atol=1e-9, rtol=1e-9)


def test_a_wider_mouth_by_one_sigma_is_a_residual_of_one() -> None:
    scene = toy_scene(5)
    observation = moved(observe(scene), [61], (0.0, 0.0))
    covariance = landmark_covariance(observation)
    sigma = float(np.sqrt(covariance[61, 1, 1] + covariance[67, 1, 1]))
    values = closure(moved(observation, [61], (0.0, sigma)))(scene).reshape(-1, 2)
    row = (EYES + LIPS).index((61, 67))
    torch.testing.assert_close(values[row].abs(), torch.tensor([0.0, 1.0]).to(values), atol=1e-4, rtol=0)
    values[row] = 0
    assert float(values.abs().max()) < 1e-4


def test_together_with_the_landmarks_it_counts_a_difference_as_often_as_its_covariance_says() -> None:
    """Errors with a common share of 0.8: the precision of upper - lower is 1 / (0.2 (C_upper + C_lower))."""
    observation, scene = observe(toy_scene(5)), toy_scene(5)
    assert observation.landmarks is not None
    term = closure_residual(observation, toy_model(), ((37, 41),), shared=0.8)
    assert term is not None
    covariance = landmark_covariance(observation)
    both = np.linalg.inv(covariance[37] + covariance[41])
    ours = term.whitening[0].T @ term.whitening[0]
    np.testing.assert_allclose(both + ours, both / 0.2, rtol=1e-9)
    assert float(term(scene).abs().max()) < 1e-3


def test_it_is_robust_against_one_absurd_pair() -> None:
    scene = toy_scene(5)
    term = closure(moved(observe(scene), [61], (0.0, 300.0))).freeze(scene)
    assert term.weight is not None
    assert float(term.weight.min()) < 0.02 and float(np.sort(term.weight)[1]) > 0.999


def test_without_known_pairs_there_is_no_term() -> None:
    observation = observe(toy_scene(5))
    assert closure_residual(replace(observation, landmarks=None), toy_model()) is None
    nothing = np.full((68, 2), np.nan)
    assert closure_residual(replace(observation, landmarks=nothing), toy_model()) is None
    nothing[[37, 41, 38]] = landmarks_of(toy_scene(5))[[37, 41, 38]]
    term = closure_residual(replace(observation, landmarks=nothing + 0.0), toy_model())
    assert term is not None and len(term.offset) == 1


def test_a_share_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="shared = 1"):
        closure_residual(observe(toy_scene(5)), toy_model(), shared=1.0)


def test_the_light_is_none_of_its_business() -> None:
    scene: Scene = toy_scene(5)
    system = normal_equations(closure(observe(scene)), toy_scene(9), ("albedo", "lighting"))
    assert float(system.matrix.abs().max()) == 0.0
