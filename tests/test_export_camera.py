"""Every camera convention puts every point on the same pixel, by that convention's own rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from facefit.camera_conventions import CONVENTIONS, camera_from, camera_to
from facefit.models.camera import Camera, Pose

# A turned head off the middle, a lens off the centre, a picture that is not square: no sign can hide.
POSE = Pose(torch.tensor([0.3, -0.7, 0.2]).double(), torch.tensor([20.0, -35.0, 610.0]).double())
CAMERA = Camera(torch.tensor(900.0).double(), torch.tensor([300.0, 260.0]).double(), 640, 480)
POINTS = np.random.default_rng(0).uniform(-90, 90, (40, 3))


def opencv(entry: dict[str, Any]) -> np.ndarray:
    local = POINTS @ np.array(entry["R"]).T + entry["t_mm"]
    image = local @ np.array(entry["K"]).T
    return image[:, :2] / image[:, 2:]


def opengl(entry: dict[str, Any]) -> np.ndarray:
    """Clip space to a viewport whose y points up, as glViewport defines it."""
    clip = (
        np.array(entry["projection"]) @ np.array(entry["view"]) @ np.vstack([POINTS.T, np.ones(len(POINTS))])
    )
    ndc = clip[:3] / clip[3]
    assert (np.abs(ndc[2]) < 1).all()
    window = (ndc[:2].T + 1) / 2 * [entry["width"], entry["height"]]
    return np.stack([window[:, 0], entry["height"] - window[:, 1]], 1)


def pytorch3d(entry: dict[str, Any]) -> np.ndarray:
    """NDC has +x left and +y up and reaches +-1 on the shorter side; source: pytorch3d.org/docs/cameras."""
    view = POINTS @ np.array(entry["R"]) + entry["T_mm"]
    ndc = entry["focal_length_ndc"] * view[:, :2] / view[:, 2:] + entry["principal_point_ndc"]
    size = np.array([entry["width"], entry["height"]])
    return size / 2 - ndc * size.min() / 2


def blender(entry: dict[str, Any]) -> np.ndarray:
    """The world as Blender's importers turn y-up files, in metres; the camera looks along its own -z."""
    world = np.stack([POINTS[:, 0], -POINTS[:, 2], POINTS[:, 1]], 1) / 1000
    matrix = np.array(entry["matrix_world"])
    local = (world - matrix[:3, 3]) @ matrix[:3, :3]
    longer = max(entry["width"], entry["height"])
    # On the sensor, in units of the longer side, the middle of the frame displaced by the shift.
    frame = local[:, :2] / -local[:, 2:] * entry["lens_mm"] / entry["sensor_width_mm"]
    frame = frame - [entry["shift_x"], entry["shift_y"]]
    return np.array([entry["width"], entry["height"]]) / 2 + frame * longer * [1, -1]


RULES = {"opencv": opencv, "opengl": opengl, "pytorch3d": pytorch3d, "blender": blender}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_point_falls_on_its_pixel(convention: str) -> None:
    expected = CAMERA.project(POSE.apply(torch.from_numpy(POINTS))).numpy()
    pixels = RULES[convention](camera_to(convention, POSE, CAMERA))
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_there_and_back_is_the_same_camera(convention: str) -> None:
    pose, camera = camera_from(convention, camera_to(convention, POSE, CAMERA))
    torch.testing.assert_close(pose.rotation, POSE.rotation, atol=1e-9, rtol=0)
    torch.testing.assert_close(pose.translation_mm, POSE.translation_mm, atol=1e-9, rtol=0)
    torch.testing.assert_close(camera.matrix, CAMERA.matrix, atol=1e-9, rtol=0)
    assert (camera.width, camera.height) == (CAMERA.width, CAMERA.height)


def test_an_unknown_convention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="opencv, opengl, pytorch3d, blender"):
        camera_to("unity", POSE, CAMERA)
    with pytest.raises(ValueError, match="opencv, opengl, pytorch3d, blender"):
        camera_from("unity", camera_to("opencv", POSE, CAMERA))
