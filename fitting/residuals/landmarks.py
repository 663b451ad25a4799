"""Detected landmarks: where the model's points land against where the detector saw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.projection import SurfacePoints, free_columns, project_with_jacobian
from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, normal_equations
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

GEOMETRY = ("rotation", "translation", "focal", "identity", "expression")


@dataclass(frozen=True)
class LandmarkResidual(AbstractResidual):
    """Reprojection error of fixed surface points, each whitened by its covariance.

    `whitening` (points, rows, 2) maps a pixel difference to unit-variance numbers: the inverse square root of the
    covariance (two rows), or one row where only the distance across a contour counts.
    Robust by Geman-McClure: `freeze` scales a point down by 1 / (1 + r^2 / tolerance^2), r its whitened distance.
    """

    points: SurfacePoints
    observed: Float[np.ndarray, "points 2"]
    whitening: Float[np.ndarray, "points rows 2"]
    tolerance: float = 3.0
    name: str = "landmarks"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        pixels = scene.camera.project(scene.pose.apply(self.points.at(scene)))
        difference = pixels - torch.from_numpy(self.observed).to(pixels)
        return torch.einsum("pri,pi->pr", torch.from_numpy(self.whitening).to(pixels), difference).reshape(-1)

    def freeze(self, scene: Scene) -> LandmarkResidual:
        if not np.isfinite(self.tolerance):
            return self
        with torch.no_grad():
            rows = self(scene).reshape(len(self.points), -1).double().numpy()
        weight = 1 / (1 + (rows**2).sum(1) / self.tolerance**2)
        whitening = self.whitening * weight[:, None, None]
        return LandmarkResidual(self.points, self.observed, whitening, np.inf, self.name)


@normal_equations.register
def _(residual: LandmarkResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    pixels, jacobian = project_with_jacobian(scene, residual.points)
    values = (residual.whitening @ (pixels - residual.observed)[:, :, None]).ravel()
    whitened = (residual.whitening @ jacobian).reshape(len(values), -1)
    return assemble(whitened, values, scene, free, GEOMETRY)


def assemble(
    jacobian: Float[np.ndarray, "rows columns"],
    values: Float[np.ndarray, "rows"],
    scene: Scene,
    free: tuple[str, ...],
    blocks: tuple[str, ...],
) -> NormalEquations:
    """Normal equations in the packed order from a Jacobian whose columns are `blocks` side by side."""
    size = sum(where.stop - where.start for where in scene.layout(free).values())
    ordered = np.zeros((len(values), size), dtype=jacobian.dtype)
    for column, where in free_columns(scene, free, blocks):
        ordered[:, where] = jacobian[:, column]
    matrix = torch.from_numpy(ordered.T @ ordered).double()
    gradient = torch.from_numpy(ordered.T @ values).double()
    return NormalEquations(matrix, gradient, 0.5 * float(values.astype(np.float64) @ values))


@cost.register
def _(residual: LandmarkResidual, scene: Scene) -> float:
    with torch.no_grad():
        values = residual(scene).double()
    return 0.5 * float(values @ values)


INNER = np.arange(17, 68)


def landmark_residual(
    observation: Observation, model: LinearFaceModel, numbers: Int[np.ndarray, "n"] = INNER
) -> LandmarkResidual | None:
    """The term for those of `numbers` that the photograph and the model both know; None where there are none."""
    if observation.landmarks is None:
        return None
    known = np.isfinite(observation.landmarks).all(1)
    landmarks = model.topology.landmarks
    chosen = [i for i, n in enumerate(landmarks.numbers) if n in numbers and known[n]]
    if not chosen:
        return None
    number = landmarks.numbers[chosen]
    points = SurfacePoints(model, landmarks.triangles[chosen], landmarks.barycentric[chosen])
    covariance = landmark_covariance(observation)[number]
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return LandmarkResidual(points, observation.landmarks[number].astype(np.float64), whitening)


# Where a detector gives no covariance: 3 % of the outer eye distance per axis.
DEFAULT_SIGMA = 0.03


def landmark_covariance(observation: Observation) -> Float[np.ndarray, "68 2 2"]:
    """The observation's own covariances, or the default; never smaller than (0.5 px)^2, so that it can be inverted."""
    assert observation.landmarks is not None
    if observation.landmark_covariance is not None:
        covariance = observation.landmark_covariance.astype(np.float64)
    else:
        covariance = np.tile(np.eye(2) * (DEFAULT_SIGMA * face_scale_px(observation)) ** 2, (68, 1, 1))
    return covariance + 0.25 * np.eye(2)


def face_scale_px(observation: Observation) -> float:
    """The outer eye distance, or what stands for it where an eye corner is unknown (0.6 of the landmarks' extent)."""
    assert observation.landmarks is not None
    distance = observation.interocular_px
    if np.isfinite(distance) and distance > 1:
        return distance
    extent = np.nanmax(observation.landmarks, axis=0) - np.nanmin(observation.landmarks, axis=0)
    return max(1.0, 0.6 * float(extent.max()))
