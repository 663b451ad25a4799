"""The jaw line: it slides along the silhouette, so only the distance across the contour counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.projection import SurfacePoints, model_points, rotation_of
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.fitting.residuals.landmarks import LandmarkResidual, face_scale_px, landmark_covariance
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

JAW = np.arange(17)


# The silhouette moves slowly over the surface: it is looked for again every so many linearisations.
SILHOUETTE_STEPS = 3


@dataclass(frozen=True)
class Silhouette:
    """Where a face can turn away from the camera: the triangles of the model's "jaw_contour" region.

    `corner` indexes `points`, the region's vertices with their rows of the shape basis.
    """

    triangle: Int[np.ndarray, "candidates"]
    corner: Int[np.ndarray, "candidates 3"]
    points: SurfacePoints

    def at(self, scene: Scene) -> OnSilhouette:
        """The candidates that face both ways at this scene, cut where the surface is seen edge-on."""
        rotation, _ = rotation_of(scene)
        points = model_points(scene, self.points) @ rotation.T + scene.pose.translation_mm.numpy()
        a, b, c = points[self.corner].transpose(1, 0, 2)
        doubled_area = np.cross(b - a, c - a)
        normals = np.zeros_like(points)
        for axis in range(3):
            flat = np.bincount(self.corner.ravel(), np.repeat(doubled_area[:, axis], 3), len(points))
            normals[:, axis] = flat
        facing = -(normals * points).sum(1)
        sign = facing[self.corner] > 0
        crossing = np.flatnonzero(sign.any(1) & ~sign.all(1))
        corner, sign = self.corner[crossing], sign[crossing]
        # Two edges of such a triangle change sign; the candidate is midway between their zero crossings.
        f = facing[corner]
        odd = np.where(sign.sum(1) == 1, sign.argmax(1), (~sign).argmax(1))
        rows = np.arange(len(corner))
        barycentric = np.zeros((len(corner), 3))
        for other in ((odd + 1) % 3, (odd + 2) % 3):
            share = f[rows, odd] / (f[rows, odd] - f[rows, other])
            barycentric[rows, odd] += (1 - share) / 2
            barycentric[rows, other] += share / 2
        where = (points[corner] * barycentric[..., None]).sum(1)
        across = (normals[corner] * barycentric[..., None]).sum(1)[:, :2]
        length = np.linalg.norm(across, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            pixels = float(scene.camera.focal_px) * where[:, :2] / where[:, 2:]
            across = across / length[:, None]
        good = np.isfinite(pixels).all(1) & np.isfinite(across).all(1) & (where[:, 2] > 0)
        return OnSilhouette(
            self.triangle[crossing][good],
            barycentric[good],
            pixels[good] + scene.camera.principal_point.numpy(),
            across[good],
        )


@dataclass(frozen=True)
class OnSilhouette:
    """Surface points seen edge-on: their triangle and weights, their pixel, the image direction across the contour."""

    triangle: Int[np.ndarray, "n"]
    barycentric: Float[np.ndarray, "n 3"]
    pixels: Float[np.ndarray, "n 2"]
    across: Float[np.ndarray, "n 2"]


@lru_cache(maxsize=4)
def silhouette(model: LinearFaceModel) -> Silhouette:
    """The candidates of a model; kept for its next fits."""
    allowed = np.zeros(model.n_vertices, dtype=bool)
    allowed[model.topology.region("jaw_contour")] = True
    triangles = model.topology.triangles
    candidates = np.flatnonzero(allowed[triangles].all(1))
    used, corner = np.unique(triangles[candidates], return_inverse=True)
    # A vertex as a surface point: any triangle that has it, with all the weight on it.
    owner = np.zeros(model.n_vertices, dtype=np.int64)
    place = np.zeros(model.n_vertices, dtype=np.int64)
    for k in range(3):
        owner[triangles[:, k]], place[triangles[:, k]] = np.arange(len(triangles)), k
    points = SurfacePoints(model, owner[used], np.eye(3)[place[used]])
    return Silhouette(candidates, corner.reshape(-1, 3), points)


@dataclass(frozen=True)
class ContourResidual(AbstractResidual):
    """Jaw landmarks against the present silhouette of the face.

    `freeze` finds, for each jaw landmark, the nearest point where the surface turns away from the camera, and
    keeps the component of the distance along the image of that point's normal. A landmark further than `reach_px`
    from the silhouette (the near side of a turned head, where the jaw is no silhouette) is left out.
    """

    model: LinearFaceModel
    observed: Float[np.ndarray, "17 2"]
    covariance: Float[np.ndarray, "17 2 2"]
    reach_px: float
    frozen: LandmarkResidual | None = None
    age: int = 0
    name: str = "contour"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        frozen = self.freeze(scene).frozen if self.frozen is None else self.frozen
        return torch.zeros(0) if frozen is None else frozen(scene)

    def freeze(self, scene: Scene) -> ContourResidual:
        if self.frozen is not None and self.age + 1 < SILHOUETTE_STEPS:
            return replace(self, frozen=self.frozen.freeze(scene), age=self.age + 1)
        rim = silhouette(self.model).at(scene)
        known = np.flatnonzero(np.isfinite(self.observed).all(1))
        if not len(rim.triangle) or not len(known):
            return replace(self, frozen=None, age=0)
        distance = np.linalg.norm(rim.pixels[None] - self.observed[known, None], axis=2)
        best = distance.argmin(1)
        near = distance[np.arange(len(known)), best] <= self.reach_px
        best, seen = best[near], known[near]
        if not len(seen):
            return replace(self, frozen=None, age=0)
        across = rim.across[best]
        sigma = np.sqrt(np.einsum("ni,nij,nj->n", across, self.covariance[seen], across))
        points = SurfacePoints(self.model, rim.triangle[best], rim.barycentric[best])
        rows = (across / sigma[:, None])[:, None, :]
        term = LandmarkResidual(points, self.observed[seen], rows, name=self.name)
        return replace(self, frozen=term.freeze(scene), age=0)


@add_to.register
def _(residual: ContourResidual, total: Total, scene: Scene) -> None:
    if residual.frozen is not None:
        add_to(residual.frozen, total, scene)


normal_equations.register(ContourResidual, alone)


@cost.register
def _(residual: ContourResidual, scene: Scene) -> float:
    return 0.0 if residual.frozen is None else cost(residual.frozen, scene)


def contour_residual(observation: Observation, model: LinearFaceModel) -> ContourResidual | None:
    """The jaw term; None where the photograph has no jaw landmarks or the model no region that forms a silhouette."""
    if observation.landmarks is None or "jaw_contour" not in model.topology.regions:
        return None
    jaw = observation.landmarks[JAW]
    if not np.isfinite(jaw).all(1).any():
        return None
    covariance = landmark_covariance(observation)[JAW]
    return ContourResidual(
        model, jaw.astype(np.float64), covariance, reach_px=0.35 * face_scale_px(observation)
    )
