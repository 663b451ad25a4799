from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contracts import central_difference
from scipy.spatial.transform import Rotation
from toy import turned

from facefit.models.camera import FACING, Camera, Pose, axis_angle, rotation_matrix

# About none, small, moderate and nearly half turns, about any axis.
ANGLES = [
    0.0,
    1e-9,
    1e-6,
    1e-4,
    2e-4,
    1e-3,
    0.1,
    1.0,
    2.5,
    math.pi - 1e-2,
    math.pi - 1e-3,
    math.pi - 1e-6,
    math.pi,
]


def axes() -> np.ndarray:
    random = np.random.default_rng(0).normal(size=(12, 3))
    return np.vstack([np.eye(3), -np.eye(3), random / np.linalg.norm(random, axis=1, keepdims=True)])


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_matrix_is_the_exponential_map(angle: float) -> None:
    for axis in axes():
        expected = Rotation.from_rotvec(angle * axis).as_matrix()
        np.testing.assert_allclose(rotation_matrix(torch.tensor(angle * axis)), expected, atol=1e-14)
        single = rotation_matrix(torch.tensor(angle * axis, dtype=torch.float32))
        np.testing.assert_allclose(single, expected, atol=5e-7)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_inverts_rotation_matrix_up_to_a_half_turn(angle: float) -> None:
    for axis in axes():
        rotation = rotation_matrix(torch.tensor(angle * axis))
        vector = axis_angle(rotation)
        assert float(vector.norm()) <= math.pi + 1e-12
        # As rotations: at pi exactly, v and -v are the same.
        np.testing.assert_allclose(rotation_matrix(vector), rotation, atol=1e-8)
        if angle < math.pi - 1e-4:
            np.testing.assert_allclose(vector, angle * axis, atol=1e-8)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_keeps_single_precision(angle: float) -> None:
    for axis in axes():
        rotation = rotation_matrix(torch.tensor(angle * axis, dtype=torch.float32))
        # sqrt(eps) = 3.5e-4 is what a rotation stored in float32 tells near a half turn, eps elsewhere.
        np.testing.assert_allclose(rotation_matrix(axis_angle(rotation)), rotation, atol=2e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 9e-5, 1.1e-4, 5e-4, 1e-2, 0.7, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_derivative_of_rotation_matrix_is_smooth_through_zero(angle: float, dtype: torch.dtype) -> None:
    vector = torch.tensor(angle * axes()[7])
    derivative = torch.func.jacrev(rotation_matrix)(vector.to(dtype)).double().reshape(9, 3)
    assert bool(torch.isfinite(derivative).all())
    difference = central_difference(lambda v: rotation_matrix(v).reshape(-1), vector, 1e-5)
    torch.testing.assert_close(derivative, difference, atol=1e-8 if dtype == torch.float64 else 2e-5, rtol=0)


def test_a_frontal_pose_shows_the_subjects_left_on_the_right_and_up_above() -> None:
    pose, camera = Pose.frontal(500.0), Camera.from_field_of_view(200, 100, 30)
    nose, left, above = camera.project(
        pose.apply(torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 10.0, 0.0]]))
    )
    torch.testing.assert_close(nose, torch.tensor([100.0, 50.0]))
    assert left[0] > 100 and left[1] == 50 and above[0] == 100 and above[1] < 50
    # The tip of the nose, out along z, is nearer to the camera.
    assert float(pose.apply(torch.tensor([[0.0, 0.0, 20.0]]))[0, 2]) == 480.0


@pytest.mark.parametrize(
    ("angles", "feature", "moves"),
    [
        # Frontal features in the model frame, and where a positive angle takes them in the camera's axes.
        (
            (30.0, 0.0, 0.0),
            (0.0, 0.0, 100.0),
            (+1, 0, None),
        ),  # yaw: the nose to the subject's left, our right
        ((0.0, 30.0, 0.0), (0.0, 0.0, 100.0), (0, -1, None)),  # pitch: the nose up, smaller v
        (
            (0.0, 0.0, 30.0),
            (0.0, 100.0, 0.0),
            (+1, None, 0),
        ),  # roll: the crown towards the subject's left shoulder
    ],
)
def test_yaw_pitch_and_roll_have_the_documented_signs(
    angles: tuple[float, float, float], feature: tuple[float, ...], moves: tuple[int | None, ...]
) -> None:
    pose = Pose(turned(*angles), torch.zeros(3))
    np.testing.assert_allclose(pose.yaw_pitch_roll_deg(), angles, atol=1e-4)
    before = torch.tensor(FACING) @ torch.tensor(feature)
    moved = pose.apply(torch.tensor([feature]))[0] - before
    for change, sign in zip(moved.tolist(), moves, strict=True):
        if sign is not None:
            assert abs(change) < 1e-4 if sign == 0 else sign * change > 10


def test_yaw_pitch_and_roll_come_back_in_any_combination() -> None:
    for yaw, pitch, roll in np.random.default_rng(1).uniform([-170, -80, -170], [170, 80, 170], (50, 3)):
        angles = Pose(turned(yaw, pitch, roll), torch.zeros(3)).yaw_pitch_roll_deg()
        np.testing.assert_allclose(angles, (yaw, pitch, roll), atol=1e-3)


def test_from_camera_from_model_inverts_camera_from_model() -> None:
    for vector in np.random.default_rng(2).uniform(-1.5, 1.5, (50, 3)):
        pose = Pose(torch.tensor(vector), torch.tensor([1.0, 2.0, 600.0], dtype=torch.float64))
        back = Pose.from_camera_from_model(pose.camera_from_model, pose.translation_mm)
        torch.testing.assert_close(back.rotation, pose.rotation, atol=1e-9, rtol=0)
        assert torch.equal(back.translation_mm, pose.translation_mm)


def test_a_pose_is_rigid() -> None:
    points = torch.from_numpy(np.random.default_rng(3).normal(0, 80, (40, 3)))
    pose = Pose(torch.tensor([0.4, -1.2, 0.3], dtype=torch.float64), torch.tensor([5.0, 6.0, 700.0]).double())
    moved = pose.apply(points)
    torch.testing.assert_close((moved[1:] - moved[:1]).norm(dim=1), (points[1:] - points[:1]).norm(dim=1))
    assert float(torch.linalg.det(pose.camera_from_model)) == pytest.approx(1)


def test_projection_by_hand() -> None:
    # 90 degrees over 200 pixels: focal 100 px. A point 1 right, 2 down, 4 ahead lands 25 right, 50 down of
    # the middle (100, 60), the corner between four pixels of a picture of 200 x 120.
    camera = Camera.from_field_of_view(200, 120, 90)
    assert float(camera.focal_px) == pytest.approx(100)
    pixel = camera.project(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 9.0]]))
    torch.testing.assert_close(pixel, torch.tensor([[125.0, 110.0], [100.0, 60.0]]))


def test_the_matrix_and_the_projection_are_the_same_camera() -> None:
    camera = Camera.from_field_of_view(640, 480, 40)
    points = torch.tensor([[30.0, -20.0, 500.0], [1.0, 2.0, 3.0]])
    homogeneous = points @ camera.matrix.T
    torch.testing.assert_close(homogeneous[:, :2] / homogeneous[:, 2:], camera.project(points))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1, 1), (20000, 3)])
@pytest.mark.parametrize("degrees", [0.5, 30.0, 63.0, 150.0])
def test_field_of_view_comes_back_and_spans_the_longer_side(size: tuple[int, int], degrees: float) -> None:
    camera = Camera.from_field_of_view(*size, degrees)
    assert camera.field_of_view_deg == pytest.approx(degrees, rel=1e-5)
    half = 0.5 * max(size) / float(camera.focal_px)
    assert 2 * math.degrees(math.atan(half)) == pytest.approx(degrees, rel=1e-5)


def test_a_camera_that_sees_nothing_is_refused() -> None:
    for size in ((0, 10), (10, -1)):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels"):
            Camera(torch.tensor(1.0), torch.zeros(2), *size)
    for degrees in (0.0, -5.0, 151.0, math.nan):
        with pytest.raises(ValueError, match="between 0.5 and 150"):
            Camera.from_field_of_view(10, 10, degrees)


def test_a_changed_focal_says_where_it_comes_from() -> None:
    camera = Camera.from_field_of_view(100, 100, focal_source="exif")
    assert camera.focal_source == "exif"
    changed = camera.with_focal(torch.tensor(50.0))
    assert (float(changed.focal_px), changed.focal_source, changed.width) == (50.0, "optimised", 100)
