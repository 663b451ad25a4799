"""How projected surface points move with pose, focal length and shape: the analytic part the point terms share."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float

from facefit.models.camera import FACING
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

EYE = np.eye(3)
CAMERA_FACING = np.array(FACING)

# A point nearer to the camera than this, or behind it, has no picture.
NEAREST_MM = 1.0


class SurfacePoints:
    """Points fixed on a model's surface (triangle and barycentric weights), with their rows of the shape basis."""

    def __init__(
        self,
        model: LinearFaceModel,
        triangles: Float[np.ndarray, "points"],
        barycentric: Float[np.ndarray, "points 3"],
    ) -> None:
        corner = model.triangles[torch.as_tensor(np.asarray(triangles), dtype=torch.int64)]
        weights = torch.as_tensor(np.asarray(barycentric)).to(model.mean)
        self.mean = (model.mean[corner] * weights[..., None]).sum(1)
        self.basis = torch.cat(
            [
                (basis[:, corner] * weights[None, ..., None]).sum(2)
                for basis in (model.identity_basis, model.expression_basis)
            ]
        ).permute(1, 2, 0)
        # The same in float64 arrays, for the analytic path.
        self.mean64 = self.mean.double().numpy()
        self.basis64 = np.ascontiguousarray(self.basis.double().numpy())

    def __len__(self) -> int:
        return len(self.mean)

    def at(self, scene: Scene) -> Float[torch.Tensor, "points 3"]:
        """The points in the model frame."""
        coefficients = torch.cat([scene.identity, scene.expression])
        return self.mean.to(coefficients) + self.basis.to(coefficients) @ coefficients


def model_points(scene: Scene, points: SurfacePoints) -> Float[np.ndarray, "points 3"]:
    """The points in the model frame, in float64."""
    shape = np.concatenate([scene.identity.numpy(), scene.expression.numpy()]).astype(np.float64)
    found: Float[np.ndarray, "points 3"] = points.mean64 + points.basis64 @ shape
    return found


def project_points(scene: Scene, points: SurfacePoints) -> Float[np.ndarray, "points 2"]:
    """Pixels of surface points, in float64; NaN where one is not in front of the camera, so that no step goes there."""
    rotation, _ = rotation_of(scene)
    x, y, z = rotation @ model_points(scene, points).T + scene.pose.translation_mm.numpy()[:, None]
    ahead = np.where(z > NEAREST_MM, z, np.nan)
    relative = float(scene.camera.focal_px) * np.stack([x, y], 1) / ahead[:, None]
    pixels: Float[np.ndarray, "points 2"] = relative + scene.camera.principal_point.numpy()
    return pixels


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
    """Pixels of surface points and their derivative by rotation, translation, log focal, identity, expression.

    With X = F exp(w) p + t: dX/dw = -F exp(w) [p]x J_r(w), J_r the right Jacobian of SO(3).
    """
    basis = points.basis64
    p = model_points(scene, points)
    rotation, right = rotation_of(scene)
    camera_points = p @ rotation.T + scene.pose.translation_mm.numpy()
    focal = float(scene.camera.focal_px)
    x, y, z = camera_points.T
    relative = focal * np.stack([x, y], 1) / z[:, None]
    zero = np.zeros_like(z)
    by_camera_point = np.stack(
        [
            np.stack([focal / z, zero, -relative[:, 0] / z], 1),
            np.stack([zero, focal / z, -relative[:, 1] / z], 1),
        ],
        axis=1,
    )
    by_point = by_camera_point @ rotation
    by_rotation = -by_point @ skew(p) @ right
    jacobian = np.concatenate([by_rotation, by_camera_point, relative[:, :, None], by_point @ basis], axis=2)
    return relative + scene.camera.principal_point.numpy(), jacobian


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


def free_columns(scene: Scene, free: tuple[str, ...], blocks: tuple[str, ...]) -> list[tuple[slice, slice]]:
    """Pairs (column of a Jacobian that holds `blocks` side by side, column of the packed vector) for freed blocks."""
    layout = scene.layout(free)
    pairs, start = [], 0
    for name in blocks:
        size = scene.size(name)
        if name in layout:
            pairs.append((slice(start, start + size), layout[name]))
        start += size
    return pairs
