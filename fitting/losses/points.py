"""Points of the face compared by plain norms: landmarks, lids and lips, and a known shape."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.losses.term import Term
from facefit.fitting.residuals.closure import EYES, LIPS
from facefit.fitting.residuals.landmarks import face_scale_px
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

Norm = Literal["l1", "l2"]
ALL = np.arange(68)


def landmark_loss(
    observation: Observation,
    model: LinearFaceModel,
    norm: Norm = "l1",
    numbers: Int[np.ndarray, "n"] = ALL,
    weight: float = 1.0,
) -> Term | None:
    """Mean distance of projected landmarks from the detected ones, in outer eye distances; None without any.

    "l1" adds the two coordinates' absolute differences, "l2" squares and adds. In eye distances, so that a
    weight suits photographs of any size.

    Source: Fan, "3D Human Face Reconstruction From Single Image", equation 5; Jiang 2024, section 2.1.
    """
    chosen = _known(observation, model, numbers)
    if not chosen:
        return None
    points, observed, scale = _points(observation, model, chosen)

    def loss(scene: Scene) -> Float[Tensor, ""]:
        return _mean_norm((_project(scene, points) - observed.to(scene.identity)) / scale, norm)

    return Term(loss, weight, "landmark " + norm)


def closure_loss(
    observation: Observation,
    model: LinearFaceModel,
    norm: Norm = "l1",
    pairs: tuple[tuple[int, int], ...] = EYES + LIPS,
    weight: float = 1.0,
) -> Term | None:
    """Mean difference of the offsets between upper and lower lids and lips, in outer eye distances.

    Source: Jiang 2024, section 2.1, "relative offset between eye keypoints" (equation 4 of DECA). For
    Gauss-Newton, whitened: `residuals.closure`.
    """
    known = set(_known(observation, model, np.unique(pairs)))
    kept = [pair for pair in pairs if set(pair) <= known]
    if not kept:
        return None
    points, observed, scale = _points(
        observation, model, [n for pair in zip(*kept, strict=True) for n in pair]
    )
    count = len(kept)

    def loss(scene: Scene) -> Float[Tensor, ""]:
        error = (_project(scene, points) - observed.to(scene.identity)) / scale
        return _mean_norm(error[:count] - error[count:], norm)

    return Term(loss, weight, "closure " + norm)


def shape_loss(model: LinearFaceModel, truth_mm: Float[Tensor, "vertices 3"], weight: float = 1.0) -> Term:
    """Mean squared distance of the vertices from a known shape in correspondence, mm^2, in the model frame.

    Source: Munireddy et al., "3D Face Reconstruction from 2D Images Using CNN", equation 1; the root of each
    distance, averaged, is its equation 5.
    """
    if tuple(truth_mm.shape) != (model.n_vertices, 3):
        raise ValueError(f"a shape of {tuple(truth_mm.shape)} for a model of {model.n_vertices} vertices")

    def loss(scene: Scene) -> Float[Tensor, ""]:
        return ((scene.shape(model) - truth_mm.to(scene.identity)) ** 2).sum(1).mean()

    return Term(loss, weight, "shape")


def _known(observation: Observation, model: LinearFaceModel, numbers: Int[np.ndarray, "n"]) -> list[int]:
    if observation.landmarks is None:
        return []
    finite = np.isfinite(observation.landmarks).all(1)
    return [int(n) for n in model.topology.landmarks.numbers if n in numbers and finite[n]]


def _points(
    observation: Observation, model: LinearFaceModel, numbers: list[int]
) -> tuple[SurfacePoints, Float[Tensor, "points 2"], float]:
    assert observation.landmarks is not None
    landmarks = model.topology.landmarks
    row = {int(number): i for i, number in enumerate(landmarks.numbers)}
    rows = [row[n] for n in numbers]
    points = SurfacePoints(model, landmarks.triangles[rows], landmarks.barycentric[rows])
    return points, torch.from_numpy(observation.landmarks[numbers]), face_scale_px(observation)


def _project(scene: Scene, points: SurfacePoints) -> Float[Tensor, "points 2"]:
    return scene.camera.project(scene.pose.apply(points.at(scene)))


def _mean_norm(difference: Float[Tensor, "points 2"], norm: Norm) -> Float[Tensor, ""]:
    return (difference.abs() if norm == "l1" else difference**2).sum(1).mean()
