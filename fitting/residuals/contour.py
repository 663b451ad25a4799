"""The jaw line: it slides along the silhouette, so only the distance across the contour counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.projection import rotation_of, shape_of
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.fitting.residuals.landmarks import LandmarkResidual, face_scale_px, landmark_covariance
from facefit.kernels.silhouette import rim_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

JAW = np.arange(17)


# The silhouette moves slowly over the surface: it is looked for again every so many linearisations.
SILHOUETTE_STEPS = 3


@dataclass(frozen=True)
class Silhouette:
    """Where a face can turn away from the camera: the triangles of the model's "jaw_contour" region.

    `corner` indexes `points`, the region's vertices with their rows of the shape basis.
    """

    corner: Int[np.ndarray, "candidates 3"]
    points: SurfacePoints

    def at(self, scene: Scene) -> OnSilhouette:
        """The candidates that face both ways at this scene, cut where the surface is seen edge-on."""
        rotation, _ = rotation_of(scene)
        # In float32: thousands of rows of the basis, of which a dozen will count.
        coefficients = shape_of(scene).astype(np.float32)
        basis = self.points.basis.numpy().reshape(-1, len(coefficients))
        in_model = self.points.mean.numpy() + (basis @ coefficients).reshape(-1, 3)
        points = in_model @ rotation.T + scene.pose.translation_mm.numpy()
        size, focal = len(self.corner), float(scene.camera.focal_px)
        place, barycentric = np.empty(size, dtype=np.int64), np.empty((size, 3))
        pixels, across = np.empty((size, 2)), np.empty((size, 2))
        room = np.empty(points.shape), np.empty(len(points))
        count = rim_kernel(points, self.corner, focal, *room, place, barycentric, pixels, across)
        return OnSilhouette(
            self.corner[place[:count]],
            barycentric[:count],
            pixels[:count] + scene.camera.principal_point.numpy(),
            across[:count],
        )


@dataclass(frozen=True)
class OnSilhouette:
    """Surface points seen edge-on: their corners among the candidates' points and weights, their pixel, the image
    direction across the contour.
    """

    corner: Int[np.ndarray, "n 3"]
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
    return Silhouette(corner.reshape(-1, 3), points)


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
    share: float = 1.0
    frozen: LandmarkResidual | None = None
    age: int = 0
    name: str = "contour"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        frozen = self.freeze(scene).frozen if self.frozen is None else self.frozen
        return torch.zeros(0) if frozen is None else frozen(scene)

    def freeze(self, scene: Scene) -> ContourResidual:
        if self.frozen is not None and self.age + 1 < SILHOUETTE_STEPS:
            return replace(self, frozen=self.frozen.freeze(scene), age=self.age + 1)
        outline = silhouette(self.model)
        rim = outline.at(scene)
        known = np.flatnonzero(np.isfinite(self.observed).all(1))
        if not len(rim.corner) or not len(known):
            return replace(self, frozen=None, age=0)
        distance = np.linalg.norm(rim.pixels[None] - self.observed[known, None], axis=2)
        best = distance.argmin(1)
        near = distance[np.arange(len(known)), best] <= self.reach_px
        best, seen = best[near], known[near]
        if not len(seen):
            return replace(self, frozen=None, age=0)
        across = rim.across[best]
        sigma = np.sqrt(np.einsum("ni,nij,nj->n", across, self.covariance[seen], across))
        points = outline.points.blended(rim.corner[best], rim.barycentric[best])
        rows = (across / sigma[:, None])[:, None, :]
        term = LandmarkResidual(points, self.observed[seen], rows, share=self.share, name=self.name)
        return replace(self, frozen=term.freeze(scene), age=0)


@add_to.register
def _(residual: ContourResidual, total: Total, scene: Scene) -> None:
    if residual.frozen is not None:
        add_to(residual.frozen, total, scene)


normal_equations.register(ContourResidual, alone)


@cost.register
def _(residual: ContourResidual, scene: Scene) -> float:
    return 0.0 if residual.frozen is None else cost(residual.frozen, scene)


def contour_residual(
    observation: Observation, model: LinearFaceModel, share: float = 1.0
) -> ContourResidual | None:
    """The jaw term; None where the photograph has no jaw landmarks or the model no region that forms a silhouette."""
    if observation.landmarks is None or "jaw_contour" not in model.topology.regions:
        return None
    jaw = observation.landmarks[JAW]
    if not np.isfinite(jaw).all(1).any():
        return None
    covariance = landmark_covariance(observation)[JAW]
    reach_px = 0.35 * face_scale_px(observation)
    return ContourResidual(model, jaw.astype(np.float64), covariance, reach_px, share)
