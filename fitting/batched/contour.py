"""The jaw line of many photographs at once; `residuals.contour` is its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facefit.fitting.batched.geometry import GEOMETRY, Scenes, points_at, project
from facefit.fitting.batched.terms import TOLERANCE, AbstractTerm
from facefit.fitting.residuals.contour import JAW, SILHOUETTE_STEPS, silhouette
from facefit.fitting.residuals.landmarks import face_scale_px, landmark_covariance, landmark_share
from facefit.models.face_model import LinearFaceModel
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation


@dataclass(frozen=True, eq=False)
class ContourTerm(AbstractTerm):
    """Jaw landmarks across the nearest silhouette; `residuals.contour` for many photographs."""

    corner: Float[Tensor, "candidates 3"]
    points: SurfacePoints
    observed: Float[Tensor, "photos jaw 2"]
    covariance: Float[Tensor, "photos jaw 2 2"]
    known: Bool[Tensor, "photos jaw"]
    reach_px: Float[Tensor, "photos"]
    share: Float[Tensor, "photos"]
    mean: Float[Tensor, "photos jaw 3"] | None = None
    basis: Float[Tensor, "photos jaw 3 shape"] | None = None
    across: Float[Tensor, "photos jaw 2"] | None = None
    weight: Float[Tensor, "photos jaw"] | None = None
    age: int = 0
    blocks: tuple[str, ...] = GEOMETRY

    def freeze(self, scenes: Scenes) -> ContourTerm:
        young = self.mean is not None and self.age + 1 < SILHOUETTE_STEPS
        found = replace(self, age=self.age + 1) if young else self._search(scenes)
        pixels, _ = found._seen(scenes)
        assert found.across is not None
        rows = ((pixels - found.observed) * found.across).sum(-1)
        robust = 1 / (1 + rows**2 / TOLERANCE**2)
        return replace(found, weight=robust * self.share.sqrt()[:, None])

    def _search(self, scenes: Scenes) -> ContourTerm:
        """The nearest point of the present silhouette for each jaw landmark."""
        seen = project(scenes, points_at(scenes, self.points))
        a, b, c = seen.camera[:, self.corner].unbind(2)
        area = torch.linalg.cross(b - a, c - a)
        normals = torch.zeros_like(seen.camera)
        normals.index_add_(1, self.corner.reshape(-1), area.repeat_interleave(3, 1))
        facing = -(normals * seen.camera).sum(-1)
        f = facing[:, self.corner]
        sign = f > 0
        count = sign.sum(-1)
        odd = torch.where(count == 1, sign.int().argmax(-1), (~sign).int().argmax(-1))
        barycentric = torch.zeros_like(f)
        at_odd = f.gather(-1, odd[..., None])[..., 0]
        for step in (1, 2):
            other = (odd + step) % 3
            share = at_odd / (at_odd - f.gather(-1, other[..., None])[..., 0])
            barycentric.scatter_add_(-1, odd[..., None], ((1 - share) / 2)[..., None])
            barycentric.scatter_add_(-1, other[..., None], (share / 2)[..., None])
        where = (seen.camera[:, self.corner] * barycentric[..., None]).sum(2)
        across = (normals[:, self.corner] * barycentric[..., None]).sum(2)[..., :2]
        across = across / across.norm(dim=-1, keepdim=True)
        pixels = scenes.focal[:, None, None] * where[..., :2] / where[..., 2:] + scenes.centre[:, None]
        good = (count > 0) & (count < 3) & pixels.isfinite().all(-1) & across.isfinite().all(-1)
        good &= where[..., 2] > 0
        distance = (pixels[:, None] - self.observed[:, :, None]).norm(dim=-1)
        distance = torch.where(good[:, None], distance, torch.full_like(distance, torch.inf))
        nearest, best = distance.min(-1)
        kept = self.known & (nearest <= self.reach_px[:, None])
        chosen = across.gather(1, best[..., None].expand(-1, -1, 2))
        variance = torch.einsum("bji,bjik,bjk->bj", chosen, self.covariance, chosen)
        chosen = torch.where(kept[..., None], chosen / variance.sqrt()[..., None], torch.zeros_like(chosen))
        weights = barycentric.gather(1, best[..., None].expand(-1, -1, 3))
        corners = self.corner[best]
        mean = (self.points.mean.to(scenes.x)[corners] * weights[..., None]).sum(2)
        basis = (self.points.basis.to(scenes.x)[corners] * weights[..., None, None]).sum(2)
        return replace(self, mean=mean, basis=basis, across=chosen, age=0)

    def _seen(self, scenes: Scenes) -> tuple[Tensor, Tensor]:
        assert self.mean is not None and self.basis is not None and self.across is not None
        points = self.mean + torch.einsum("bjik,bk->bji", self.basis, scenes.shape)
        seen = project(scenes, points)
        shape = torch.einsum("bjio,bjok->bjik", seen.by_model_point(), self.basis)
        return seen.pixels, torch.cat([seen.by_rigid(), shape], -1)

    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]:
        return self.linearise(scenes)[0]

    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]:
        assert self.across is not None and self.weight is not None
        pixels, jacobian = self._seen(scenes)
        rows = ((pixels - self.observed) * self.across).sum(-1)
        across = torch.einsum("bji,bjik->bjk", self.across, jacobian)
        return self.weight * rows, self.weight[..., None] * across


def contour_term(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    free: tuple[str, ...],
    device: torch.device | str,
) -> ContourTerm | None:
    """The jaw of each photograph; None where the model has no silhouette region or no photograph a jaw."""
    if "jaw_contour" not in model.topology.regions:
        return None
    jaws, covariances, knowns, reaches = [], [], [], []
    for observation in observations:
        known, jaw = np.zeros(17, dtype=bool), np.zeros((17, 2))
        covariance, reach = np.tile(np.eye(2), (17, 1, 1)), 0.0
        if observation.landmarks is not None:
            known = np.isfinite(observation.landmarks[JAW]).all(1)
            if known.any():
                jaw = np.nan_to_num(observation.landmarks[JAW])
                covariance = landmark_covariance(observation)[JAW]
                reach = 0.35 * face_scale_px(observation)
        jaws.append(jaw)
        covariances.append(covariance)
        knowns.append(known)
        reaches.append(reach)
    if not np.any(knowns):
        return None
    rim = silhouette(model)
    return ContourTerm(
        torch.from_numpy(rim.corner).to(device),
        rim.points,
        torch.from_numpy(np.stack(jaws)).float().to(device),
        torch.from_numpy(np.stack(covariances)).float().to(device),
        torch.from_numpy(np.stack(knowns)).to(device),
        torch.tensor(reaches, device=device),
        torch.tensor([landmark_share(one, free) for one in observations], device=device),
    )
