"""Detected landmarks: where the model's points land against where the detector saw them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.projection import landmark_points, point_rows, project_points
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

GEOMETRY = ("rotation", "translation", "focal", "identity", "expression")


@dataclass(frozen=True)
class LandmarkResidual(AbstractResidual):
    """Reprojection error of fixed surface points, each whitened by its covariance.

    `whitening` (points, rows, 2) maps a pixel difference to unit-variance numbers: the inverse square root of the
    covariance (two rows), or one row where only the distance across a contour counts.
    Robust by Geman-McClure: `freeze` scales a point down by 1 / (1 + r^2 / tolerance^2), r its whitened distance.
    `share` is how many independent observations each number is worth; by itself a point may be as far off as its
    covariance says, so `share` does not enter r.
    """

    points: SurfacePoints
    observed: Float[np.ndarray, "points 2"]
    whitening: Float[np.ndarray, "points rows 2"]
    tolerance: float = 3.0
    weight: Float[np.ndarray, "points"] | None = None
    share: float = 1.0
    name: str = "landmarks"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        pixels = scene.camera.project(scene.pose.apply(self.points.at(scene)))
        difference = pixels - torch.from_numpy(self.observed).to(pixels)
        return torch.einsum("pri,pi->pr", torch.from_numpy(self.weighted).to(pixels), difference).reshape(-1)

    @property
    def weighted(self) -> Float[np.ndarray, "points rows 2"]:
        whitening: Float[np.ndarray, "points rows 2"] = self.whitening * self.share**0.5
        return whitening if self.weight is None else whitening * self.weight[:, None, None]

    def freeze(self, scene: Scene) -> LandmarkResidual:
        difference = project_points(scene, self.points) - self.observed
        squared = ((self.whitening @ difference[:, :, None]) ** 2).sum((1, 2))
        return replace(self, weight=1 / (1 + squared / self.tolerance**2))


@add_to.register
def _(residual: LandmarkResidual, total: Total, scene: Scene) -> None:
    whitening = residual.weighted
    rows = point_rows(scene, residual.points, whitening, with_shape=has_shape(total.free))
    difference = project_points(scene, residual.points) - residual.observed
    total.add_rows(rows, (whitening @ difference[:, :, None]).ravel(), scene, geometry_of(total.free))


normal_equations.register(LandmarkResidual, alone)


@cost.register
def _(residual: LandmarkResidual, scene: Scene) -> float:
    difference = project_points(scene, residual.points) - residual.observed
    return 0.5 * float(((residual.weighted @ difference[:, :, None]) ** 2).sum())


def has_shape(free: tuple[str, ...]) -> bool:
    return "identity" in free or "expression" in free


def geometry_of(free: tuple[str, ...]) -> tuple[str, ...]:
    """The blocks of a point term's Jacobian: those of the shape only where they are asked for."""
    return GEOMETRY if has_shape(free) else GEOMETRY[:3]


INNER = np.arange(17, 68)


def landmark_residual(
    observation: Observation,
    model: LinearFaceModel,
    numbers: Int[np.ndarray, "n"] = INNER,
    share: float = 1.0,
) -> LandmarkResidual | None:
    """The term for those of `numbers` that the photograph and the model both know; None where there are none."""
    if observation.landmarks is None:
        return None
    known = np.isfinite(observation.landmarks).all(1)
    landmarks = model.topology.landmarks
    chosen = np.flatnonzero(np.isin(landmarks.numbers, numbers) & known[landmarks.numbers])
    if not len(chosen):
        return None
    number = landmarks.numbers[chosen]
    points = landmark_points(model, tuple(chosen.tolist()))
    covariance = landmark_covariance(observation)[number]
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    observed = observation.landmarks[number].astype(np.float64)
    return LandmarkResidual(points, observed, whitening, share=share)


# Landmarks are wrong together: a detector shifts a brow or a jaw as a whole, and what it calls a mouth corner is not
# quite what the model does. Of the 102 numbers of dlib's inner landmarks, whitened and a similarity taken out, 14 are
# independent on 22 path-traced pictures and 15 on 36 drawn from ICT bent out of its space (the participation ratio of
# the errors' covariance): as many as if any two had a correlation of 0.06.
ALIKE = 0.06


def landmark_share(observation: Observation, free: tuple[str, ...]) -> float:
    """How many independent observations each coordinate of the photograph's landmarks is worth: Kish's design effect.

    Taken as independent, 51 landmarks outshout the photograph about who it is, and most where something hides them. It
    is shapes of faces that their common errors look like, not smiles: once identity has settled, they count whole.
    """
    if observation.landmarks is None or "identity" not in free:
        return 1.0
    count = 2 * int(np.isfinite(observation.landmarks[INNER]).all(1).sum())
    return 1 / (1 + ALIKE * max(count - 1, 0))


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
    known = observation.landmarks[np.isfinite(observation.landmarks).all(1)]
    return max(1.0, 0.6 * float(np.ptp(known, axis=0).max())) if len(known) else 1.0
