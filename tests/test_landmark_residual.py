from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.fitting.residual import cost, normal_equations
from facefit.fitting.residuals.landmarks import (
    ALIKE,
    INNER,
    LandmarkResidual,
    face_scale_px,
    landmark_covariance,
    landmark_residual,
    landmark_share,
)
from facefit.models.scene import Scene
from facefit.observation import Observation

TRUTH = toy_scene(2)


def observation(landmarks: np.ndarray, covariance: np.ndarray | None = None) -> Observation:
    blank = np.zeros((TRUTH.camera.height, TRUTH.camera.width, 3), np.uint8)
    return Observation(blank, TRUTH.camera, landmarks, covariance)


def term(landmarks: np.ndarray, covariance: np.ndarray | None = None) -> LandmarkResidual:
    found = landmark_residual(observation(landmarks, covariance), toy_model())
    assert found is not None
    return found


def test_exact_landmarks_cost_nothing() -> None:
    assert cost(term(landmarks_of(TRUTH)), TRUTH) == pytest.approx(0, abs=1e-6)


def test_only_the_inner_points_speak() -> None:
    landmarks = landmarks_of(TRUTH)
    assert len(term(landmarks).points) == len(INNER) == 51
    landmarks[:17] += 1e4
    assert cost(term(landmarks), TRUTH) == pytest.approx(0, abs=1e-6)


def test_one_standard_deviation_off_costs_one_half() -> None:
    """Whitened by the covariance: also when it is slanted, and along either of its axes."""
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sigmas = np.array([8.0, 2.0])
    covariance = np.tile(turn @ np.diag(sigmas**2) @ turn.T, (68, 1, 1))
    for axis in (0, 1):
        landmarks = landmarks_of(TRUTH)
        # A quarter of a square pixel is added to every covariance.
        landmarks[30] += turn[:, axis] * np.sqrt(sigmas[axis] ** 2 + 0.25)
        assert cost(term(landmarks, covariance), TRUTH) == pytest.approx(0.5, rel=1e-4)


def test_landmarks_that_err_together_are_worth_fewer() -> None:
    """One number is worth itself; the more there are, the less each, and all together never more than 1 / ALIKE."""
    landmarks, worth = landmarks_of(TRUTH), []
    for known in (0, 1, 5, 51):
        some = landmarks.copy()
        some[17 + known :] = np.nan
        some[:17] = np.nan
        worth.append(2 * known * landmark_share(observation(some), ("identity",)))
    assert worth[0] == 0 and worth[1] == pytest.approx(2 / (1 + ALIKE))
    assert worth == sorted(worth) and worth[3] < 1 / ALIKE
    assert landmark_share(replace(observe(TRUTH), landmarks=None), ("identity",)) == 1
    assert landmark_share(observe(TRUTH), ("expression", "rotation")) == 1


def test_a_share_scales_the_cost_and_leaves_robustness_alone() -> None:
    landmarks = landmarks_of(TRUTH)
    landmarks[30] += 40.0
    every, few = term(landmarks), replace(term(landmarks), share=0.25)
    np.testing.assert_array_equal(few.freeze(TRUTH).weight, every.freeze(TRUTH).weight)
    assert cost(few.freeze(TRUTH), TRUTH) == pytest.approx(0.25 * cost(every.freeze(TRUTH), TRUTH))
    rows = few.freeze(TRUTH)(TRUTH)
    assert 0.5 * float(rows @ rows) == pytest.approx(cost(few.freeze(TRUTH), TRUTH), rel=1e-4)


def test_unknown_points_are_left_out() -> None:
    landmarks = landmarks_of(TRUTH)
    landmarks[20] = np.nan
    landmarks[40, 1] = np.nan
    assert len(term(landmarks).points) == 49
    nothing = np.full((68, 2), np.nan)
    nothing[:17] = 5.0
    assert landmark_residual(observation(nothing), toy_model()) is None
    assert landmark_residual(replace(observe(TRUTH), landmarks=None), toy_model()) is None


@pytest.mark.parametrize("corner", [False, True], ids=["eye corners known", "an eye corner unknown"])
def test_an_infinite_landmark_is_an_unknown_one(corner: bool) -> None:
    unknown, infinite = landmarks_of(TRUTH), landmarks_of(TRUTH)
    unknown[20], infinite[20] = np.nan, np.inf
    if corner:
        unknown[36] = infinite[36] = np.nan
    np.testing.assert_array_equal(term(infinite).whitening, term(unknown).whitening)
    assert len(term(infinite).points) == len(term(unknown).points)


def test_a_covariance_of_zero_can_still_be_whitened() -> None:
    frozen = term(landmarks_of(TRUTH), np.zeros((68, 2, 2))).freeze(TRUTH)
    assert bool(torch.isfinite(normal_equations(frozen, TRUTH, ("rotation",)).matrix).all())


def test_without_covariance_the_default_scales_with_the_face() -> None:
    landmarks = landmarks_of(TRUTH)
    small, large = (
        landmark_covariance(observation(landmarks)),
        landmark_covariance(observation(3 * landmarks)),
    )
    np.testing.assert_allclose(large - 0.25 * np.eye(2), 9 * (small - 0.25 * np.eye(2)))


def test_the_face_has_a_scale_also_when_an_eye_corner_is_unknown() -> None:
    landmarks = landmarks_of(TRUTH)
    whole = face_scale_px(observation(landmarks))
    assert whole == pytest.approx(float(np.linalg.norm(landmarks[36] - landmarks[45])))
    landmarks[36] = np.nan
    assert face_scale_px(observation(landmarks)) == pytest.approx(whole, rel=0.5)
    assert face_scale_px(observation(np.full((68, 2), 7.0))) == 1.0


def test_a_gross_error_is_weighted_down_as_geman_and_mcclure_say() -> None:
    landmarks = landmarks_of(TRUTH)
    plain = term(landmarks)
    sigma = 1 / float(plain.whitening[13, 0, 0])
    for distance in (1.0, 3.0, 10.0, 100.0):
        moved = landmarks.copy()
        moved[30] += [distance * sigma, 0]
        frozen = term(moved).freeze(TRUTH)
        # The cost of the weighted squares is that of the loss r^2 / (1 + r^2 / t^2) times its own weight.
        weight = 1 / (1 + distance**2 / frozen.tolerance**2)
        found = 2 * cost(frozen, TRUTH)
        assert found == pytest.approx((weight * distance) ** 2, rel=0.02)


def test_freezing_again_reweighs_instead_of_weighing_twice() -> None:
    landmarks = landmarks_of(TRUTH)
    landmarks[25] += 40
    once = term(landmarks).freeze(TRUTH)
    assert cost(once.freeze(TRUTH), TRUTH) == pytest.approx(cost(once, TRUTH), rel=1e-12)


def test_unfrozen_every_point_has_full_weight() -> None:
    landmarks = landmarks_of(TRUTH)
    landmarks[25] += 40
    plain = term(landmarks)
    values = plain(TRUTH).double()
    assert cost(plain, TRUTH) == pytest.approx(0.5 * float(values @ values), rel=1e-5)
    assert cost(plain, TRUTH) > 5 * cost(plain.freeze(TRUTH), TRUTH)


def test_the_residual_sees_geometry_only() -> None:
    other: Scene = replace(TRUTH, albedo=TRUTH.albedo + 1)
    frozen = term(landmarks_of(toy_scene(3))).freeze(TRUTH)
    assert cost(frozen, other) == cost(frozen, TRUTH)
