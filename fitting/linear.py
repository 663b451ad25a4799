"""A start from landmarks alone: pose in closed form, the rest by a few steps of least squares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from facefit.fitting.residuals.landmarks import INNER
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

# Without landmarks the face is taken to be in the middle, its outer eye corners a quarter of the picture apart.
GUESSED_EYE_SHARE = 0.25
# No camera is nearer to the middle of a face than a face is deep.
NEAREST_HEAD_MM = 150.0


def landmark_start(observation: Observation, model: LinearFaceModel) -> Scene:
    """The mean face posed by POSIT on the inner landmarks; a frontal guess without landmarks.

    Source: DeMenthon and Davis, "Model-based object pose in 25 lines of code", IJCV 1995: the two rows of the best
    affine camera are made orthonormal, their mean length is focal / depth.
    """
    camera = observation.camera
    scene = Scene.neutral(model, camera)
    if observation.landmarks is None:
        return scene.with_pose(_middle(camera))
    known = np.isfinite(observation.landmarks).all(1)
    landmarks = model.topology.landmarks
    chosen = [i for i, n in enumerate(landmarks.numbers) if n in INNER and known[n]]
    if len(chosen) < 6:
        return scene.with_pose(_middle(camera))
    points = model.landmark_points(model.mean).double().numpy()[chosen]
    pixels = observation.landmarks[landmarks.numbers[chosen]].astype(np.float64)
    focal = float(camera.focal_px)
    rays = np.column_stack([(pixels - camera.principal_point.double().numpy()) / focal, np.ones(len(pixels))])
    # As if the camera looked straight at the face: away from the middle of a picture a face is stretched.
    turn = _turn_onto(rays.mean(0))
    straight = rays @ turn
    posed = posit(points, straight[:, :2] / straight[:, 2:])
    if posed is None:
        return scene.with_pose(_middle(camera))
    rotation, translation = turn @ posed[0], turn @ posed[1]
    if float(rotation[2] @ points.mean(0) + translation[2]) < NEAREST_HEAD_MM:
        # Beside the camera rather than before it: no face is seen so.
        return scene.with_pose(_middle(camera))
    pose = Pose.from_camera_from_model(torch.from_numpy(rotation), torch.from_numpy(translation))
    return scene.with_pose(Pose(pose.rotation.float(), pose.translation_mm.float()))


def posit(
    points: Float[np.ndarray, "n 3"], seen: Float[np.ndarray, "n 2"], rounds: int = 4
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]] | None:
    """Rotation and translation (mm) of points from their images at focal length 1; None where they are no face.

    Rounds of scaled orthography; after each, an image point is scaled by its depth over that of the middle,
    which makes the next exact where the depths are.
    """
    middle, image = points.mean(0), seen
    rotation, translation = np.eye(3), np.zeros(3)
    for _ in range(rounds):
        centre = image.mean(0)
        affine, *_ = np.linalg.lstsq(points - middle, image - centre, rcond=None)
        u, singular, vt = np.linalg.svd(affine.T, full_matrices=False)
        if not np.isfinite(singular).all() or not 1e-7 < singular.mean() or singular[-1] < 1e-6 * singular[0]:
            return None
        rows = u @ vt
        rotation = np.stack([rows[0], rows[1], np.cross(rows[0], rows[1])])
        distance = max(1 / singular.mean(), NEAREST_HEAD_MM)
        translation = distance * np.append(centre, 1.0) - rotation @ middle
        image = seen * (1 + (points - middle) @ rotation[2] / distance)[:, None]
    return rotation, translation


def _turn_onto(ray: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes the optical axis onto a line of sight."""
    target = ray / np.linalg.norm(ray)
    axis = np.cross([0.0, 0.0, 1.0], target)
    cosine = float(target[2])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: np.ndarray = np.eye(3) + cross + cross @ cross / (1 + cosine)
    return turn


def _middle(camera: Camera) -> Pose:
    eyes_px = GUESSED_EYE_SHARE * min(camera.width, camera.height)
    distance = 90.0 * float(camera.focal_px) / eyes_px
    return Pose.frontal(max(distance, NEAREST_HEAD_MM) if math.isfinite(distance) else 600.0)


def with_ambient_level(scene: Scene, level: float) -> Scene:
    """The scene under white ambient light of a given level."""
    coefficients = torch.zeros_like(scene.lighting.coefficients)
    coefficients[0] = level / (0.5 / math.sqrt(math.pi))
    return replace(scene, lighting=replace(scene.lighting, coefficients=coefficients))
