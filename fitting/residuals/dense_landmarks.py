"""A network's hundreds of points: the landmark term again, with errors that are partly one error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.dense_landmarks import DenseLandmarks
from facefit.fitting.projection import SurfacePoints, point_rows, project_points
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.fitting.residuals.landmarks import geometry_of, has_shape
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation


@dataclass(frozen=True)
class DenseLandmarkResidual(AbstractResidual):
    """Reprojection error of dense landmarks, whitened point by point and then along their shared patterns.

    With whitened errors w of covariance floor I + U (diag(variances) - floor) U^T, the inverse square root is
    (I - U diag(1 - sqrt(floor / variances)) U^T) / sqrt(floor). Robust by Geman-McClure on each point's own distance,
    as the 68 landmarks are.
    """

    points: SurfacePoints
    seen: DenseLandmarks
    tolerance: float = 3.0
    weight: Float[np.ndarray, "points"] | None = None
    name: str = "dense landmarks"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        pixels = scene.camera.project(scene.pose.apply(self.points.at(scene)))
        difference = pixels - torch.from_numpy(self.seen.pixels).to(pixels)
        alone = torch.einsum("pri,pi->pr", torch.from_numpy(self.weighted).to(pixels), difference).reshape(-1)
        patterns, shrink = (torch.from_numpy(a).to(pixels) for a in (self.patterns, self.shrink))
        return (alone - patterns.T @ (shrink * (patterns @ alone))) / self.seen.floor**0.5

    @property
    def weighted(self) -> Float[np.ndarray, "points 2 2"]:
        whitening = self.seen.whitening
        return whitening if self.weight is None else whitening * self.weight[:, None, None]

    @property
    def patterns(self) -> Float[np.ndarray, "patterns rows"]:
        return self.seen.patterns.reshape(len(self.seen.patterns), 2 * len(self.seen.pixels))

    @property
    def shrink(self) -> Float[np.ndarray, "patterns"]:
        return 1 - np.sqrt(self.seen.floor / self.seen.variances)

    def decorrelated(self, rows: Float[np.ndarray, "rows *columns"]) -> Float[np.ndarray, "rows *columns"]:
        """Rows whitened point by point, to rows of independent errors."""
        shrink = self.shrink.reshape(-1, *[1] * (rows.ndim - 1))
        found: Float[np.ndarray, "rows *columns"] = rows - self.patterns.T @ (shrink * (self.patterns @ rows))
        return found / np.sqrt(self.seen.floor)

    def values(self, scene: Scene) -> Float[np.ndarray, "rows"]:
        difference = project_points(scene, self.points) - self.seen.pixels
        return self.decorrelated((self.weighted @ difference[:, :, None]).ravel())

    def freeze(self, scene: Scene) -> DenseLandmarkResidual:
        difference = project_points(scene, self.points) - self.seen.pixels
        squared = ((self.seen.whitening @ difference[:, :, None]) ** 2).sum((1, 2))
        return replace(self, weight=1 / (1 + squared / self.tolerance**2))


def dense_landmark_residual(observation: Observation, model: LinearFaceModel) -> DenseLandmarkResidual | None:
    """The term where the photograph has dense landmarks of this model; None else."""
    seen = observation.dense
    if seen is None or seen.model != model.name or not len(seen.pixels):
        return None
    return DenseLandmarkResidual(_points(model, seen.triangles.tobytes(), seen.barycentric.tobytes()), seen)


@lru_cache(maxsize=4)
def _points(model: LinearFaceModel, triangles: bytes, barycentric: bytes) -> SurfacePoints:
    """Kept for a model's next fits: gathering its bases costs more than a step."""
    return SurfacePoints(
        model,
        np.frombuffer(triangles, np.int64).copy(),
        np.frombuffer(barycentric, np.float32).reshape(-1, 3).copy(),
    )


@add_to.register
def _(residual: DenseLandmarkResidual, total: Total, scene: Scene) -> None:
    rows = point_rows(scene, residual.points, residual.weighted, with_shape=has_shape(total.free))
    total.add_rows(residual.decorrelated(rows), residual.values(scene), scene, geometry_of(total.free))


normal_equations.register(DenseLandmarkResidual, alone)


@cost.register
def _(residual: DenseLandmarkResidual, scene: Scene) -> float:
    values = residual.values(scene)
    return 0.5 * float(values @ values)
