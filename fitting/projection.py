"""How projected surface points move with pose, focal length and shape: the analytic part the point terms share."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from facefit.kernels.points import point_rows_kernel, project_points_kernel
from facefit.models.camera import FACING
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints

EYE = np.eye(3)
CAMERA_FACING = np.array(FACING)

# A point nearer to the camera than this, or behind it, has no picture.
NEAREST_MM = 1.0


@lru_cache(maxsize=8)
def landmark_points(model: LinearFaceModel, rows: tuple[int, ...]) -> SurfacePoints:
    """These of the model's landmarks, kept for its next fits: gathering them costs more than a step of a fit."""
    landmarks, index = model.topology.landmarks, list(rows)
    return SurfacePoints(model, landmarks.triangles[index], landmarks.barycentric[index])


@lru_cache(maxsize=4)
def shape_of(scene: Scene) -> Float[np.ndarray, "shape"]:
    """Identity and expression, in float64."""
    return np.concatenate([scene.identity.numpy(), scene.expression.numpy()]).astype(np.float64)


def project_points(scene: Scene, points: SurfacePoints) -> Float[np.ndarray, "points 2"]:
    """Pixels of surface points, in float64; NaN where one is not in front of the camera, so that no step goes there."""
    return points_and_pixels(scene, points)[1]


# A scene is looked at up to three times in a row, by each term: as a candidate, to freeze at, to linearise at.
@lru_cache(maxsize=8)
def points_and_pixels(
    scene: Scene, points: SurfacePoints
) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 2"]]:
    """The points in the model frame, and as `project_points`."""
    found, pixels = np.empty((len(points), 3)), np.empty((len(points), 2))
    rotation, _ = rotation_of(scene)
    project_points_kernel(
        points.mean64,
        points.basis64,
        shape_of(scene),
        rotation,
        scene.pose.translation_mm.numpy().astype(np.float64),
        float(scene.camera.focal_px),
        scene.camera.principal_point.numpy().astype(np.float64),
        NEAREST_MM,
        found,
        pixels,
    )
    return found, pixels


@lru_cache(maxsize=4)
def rotation_of(scene: Scene) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """`Pose.camera_from_model` and the right Jacobian of its rotation vector, in float64.

    Every term asks for them at the same scene; without torch, which would cost more than the arithmetic.
    """
    w = scene.pose.rotation.numpy().astype(np.float64)
    return camera_rotation(w), right_jacobian(w)


def camera_rotation(w: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """FACING exp(w) by Rodrigues' formula."""
    angle = math.sqrt(w @ w)
    cross = skew(w[None])[0]
    if angle < 1e-4:
        rotation = EYE + cross + cross @ cross / 2
    else:
        rotation = EYE + math.sin(angle) / angle * cross + (1 - math.cos(angle)) / angle**2 * cross @ cross
    facing: Float[np.ndarray, "3 3"] = CAMERA_FACING @ rotation
    return facing


def project_with_jacobian(
    scene: Scene, points: SurfacePoints
) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "points 2 unknowns"]]:
    """Pixels of surface points and their derivative by rotation, translation, log focal, identity, expression."""
    rows = point_rows(scene, points, np.broadcast_to(np.eye(2), (len(points), 2, 2)))
    return project_points(scene, points), rows.reshape(len(points), 2, -1)


def point_rows(
    scene: Scene, points: SurfacePoints, whitening: Float[np.ndarray, "points k 2"], with_shape: bool = True
) -> Float[np.ndarray, "rows unknowns"]:
    """Whitened derivative of the points' pixels by rotation, translation, log focal, identity, expression."""
    basis = points.basis64 if with_shape else points.basis64[:, :, :0]
    rows = np.empty((*whitening.shape[:2], 7 + basis.shape[2]))
    point_rows_kernel(
        points_and_pixels(scene, points)[0],
        np.ascontiguousarray(basis),
        *rotation_of(scene),
        scene.pose.translation_mm.numpy().astype(np.float64),
        float(scene.camera.focal_px),
        np.ascontiguousarray(whitening),
        rows,
    )
    return rows.reshape(-1, rows.shape[2])


def skew(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """[v]x with [v]x u = v x u."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)


def right_jacobian(w: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """exp(w + dw) = exp(w) exp(J_r(w) dw) to first order (Sola et al. 2018, equation 143)."""
    angle = math.sqrt(w @ w)
    cross = skew(w[None])[0]
    if angle < 1e-4:
        first, second = 0.5, 1 / 6
    else:
        first, second = (1 - math.cos(angle)) / angle**2, (angle - math.sin(angle)) / angle**3
    found: Float[np.ndarray, "3 3"] = EYE - first * cross + second * cross @ cross
    return found
