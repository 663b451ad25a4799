"""A network's hundreds of points: the landmark term again, with errors that are partly one error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.dense_landmarks import DenseLandmarks
from facefit.fitting.projection import point_rows, project_points
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.fitting.residuals.landmarks import geometry_of, has_shape
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation


@dataclass(frozen=True)
class DenseLandmarkResidual(AbstractResidual):
    """Reprojection error of dense landmarks, without the network's leaning towards what it was shown, whitened along
    shared patterns.

    With W the whitening of each point, x its projection, y where the network saw it and r its point of reference, the
    noise is n = W (x - y) + response^T shapes W (x - r). Its covariance, floor I + U (diag(variances) -
    floor) U^T, has the inverse square root (I - U diag(1 - sqrt(floor / variances)) U^T) / sqrt(floor). Robust by
    Geman-McClure on each point's part of n.
    """

    points: SurfacePoints
    seen: DenseLandmarks
    tolerance: float = 3.0
    weight: Float[np.ndarray, "points"] | None = None
    name: str = "dense landmarks"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        def whitened(difference: Float[Tensor, "points 2"]) -> Float[Tensor, "rows"]:
            return torch.einsum(
                "pri,pi->pr", torch.from_numpy(self.seen.whitening).to(difference), difference
            ).reshape(-1)

        pixels = scene.camera.project(scene.pose.apply(self.points.at(scene)))
        shapes, response, patterns, shrink, weight, seen, reference = (
            torch.from_numpy(a).to(pixels)
            for a in (self.flat(self.seen.shapes), self.flat(self.seen.response), self.flat(self.seen.patterns),
                      self.shrink, self.row_weight, self.seen.pixels, self.seen.reference)
        )  # fmt: skip
        noise = whitened(pixels - seen) + response.T @ (shapes @ whitened(pixels - reference))
        noise = weight * noise
        found: Tensor = (noise - patterns.T @ (shrink * (patterns @ noise))) / self.seen.floor**0.5
        return found

    def flat(self, rows: Float[np.ndarray, "k points 2"]) -> Float[np.ndarray, "k rows"]:
        return rows.reshape(len(rows), 2 * len(self.seen.pixels))

    @property
    def shrink(self) -> Float[np.ndarray, "patterns"]:
        return 1 - np.sqrt(self.seen.floor / self.seen.variances)

    @property
    def row_weight(self) -> Float[np.ndarray, "rows"]:
        return np.ones(2 * len(self.seen.pixels)) if self.weight is None else np.repeat(self.weight, 2)

    def noise(self, scene: Scene) -> Float[np.ndarray, "rows"]:
        pixels = project_points(scene, self.points)
        off, moved = (
            (self.seen.whitening @ (pixels - there)[:, :, None]).ravel()
            for there in (self.seen.pixels, self.seen.reference)
        )
        found: Float[np.ndarray, "rows"] = off + self.flat(self.seen.response).T @ (
            self.flat(self.seen.shapes) @ moved
        )
        return found

    def decorrelated(self, rows: Float[np.ndarray, "rows *columns"]) -> Float[np.ndarray, "rows *columns"]:
        """Weighted rows of noise, to rows of unit variance that are independent of each other."""
        patterns = self.flat(self.seen.patterns)
        shrink = self.shrink.reshape(-1, *[1] * (rows.ndim - 1))
        found: Float[np.ndarray, "rows *columns"] = rows - patterns.T @ (shrink * (patterns @ rows))
        return np.asarray(found / np.sqrt(self.seen.floor))

    def values(self, scene: Scene) -> Float[np.ndarray, "rows"]:
        return self.decorrelated(self.row_weight * self.noise(scene))

    def jacobian(self, scene: Scene, free: tuple[str, ...]) -> Float[np.ndarray, "rows unknowns"]:
        """Of `values`, by the blocks of `geometry_of(free)`."""
        rows = point_rows(scene, self.points, self.seen.whitening, with_shape=has_shape(free))
        if len(self.seen.shapes):
            rows = rows + self.flat(self.seen.response).T @ (self.flat(self.seen.shapes) @ rows)
        return self.decorrelated(self.row_weight[:, None] * rows)

    def freeze(self, scene: Scene) -> DenseLandmarkResidual:
        squared = (self.noise(scene).reshape(-1, 2) ** 2).sum(1)
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
    total.add_rows(
        residual.jacobian(scene, total.free), residual.values(scene), scene, geometry_of(total.free)
    )


normal_equations.register(DenseLandmarkResidual, alone)


@cost.register
def _(residual: DenseLandmarkResidual, scene: Scene) -> float:
    values = residual.values(scene)
    return 0.5 * float(values @ values)
