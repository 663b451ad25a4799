"""The fitted camera in the words of other software: OpenCV, OpenGL, PyTorch3D and Blender, and back again.

Each entry is a plain dictionary of numbers that says everything needed to put a point of the model frame
(millimetres, x to the subject's left, y up, z out of the nose) on its pixel of the photograph. Internally a
camera is OpenCV's; the others are derived here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from facefit.models.camera import Camera, FocalSource, Pose

CONVENTIONS = ("opencv", "opengl", "pytorch3d", "blender")

SENSOR_MM = 36.0

# Which way each camera's axes point, in OpenCV's axes (x right, y down, z forward).
_OPENGL = np.diag([1.0, -1.0, -1.0])  # x right, y up, looks along -z; also glTF, NeRF, Blender
_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])  # x left, y up, z forward
# Blender's world has z up; its importers turn y-up files by this (x, y, z) -> (x, -z, y).
_BLENDER_WORLD = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def camera_to(convention: str, pose: Pose, camera: Camera) -> dict[str, Any]:
    """The camera in another convention; `camera_from` inverts it.

    - opencv: X_camera = R X + t (mm), x right, y down, z forward; pixel = K X_camera / z with (0, 0) at the
      photograph's upper left corner, so the centre of the first pixel is (0.5, 0.5).
    - opengl: `view` (4 x 4, mm) to x right, y up, z backward; `projection` to clip space, z in [-1, 1].
    - pytorch3d: row vectors, X_view = X R + T (mm), x left, y up, z forward; focal and principal point in
    NDC,
      for `PerspectiveCameras(..., in_ndc=True, image_size=((height, width),))`.
    - blender: `matrix_world` of a camera object (metres, Blender's z-up world, where its OBJ and glTF
    importers
      put the mesh), lens for a 36 mm sensor with sensor_fit AUTO, and the shifts.
    """
    rotation, translation = _numpy(pose.camera_from_model), _numpy(pose.translation_mm)
    focal, centre = float(camera.focal_px), _numpy(camera.principal_point)
    size = {"width": camera.width, "height": camera.height}
    if convention == "opencv":
        matrix = _numpy(camera.matrix).tolist()
        return {**size, "K": matrix, "R": rotation.tolist(), "t_mm": translation.tolist()}
    if convention == "opengl":
        view = _rigid(_OPENGL @ rotation, _OPENGL @ translation)
        return {
            **size,
            "view": view.tolist(),
            "projection": _opengl_projection(focal, centre, camera).tolist(),
        }
    if convention == "pytorch3d":
        scale = min(camera.width, camera.height) / 2
        offset = centre - np.array([camera.width, camera.height]) / 2
        return {
            **size,
            "R": (_PYTORCH3D @ rotation).T.tolist(),
            "T_mm": (_PYTORCH3D @ translation).tolist(),
            "focal_length_ndc": focal / scale,
            "principal_point_ndc": (-offset / scale).tolist(),
        }
    if convention == "blender":
        longer = max(camera.width, camera.height)
        to_world = np.eye(4)
        to_world[:3, :3] = _BLENDER_WORLD @ rotation.T @ _OPENGL
        to_world[:3, 3] = _BLENDER_WORLD @ (-rotation.T @ translation) / 1000
        return {
            **size,
            "matrix_world": to_world.tolist(),
            "lens_mm": focal * SENSOR_MM / longer,
            "sensor_width_mm": SENSOR_MM,
            "sensor_fit": "AUTO",
            "shift_x": (camera.width / 2 - float(centre[0])) / longer,
            "shift_y": (float(centre[1]) - camera.height / 2) / longer,
        }
    raise ValueError(f"no camera convention {convention!r}; there are {', '.join(CONVENTIONS)}")


def camera_from(
    convention: str, entry: dict[str, Any], focal_source: FocalSource = "given"
) -> tuple[Pose, Camera]:
    """Pose and camera from what `camera_to` wrote."""
    width, height = int(entry["width"]), int(entry["height"])
    half = np.array([width, height]) / 2
    if convention == "opencv":
        matrix = np.array(entry["K"])
        focal, centre = matrix[0, 0], matrix[:2, 2]
        rotation, translation = np.array(entry["R"]), np.array(entry["t_mm"])
    elif convention == "opengl":
        view, projection = np.array(entry["view"]), np.array(entry["projection"])
        rotation, translation = _OPENGL @ view[:3, :3], _OPENGL @ view[:3, 3]
        focal = projection[0, 0] * width / 2
        centre = half * (1 + projection[:2, 2] * [-1, 1])
    elif convention == "pytorch3d":
        rotation, translation = _PYTORCH3D @ np.array(entry["R"]).T, _PYTORCH3D @ np.array(entry["T_mm"])
        scale = min(width, height) / 2
        focal = entry["focal_length_ndc"] * scale
        centre = half - np.array(entry["principal_point_ndc"]) * scale
    elif convention == "blender":
        to_world = np.array(entry["matrix_world"])
        rotation = (_BLENDER_WORLD.T @ to_world[:3, :3] @ _OPENGL).T
        translation = -rotation @ (_BLENDER_WORLD.T @ to_world[:3, 3]) * 1000
        longer = max(width, height)
        focal = entry["lens_mm"] * longer / entry["sensor_width_mm"]
        centre = half + longer * np.array([-entry["shift_x"], entry["shift_y"]])
    else:
        raise ValueError(f"no camera convention {convention!r}; there are {', '.join(CONVENTIONS)}")
    pose = Pose.from_camera_from_model(torch.from_numpy(rotation), torch.from_numpy(translation))
    camera = Camera(
        torch.tensor(float(focal)).double(), torch.from_numpy(centre), width, height, focal_source
    )
    return pose, camera


def _opengl_projection(
    focal: float, centre: Float[np.ndarray, "2"], camera: Camera, near_mm: float = 10.0, far_mm: float = 1e5
) -> Float[np.ndarray, "4 4"]:
    """Clip space from OpenGL camera axes: window x to the right, y up, so the image's rows count from the
    top.
    """
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1] = 2 * focal / camera.width, 2 * focal / camera.height
    matrix[0, 2], matrix[1, 2] = 1 - 2 * centre[0] / camera.width, 2 * centre[1] / camera.height - 1
    matrix[2, 2] = -(far_mm + near_mm) / (far_mm - near_mm)
    matrix[2, 3] = -2 * far_mm * near_mm / (far_mm - near_mm)
    matrix[3, 2] = -1.0
    return matrix


def _rigid(
    rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
