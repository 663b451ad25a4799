"""The whole fit on evidence that is missing, wrong or absurd: a sentence or a finite result."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import assert_finite, same_scene
from toy import landmarks_of, observe, photograph, toy_model, toy_scene, turned

from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.recipe import fit
from facefit.fitting.result import FitResult, Status
from facefit.fitting.stages import FAST, LIGHT, STANDARD, Stage
from facefit.models.camera import Camera, Pose
from facefit.models.scene import Scene
from facefit.observation import Observation

TRUTH = toy_scene(6, yaw=8)


def assert_sane(result: FitResult) -> None:
    """Finite everywhere, in front of the camera, of human size, and with a sentence for an ending."""
    assert_finite(result.scene)
    vertices = result.scene.shape(toy_model())
    assert bool(torch.isfinite(vertices).all()) and float(vertices.abs().max()) < 400
    assert float(result.scene.camera.focal_px) > 0
    assert result.status.value.endswith(".")
    assert result.summary()
    for stage in result.stages:
        assert stage.seconds >= 0 and set(stage.cost_after) == set(stage.cost_before)


def with_landmarks(landmarks: np.ndarray | None) -> Observation:
    return replace(observe(TRUTH), landmarks=landmarks, focal_sigma=0.3)


@pytest.fixture(scope="module")
def good() -> FitResult:
    return fit(observe(TRUTH, focal_sigma=0.3, jaw=True), toy_model())


def test_a_good_photograph_is_fitted(good: FitResult) -> None:
    assert_sane(good)
    assert good.status.ok and all(stage.status.ok for stage in good.stages)
    assert [stage.name for stage in good.stages] == [stage.name for stage in STANDARD]
    assert good.landmark_error < 0.03
    assert good.photometric_rms < 0.5 * good.photometric_rms_start
    assert good.pixels_used > 0.7
    assert good.landmarks_fitted is not None and good.landmarks_fitted.shape == (68, 2)


def test_no_stage_raises_the_cost_of_its_terms(good: FitResult) -> None:
    for stage in good.stages:
        assert sum(stage.cost_after.values()) <= sum(stage.cost_before.values()) * 1.02, stage.name


def test_the_same_photograph_gives_the_same_bits(good: FitResult) -> None:
    again = fit(observe(TRUTH, focal_sigma=0.3, jaw=True), toy_model())
    assert same_scene(again.scene, good.scene)
    assert again.photometric_rms == good.photometric_rms and again.landmark_error == good.landmark_error


def test_another_fit_in_between_changes_nothing(good: FitResult) -> None:
    """What is kept between fits (samples, silhouettes, geometry) belongs to no photograph."""
    fit(observe(toy_scene(9, yaw=-20), focal_sigma=0.3, jaw=True), toy_model())
    assert same_scene(fit(observe(TRUTH, focal_sigma=0.3, jaw=True), toy_model()).scene, good.scene)


def test_progress_is_told_before_each_stage() -> None:
    told: list[tuple[str, float]] = []
    fit(observe(TRUTH), toy_model(), stages=FAST, progress=lambda name, share: told.append((name, share)))
    assert [name for name, _ in told] == [stage.name for stage in FAST]
    shares = [share for _, share in told]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] < 1


def test_a_known_focal_length_stays() -> None:
    result = fit(observe(TRUTH, focal_sigma=0.0), toy_model())
    assert torch.equal(result.scene.camera.focal_px, TRUTH.camera.focal_px)
    assert result.scene.camera.focal_source == "default"
    free = fit(observe(TRUTH, focal_sigma=0.3), toy_model(), stages=FAST)
    assert free.scene.camera.focal_source == "optimised"


def test_a_given_start_is_where_the_fit_begins() -> None:
    result = fit(observe(TRUTH), toy_model(), start=TRUTH)
    for stage in result.stages:
        assert stage.status.ok
    assert float((result.scene.shape(toy_model()) - TRUTH.shape(toy_model())).norm(dim=1).median()) < 1.5
    assert same_scene(TRUTH, toy_scene(6, yaw=8))


def test_a_given_start_keeps_its_light_until_a_step_is_taken() -> None:
    look = Stage("look", LIGHT, False, photometric_px=64, samples=300, solver=GaussNewton(steps=0))
    assert same_scene(fit(observe(TRUTH), toy_model(), start=TRUTH, stages=[look]).scene, TRUTH)
    # Without a start: white, from everywhere, as bright as the face is in front.
    guessed = fit(observe(TRUTH), toy_model(), stages=[look]).scene.lighting
    front = torch.tensor([[0.0, 0.0, 1.0]])
    assert not guessed.coefficients[1:].any()
    level = float(TRUTH.lighting.irradiance(front).mean())
    assert float(guessed.irradiance(front).mean()) == pytest.approx(level, rel=0.3)


def test_without_landmarks_the_photograph_is_fitted_from_the_middle() -> None:
    result = fit(with_landmarks(None), toy_model())
    assert_sane(result)
    assert math.isnan(result.landmark_error)


def test_without_landmarks_the_fast_recipe_says_there_is_nothing_to_fit() -> None:
    result = fit(with_landmarks(None), toy_model(), stages=FAST)
    assert_sane(result)
    assert result.status is Status.NOTHING_TO_FIT


def test_landmarks_that_are_all_unknown_are_no_landmarks() -> None:
    result = fit(with_landmarks(np.full((68, 2), np.nan)), toy_model())
    assert_sane(result)
    assert math.isnan(result.landmark_error)


@pytest.mark.parametrize("kept", [[30], [36, 45], [30, 36, 45, 48, 54], list(range(17))])
def test_a_few_landmarks_are_fitted_as_far_as_they_go(kept: list[int]) -> None:
    landmarks = np.full((68, 2), np.nan)
    landmarks[kept] = landmarks_of(TRUTH)[kept]
    assert_sane(fit(with_landmarks(landmarks), toy_model()))


@pytest.mark.parametrize("shift", [(2000.0, 0.0), (-500.0, -500.0), (1e6, 1e6)])
def test_landmarks_outside_the_photograph_leave_a_finite_face(shift: tuple[float, float]) -> None:
    assert_sane(fit(with_landmarks(landmarks_of(TRUTH) + shift), toy_model()))


@pytest.mark.parametrize("seed", range(3))
def test_contradictory_landmarks_leave_a_finite_face(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = (TRUTH.camera.width, TRUTH.camera.height)
    assert_sane(fit(with_landmarks(random.uniform((0, 0), size, (68, 2))), toy_model()))


def test_whatever_the_landmarks_the_face_is_before_the_camera_or_the_status_says_so() -> None:
    for seed in range(3):
        for spread_px in (60.0, 300.0, 1e4, 1e7):
            landmarks = np.random.default_rng(seed).normal(100, spread_px, (68, 2))
            result = fit(with_landmarks(landmarks), toy_model())
            assert_sane(result)
            nearest = result.scene.pose.apply(result.scene.shape(toy_model()))[:, 2].min()
            assert float(nearest) > 0 or not result.status.ok


@pytest.mark.parametrize("landmarks", ["one point", "a line", "mirrored", "upside down"])
def test_landmarks_of_no_face_leave_a_finite_face(landmarks: str) -> None:
    points = landmarks_of(TRUTH)
    if landmarks == "one point":
        points[:] = (110, 120)
    elif landmarks == "a line":
        points[:, 1] = 120
    elif landmarks == "mirrored":
        points[:, 0] = TRUTH.camera.width - points[:, 0]
    else:
        points[:, 1] = TRUTH.camera.height - points[:, 1]
    assert_sane(fit(with_landmarks(points), toy_model()))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_photograph_leaves_a_finite_face(level: int) -> None:
    image = np.full_like(photograph(TRUTH), level)
    result = fit(replace(observe(TRUTH), image=image), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.06


def test_noise_for_a_photograph_leaves_a_finite_face() -> None:
    image = np.random.default_rng(0).integers(0, 256, photograph(TRUTH).shape).astype(np.uint8)
    result = fit(replace(observe(TRUTH), image=image), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.06


def test_a_photograph_masked_out_is_fitted_to_its_landmarks() -> None:
    observation = observe(TRUTH)
    result = fit(replace(observation, mask=np.zeros(observation.image.shape[:2], dtype=bool)), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.03


@pytest.mark.parametrize("side", [16, 24, 40])
def test_a_face_of_a_few_pixels_is_fitted(side: int) -> None:
    small = toy_scene(6, yaw=8, width=side, height=side)
    result = fit(observe(small, focal_sigma=0.3, jaw=True), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.1


def test_a_small_face_in_a_large_photograph_is_fitted() -> None:
    camera = Camera.from_field_of_view(900, 700)
    far = replace(TRUTH, camera=camera).with_pose(
        Pose(TRUTH.pose.rotation, torch.tensor([-500.0, 300.0, 3000.0]))
    )
    result = fit(observe(far, focal_sigma=0.3, jaw=True), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.05 and result.status.ok


def test_a_face_cut_off_by_the_border_is_fitted() -> None:
    cut = TRUTH.with_pose(
        Pose(TRUTH.pose.rotation, TRUTH.pose.translation_mm + torch.tensor([90.0, 0.0, 0.0]))
    )
    result = fit(observe(cut, focal_sigma=0.3), toy_model())
    assert_sane(result)
    assert result.landmark_error < 0.05


@pytest.mark.parametrize("angles", [(85.0, 0.0, 0.0), (0.0, 60.0, 0.0), (-30.0, 0.0, 170.0)])
def test_extreme_poses_are_fitted(angles: tuple[float, float, float]) -> None:
    turned_away = TRUTH.with_pose(Pose(turned(*angles), TRUTH.pose.translation_mm))
    result = fit(observe(turned_away), toy_model())
    assert_sane(result)
    assert result.status.ok


def test_a_model_without_expressions_or_albedo_modes_is_fitted() -> None:
    plain = replace(toy_model().truncated(3, 0), albedo_basis=toy_model().albedo_basis[:0])
    result = fit(observe(TRUTH), plain)
    assert_finite(result.scene)
    assert result.status.ok and result.scene.albedo.shape == (0,)


def test_a_start_behind_the_camera_ends_in_a_finite_scene() -> None:
    behind = TRUTH.with_pose(Pose(TRUTH.pose.rotation, -TRUTH.pose.translation_mm))
    assert_finite(fit(observe(TRUTH), toy_model(), start=behind).scene)


def test_a_start_that_is_not_finite_is_not_passed_off_as_a_result() -> None:
    lost = TRUTH.with_pose(Pose(torch.full((3,), math.nan), TRUTH.pose.translation_mm))
    try:
        result = fit(observe(TRUTH), toy_model(), start=lost)
    except ValueError as error:
        assert "finite" in str(error)
    else:
        assert not result.status.ok


def test_the_photograph_and_the_model_are_not_written_to() -> None:
    observation, model = observe(TRUTH, jaw=True), toy_model()
    before = observation.image.copy(), model.mean.clone(), landmarks_of(TRUTH)
    fit(observation, model)
    assert np.array_equal(observation.image, before[0]) and torch.equal(model.mean, before[1])
    assert observation.landmarks is not None and np.array_equal(observation.landmarks, before[2])


def test_a_fit_takes_no_time_worth_mentioning(good: FitResult) -> None:
    """A guard against a lost cache or a compilation per call: a hundred times what it takes."""
    began = time.process_time()
    fit(observe(TRUTH, focal_sigma=0.3, jaw=True), toy_model())
    assert time.process_time() - began < 10


def test_the_neutral_scene_is_a_valid_start() -> None:
    start = Scene.neutral(toy_model(), TRUTH.camera)
    assert_sane(fit(observe(TRUTH), toy_model(), start=start))
