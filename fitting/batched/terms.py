"""The terms of the fit for many photographs at once: values and Jacobians with a leading photograph axis.

Each is the single fit's term (`residuals/`), which is its oracle: same whitening, same frozen choices. What a
photograph does not have (an unknown landmark, a hidden sample) has weight zero instead of no row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.batched.geometry import GEOMETRY, Scenes, points_at, project
from facefit.fitting.residuals.closure import EYES, LIPS, SHARED
from facefit.fitting.residuals.landmarks import INNER, landmark_covariance, landmark_share
from facefit.models.face_model import LinearFaceModel
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

TOLERANCE = 3.0


class AbstractTerm(ABC):
    """Whitened residuals of B photographs; `blocks` names the unknowns its Jacobian's columns belong to."""

    blocks: tuple[str, ...]

    def freeze(self, scenes: Scenes) -> AbstractTerm:
        """The discrete choices and robust weights at these scenes."""
        return self

    @abstractmethod
    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]: ...

    @abstractmethod
    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]: ...

    def for_curvature(
        self, jacobian: Float[Tensor, "photos rows columns"]
    ) -> Float[Tensor, "photos rows columns"]:
        """The Jacobian whose square a step takes for the curvature; the gradient takes `linearise`'s own."""
        return jacobian


@dataclass(frozen=True, eq=False)
class LandmarkTerm(AbstractTerm):
    """Points of the surface against observed pixels. With `signs` (rows, points), of differences between points."""

    points: SurfacePoints
    signs: Float[Tensor, "items points"]
    observed: Float[Tensor, "photos items 2"]
    whitening: Float[Tensor, "photos items 2 2"]
    share: Float[Tensor, "photos"]
    weight: Float[Tensor, "photos items"] | None = None
    blocks: tuple[str, ...] = GEOMETRY

    def _rows(self, scenes: Scenes) -> Float[Tensor, "photos items 2"]:
        pixels = project(scenes, points_at(scenes, self.points)).pixels
        difference = torch.einsum("rp,bpi->bri", self.signs, pixels) - self.observed
        return (self.whitening @ difference[..., None])[..., 0]

    def freeze(self, scenes: Scenes) -> LandmarkTerm:
        robust = 1 / (1 + (self._rows(scenes) ** 2).sum(-1) / TOLERANCE**2)
        return replace(self, weight=robust * self.share.sqrt()[:, None])

    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]:
        assert self.weight is not None
        return (self.weight[..., None] * self._rows(scenes)).flatten(1)

    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]:
        assert self.weight is not None
        seen = project(scenes, points_at(scenes, self.points))
        shape = torch.einsum("bpij,pjk->bpik", seen.by_model_point(), self.points.basis.to(scenes.x))
        jacobian = torch.einsum("rp,bpik->brik", self.signs, torch.cat([seen.by_rigid(), shape], -1))
        jacobian = self.weight[..., None, None] * (self.whitening @ jacobian)
        return self.values(scenes), jacobian.flatten(1, 2)


def landmark_term(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    free: tuple[str, ...],
    device: torch.device | str,
) -> LandmarkTerm | None:
    """The 51 inner landmarks of each photograph; None where no photograph has any."""
    landmarks = model.topology.landmarks
    rows = [i for i, n in enumerate(landmarks.numbers) if n in INNER]
    return _landmarks(observations, model, [(i,) for i in rows], 1.0, free, device)


def closure_term(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    free: tuple[str, ...],
    device: torch.device | str,
) -> LandmarkTerm | None:
    """Offsets between lids and between lips."""
    row = {int(n): i for i, n in enumerate(model.topology.landmarks.numbers)}
    pairs = [(row[a], row[b]) for a, b in EYES + LIPS if a in row and b in row]
    return _landmarks(observations, model, pairs, (1 - SHARED) / SHARED, free, device)


def _landmarks(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    items: Sequence[tuple[int, ...]],
    variance: float,
    free: tuple[str, ...],
    device: torch.device | str,
) -> LandmarkTerm | None:
    """Items of one landmark, or of two whose difference counts."""
    landmarks = model.topology.landmarks
    used = sorted({i for item in items for i in item})
    if not used:
        return None
    signs = np.zeros((len(items), len(used)), dtype=np.float32)
    for r, item in enumerate(items):
        for i, sign in zip(item, (1.0, -1.0), strict=False):
            signs[r, used.index(i)] = sign
    number = landmarks.numbers[used]
    observed = np.zeros((len(observations), len(items), 2), dtype=np.float32)
    whitening = np.zeros((len(observations), len(items), 2, 2), dtype=np.float32)
    for b, observation in enumerate(observations):
        if observation.landmarks is None:
            continue
        known = np.isfinite(observation.landmarks).all(1)[number]
        if not known.any():
            continue
        seen = np.nan_to_num(observation.landmarks[number])
        covariance = landmark_covariance(observation)[number]
        for r in range(len(items)):
            involved = signs[r] != 0
            if known[involved].all():
                observed[b, r] = signs[r] @ seen
                whitening[b, r] = np.linalg.inv(np.linalg.cholesky(variance * covariance[involved].sum(0)))
    if not whitening.any():
        return None
    points = SurfacePoints(model, landmarks.triangles[used], landmarks.barycentric[used])
    share = np.array([landmark_share(one, free) for one in observations], dtype=np.float32)
    signs_on, observed_on, whitening_on, share_on = (
        torch.from_numpy(a).to(device) for a in (signs, observed, whitening, share)
    )
    return LandmarkTerm(points, signs_on, observed_on, whitening_on, share_on)
