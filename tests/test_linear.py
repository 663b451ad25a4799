from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import assert_finite
from toy import landmarks_of, toy_model, toy_scene, turned

from facefit.fitting.linear import landmark_start, with_ambient_level
from facefit.fitting.residuals.landmarks import INNER
from facefit.models.camera import Camera, Pose
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import render

WIDTH, HEIGHT = 640, 480


def posed(
    yaw: float, x: float = 0.0, y: float = 0.0, z: float = 600.0, pitch: float = -10, roll: float = 8
) -> Scene:
    """The mean face in a photograph of 30 degrees."""
    scene = Scene.neutral(toy_model(), Camera.from_field_of_view(WIDTH, HEIGHT))
    return scene.with_pose(Pose(turned(yaw, pitch, roll), torch.tensor([x, y, z])))


def seen(scene: Scene, landmarks: np.ndarray | None = None) -> Observation:
    blank = np.zeros((scene.camera.height, scene.camera.width, 3), np.uint8)
    return Observation(blank, scene.camera, landmarks_of(scene) if landmarks is None else landmarks)


def turn_between(a: Scene, b: Scene) -> float:
    """Degrees between two heads."""
    relative = a.pose.camera_from_model.double() @ b.pose.camera_from_model.double().T
    return float(np.degrees(np.arccos(np.clip((float(relative.trace()) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("where", [(0, 0, 600), (120, 60, 600), (-150, -90, 600), (0, 0, 2500)])
@pytest.mark.parametrize("yaw", [0, 20, -40, 60, -60])
def test_the_mean_faces_pose_comes_back(yaw: float, where: tuple[float, float, float]) -> None:
    """Within what perspective adds to scaled orthography: 3.5 degrees, 5 % of the distance."""
    truth = posed(yaw, *where)
    start = landmark_start(seen(truth), toy_model())
    assert turn_between(start, truth) < 3.5
    assert float((start.pose.translation_mm - truth.pose.translation_mm).norm()) < 0.05 * where[2]
    eyes_px = 90 * float(truth.camera.focal_px) / where[2]
    error = np.linalg.norm(landmarks_of(start) - landmarks_of(truth), axis=1)[INNER]
    assert error.mean() < 0.04 * eyes_px


@pytest.mark.parametrize("roll", [90, 180, -120])
def test_a_face_lying_down_or_upside_down_is_found(roll: float) -> None:
    truth = posed(15, roll=roll)
    assert turn_between(landmark_start(seen(truth), toy_model()), truth) < 3.5


def test_the_further_away_the_more_exact() -> None:
    errors = [
        turn_between(landmark_start(seen(s), toy_model()), s)
        for s in (posed(30, z=z) for z in (400.0, 1600, 6400))
    ]
    assert errors[0] >= errors[1] >= errors[2] and errors[2] < 0.3


def test_the_start_is_the_mean_face_in_the_given_camera() -> None:
    start = landmark_start(seen(posed(10)), toy_model())
    assert not start.identity.any() and not start.expression.any() and not start.albedo.any()
    assert start.camera is not None and torch.equal(start.camera.focal_px, posed(0).camera.focal_px)


def test_unknown_landmarks_are_left_out() -> None:
    truth = posed(20)
    landmarks = landmarks_of(truth)
    landmarks[:17] = np.nan
    landmarks[48:60, 0] = np.nan
    assert turn_between(landmark_start(seen(truth, landmarks), toy_model()), truth) < 4.0


@pytest.mark.parametrize("known", [0, 1, 3, 5])
def test_too_few_landmarks_give_a_frontal_face_in_the_middle(known: int) -> None:
    truth = posed(20)
    landmarks = landmarks_of(truth)
    landmarks[17 + known :] = np.nan
    frontal_in_the_middle(landmark_start(seen(truth, landmarks), toy_model()))


def test_no_landmarks_give_a_frontal_face_in_the_middle() -> None:
    frontal_in_the_middle(landmark_start(replace(seen(posed(0)), landmarks=None), toy_model()))


def frontal_in_the_middle(start: Scene) -> None:
    assert not start.pose.rotation.any() and not start.pose.translation_mm[:2].any()
    covered = render(start, toy_model()).covered
    # The eyes a quarter of the shorter side apart: the whole head in the picture, not a speck.
    assert 0.1 < float(covered.float().mean()) < 0.6
    assert not covered[0].any() and not covered[:, 0].any()


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((68, 2), 100.0),
        np.stack([np.linspace(0, 600, 68), np.full(68, 200.0)], 1),
        np.random.default_rng(0).uniform(0, 600, (68, 2)),
        np.random.default_rng(1).uniform(-1e6, 1e6, (68, 2)),
        landmarks_of(toy_scene())[:, ::-1] * 1e-3,
    ],
    ids=["one point", "a line", "noise", "huge noise", "minute"],
)
def test_landmarks_of_no_face_give_a_finite_start_before_the_camera(landmarks: np.ndarray) -> None:
    start = landmark_start(seen(posed(0), landmarks.copy()), toy_model())
    assert_finite(start)
    assert float(start.pose.translation_mm[2]) > 0


def test_noise_wider_than_any_face_starts_before_the_camera() -> None:
    """A face that filled far more than the picture would enclose the camera; such landmarks are no face."""
    for seed in range(8):
        for spread_px in (1e3, 1e5, 1e8):
            landmarks = np.random.default_rng(seed).normal(0, spread_px, (68, 2))
            start = landmark_start(seen(posed(0), landmarks), toy_model())
            assert_finite(start)
            assert float(start.pose.apply(toy_model().mean)[:, 2].min()) > 0


def test_mirrored_landmarks_do_not_turn_the_face_inside_out() -> None:
    truth = posed(0, pitch=0, roll=0)
    landmarks = landmarks_of(truth)
    landmarks[:, 0] = WIDTH - landmarks[:, 0]
    start = landmark_start(seen(truth, landmarks), toy_model())
    assert float(torch.linalg.det(start.pose.camera_from_model)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("level", [0.1, 1.0, 2.0])
def test_an_ambient_level_is_the_irradiance_everywhere(level: float) -> None:
    lit = with_ambient_level(toy_scene(), level)
    normals = torch.nn.functional.normalize(
        torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    torch.testing.assert_close(lit.lighting.irradiance(normals), torch.full((9, 3), level))
