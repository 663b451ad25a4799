"""The jaw line: it slides along the silhouette, so only the distance across the contour counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.projection import SurfacePoints
from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, normal_equations
from facefit.fitting.residuals.landmarks import LandmarkResidual, landmark_covariance
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

JAW = np.arange(17)


@dataclass(frozen=True)
class ContourResidual(AbstractResidual):
    """Jaw landmarks against the present silhouette of the face.

    `freeze` finds, for each jaw landmark, the nearest point where the surface turns away from the camera, and
    keeps the component of the distance along the image of that point's normal. Where the silhouette is further
    away than `reach` outer eye distances (the near side of a turned head, where the jaw is no silhouette), the
    model's own jaw landmark stands in, likewise across the line only.
    """

    model: LinearFaceModel
    observed: Float[np.ndarray, "17 2"]
    covariance: Float[np.ndarray, "17 2 2"]
    reach_px: float
    frozen: LandmarkResidual | None = None
    name: str = "contour"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        frozen = self.freeze(scene).frozen if self.frozen is None else self.frozen
        return torch.zeros(0) if frozen is None else frozen(scene)

    def freeze(self, scene: Scene) -> ContourResidual:
        with torch.no_grad():
            vertices = scene.shape(self.model)
            triangle, barycentric, pixels, normal = self._candidates(scene, vertices)
        if not len(triangle):
            return replace(self, frozen=None)
        known = np.flatnonzero(np.isfinite(self.observed).all(1))
        chosen, rows, seen = [], [], []
        for n in known:
            distance = np.linalg.norm(pixels - self.observed[n], axis=1)
            best = int(distance.argmin())
            if distance[best] > self.reach_px:
                continue
            across = normal[best]
            sigma = float(np.sqrt(across @ self.covariance[n] @ across))
            chosen.append(best)
            rows.append(across / sigma)
            seen.append(n)
        if not chosen:
            return replace(self, frozen=None)
        points = SurfacePoints(self.model, triangle[chosen], barycentric[chosen])
        term = LandmarkResidual(points, self.observed[seen], np.array(rows)[:, None, :], name=self.name)
        return replace(self, frozen=term.freeze(scene))

    def _candidates(
        self, scene: Scene, vertices: Float[Tensor, "vertices 3"]
    ) -> tuple[
        Float[np.ndarray, "n"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]
    ]:
        """Silhouette points inside triangles whose corners face both ways: triangle, weights, pixel, image normal."""
        allowed = np.zeros(self.model.n_vertices, dtype=bool)
        allowed[self.model.topology.region("jaw_contour")] = True
        triangles = self.model.topology.triangles
        candidates = np.flatnonzero(allowed[triangles].all(1))
        rotation = scene.pose.camera_from_model.double().numpy()
        normals = vertex_normals(vertices, self.model.triangles).double().numpy() @ rotation.T
        points = scene.pose.apply(vertices).double().numpy()
        facing = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
        corner = triangles[candidates]
        sign = facing[corner] > 0
        crossing = sign.any(1) & ~sign.all(1)
        candidates, corner, sign = candidates[crossing], corner[crossing], sign[crossing]
        if not len(candidates):
            empty = np.zeros(0)
            return empty, np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2))
        # The zero crossing on the two edges that change sign; their midpoint is the candidate.
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
        centre = scene.camera.principal_point.double().numpy()
        pixels = float(scene.camera.focal_px) * where[:, :2] / where[:, 2:] + centre
        good = length > 1e-6
        return candidates[good], barycentric[good], pixels[good], across[good] / length[good, None]


@normal_equations.register
def _(residual: ContourResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    if residual.frozen is None:
        size = sum(part.stop - part.start for part in scene.layout(free).values())
        zero = torch.zeros(size, dtype=torch.float64)
        return NormalEquations(torch.outer(zero, zero), zero, 0.0)
    return normal_equations(residual.frozen, scene, free)


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
    from facefit.fitting.residuals.landmarks import face_scale_px

    covariance = landmark_covariance(observation)[JAW]
    return ContourResidual(
        model, jaw.astype(np.float64), covariance, reach_px=0.35 * face_scale_px(observation)
    )
