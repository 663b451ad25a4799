from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts import central_difference
from toy import in_double, toy_model, toy_scene

from facefit.fitting.projection import (
    SurfacePoints,
    camera_rotation,
    project_points,
    project_with_jacobian,
    right_jacobian,
    skew,
)
from facefit.fitting.residual import to_double
from facefit.models.camera import Pose, rotation_matrix
from facefit.models.scene import Scene
from facefit.picture import project

GEOMETRY = ("rotation", "translation", "focal", "identity", "expression")
ANGLES = [0.0, 1e-6, 9e-5, 1.1e-4, 1e-3, 0.3, 2.0, 3.1]


def points() -> SurfacePoints:
    marks = toy_model().topology.landmarks
    return SurfacePoints(in_double(toy_model()), marks.triangles, marks.barycentric)


def scenes() -> list[Scene]:
    views = [(0, 0, 0), (40, -10, 5), (-75, 20, -30), (10, 50, 100)]
    return [to_double(toy_scene(k, *view)) for k, view in enumerate(views)]


def test_surface_points_are_the_models_own_landmarks() -> None:
    model = in_double(toy_model())
    for scene in scenes():
        torch.testing.assert_close(
            points().at(scene), model.landmark_points(scene.shape(model)), atol=1e-9, rtol=0
        )
    assert len(points()) == 68


@pytest.mark.parametrize("k", range(4))
def test_pixels_are_the_scenes_own_projection(k: int) -> None:
    scene = scenes()[k]
    expected = project(scene, points().at(scene)).numpy()
    np.testing.assert_allclose(project_points(scene, points()), expected, atol=1e-9)
    np.testing.assert_allclose(project_with_jacobian(scene, points())[0], expected, atol=1e-9)


@pytest.mark.parametrize("k", range(4))
def test_the_jacobian_is_that_of_automatic_differentiation_and_of_differences(k: int) -> None:
    scene, surface = scenes()[k], points()
    _, jacobian = project_with_jacobian(scene, surface)

    def pixels(x: torch.Tensor) -> torch.Tensor:
        moved = scene.with_packed(GEOMETRY, x)
        return project(moved, surface.at(moved)).reshape(-1)

    x = scene.pack(GEOMETRY)
    exact = torch.func.jacfwd(pixels)(x).reshape(68, 2, -1).numpy()
    scale = np.abs(exact).max()
    np.testing.assert_allclose(jacobian, exact, atol=1e-11 * scale)
    # Pixels of 1e2 to 1e-14 of themselves, over a step of 1e-5: 1e-7 of rounding, 1e-10 of curvature.
    np.testing.assert_allclose(
        jacobian.reshape(136, -1), central_difference(pixels, x, 1e-5), atol=1e-9 * scale
    )


def test_the_jacobian_holds_at_no_rotation_and_near_a_half_turn() -> None:
    for angle in (0.0, 1e-9, 1e-5, 3.1):
        rotation = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64) * angle
        scene = scenes()[0].with_pose(Pose(rotation, scenes()[0].pose.translation_mm))
        _, jacobian = project_with_jacobian(scene, points())

        def pixels(w: torch.Tensor, scene: Scene = scene) -> torch.Tensor:
            moved = scene.with_packed(("rotation",), w)
            return project(moved, points().at(moved)).reshape(-1)

        difference = central_difference(pixels, rotation, 1e-5).reshape(68, 2, 3)
        np.testing.assert_allclose(jacobian[..., :3], difference, atol=1e-6)


def test_a_point_behind_the_camera_has_no_pixel() -> None:
    """Its mirror image through the centre of projection would look like a good one to a solver."""
    scene = scenes()[0]
    away = scene.with_pose(Pose(scene.pose.rotation, -scene.pose.translation_mm))
    assert np.isnan(project_points(away, points())).all()
    through = scene.with_pose(Pose(scene.pose.rotation, torch.tensor([0.0, 0.0, 40.0]).double()))
    ahead = through.pose.apply(points().at(through))[:, 2].numpy() > 1
    assert 0 < ahead.sum() < 68
    np.testing.assert_array_equal(np.isfinite(project_points(through, points())).all(1), ahead)


@pytest.mark.parametrize("angle", ANGLES)
def test_camera_rotation_is_the_poses(angle: float) -> None:
    w = angle * np.array([0.36, 0.48, 0.8])
    expected = Pose(torch.tensor(w), torch.zeros(3)).camera_from_model
    np.testing.assert_allclose(camera_rotation(w), expected, atol=1e-12)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_right_jacobian_moves_a_small_turn_into_the_body_frame(angle: float) -> None:
    w = torch.tensor(angle * np.array([0.36, 0.48, 0.8]))
    inverse = rotation_matrix(w).T

    def body_turn(dw: torch.Tensor) -> torch.Tensor:
        turn = inverse @ rotation_matrix(w + dw)
        return torch.stack([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2

    difference = central_difference(body_turn, torch.zeros(3, dtype=torch.float64), 1e-5)
    np.testing.assert_allclose(right_jacobian(w.numpy()), difference, atol=1e-8)


def test_skew_is_the_cross_product() -> None:
    v, u = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose((skew(v) @ u[..., None])[..., 0], np.cross(v, u), atol=1e-15)
