"""Which points of a model the network predicts: the 68 landmarks and some hundred more, in mirror pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from facefit.detection import MIRRORED_LANDMARKS
from facefit.models.face_model import LinearFaceModel

# Points beyond the landmarks; of an even number, since they come in pairs.
SPREAD = 452
# How much closer points lie at eyes, nose and mouth than on cheeks and forehead.
DENSER, DENSER_MM = 1.8, 12.0
# A vertex whose mirror image lies within this of a vertex has that one as its partner.
PARTNER_MM = 4.0


@dataclass(frozen=True)
class DensePoints:
    """Points fixed on a model's surface: triangle and barycentric weights; `mirror[i]` is the point across.

    The first 68 are the iBUG landmarks by number.
    """

    triangles: Int[np.ndarray, "points"]
    barycentric: Float[np.ndarray, "points 3"]
    mirror: Int[np.ndarray, "points"]

    def __len__(self) -> int:
        return len(self.triangles)

    def gather(
        self, model: LinearFaceModel, field: Float[Tensor, "*modes vertices 3"]
    ) -> Float[Tensor, "*modes points 3"]:
        """A field per vertex (a mean, a basis, colours) at the points."""
        corners = torch.from_numpy(model.topology.triangles[self.triangles].astype(np.int64))
        weights = torch.from_numpy(self.barycentric).to(field)
        return torch.einsum("...pkc,pk->...pc", field[..., corners, :], weights)


def dense_points(model: LinearFaceModel, spread: int = SPREAD) -> DensePoints:
    """The landmarks and `spread` vertices of the face, evenly by area and denser at eyes, nose and mouth.

    Farthest-point sampling of the right half of the mean face, each point with its partner on the left.
    Raises ValueError for a model without the 68 landmarks.
    """
    marks = model.topology.landmarks
    if marks.numbers.tolist() != list(range(68)):
        raise ValueError(
            f"{model.name}: dense points start from the 68 landmarks, the model has {len(marks.numbers)}"
        )
    mean = model.mean.double().numpy()
    landmarks = model.landmark_points(model.mean).double().numpy()
    right, left = _pairs(model, mean)
    detail = cKDTree(landmarks[17:]).query(mean[right])[0]
    density = 1 + (DENSER - 1) * np.exp(-0.5 * (detail / DENSER_MM) ** 2)
    chosen = farthest(mean[right], density, spread // 2)
    vertices = np.concatenate([right[chosen], left[chosen]])
    triangle, corner = _corner_of(model.topology.triangles, vertices)
    barycentric = np.eye(3)[corner]
    count = spread // 2
    mirror = np.concatenate([MIRRORED_LANDMARKS, 68 + count + np.arange(count), 68 + np.arange(count)])
    return DensePoints(
        np.concatenate([marks.triangles, triangle]).astype(np.int64),
        np.concatenate([marks.barycentric, barycentric]).astype(np.float32),
        mirror,
    )


def farthest(
    points: Float[np.ndarray, "points 3"], density: Float[np.ndarray, "points"], count: int
) -> Int[np.ndarray, "count"]:
    """Farthest-point sampling; where `density` is 2 the points lie half as far apart."""
    chosen = np.empty(count, np.int64)
    away = np.full(len(points), np.inf)
    chosen[0] = 0
    for i in range(1, count):
        last = chosen[i - 1]
        away = np.minimum(away, np.linalg.norm(points - points[last], axis=1))
        away[last] = 0
        chosen[i] = int((away * density).argmax())
    return chosen


def _pairs(
    model: LinearFaceModel, mean: Float[np.ndarray, "vertices 3"]
) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"]]:
    """Vertices of the face's right half (x < 0) and their partners on the left, by the mean face's geometry."""
    face = np.asarray(model.topology.region("face"), np.int64)
    face = face[~np.isin(face, _eyes(model))]
    right = face[mean[face, 0] < -1.0]
    candidates = face[mean[face, 0] > 0]
    distance, nearest = cKDTree(mean[candidates]).query(mean[right] * [-1, 1, 1])
    near = distance < PARTNER_MM
    return right[near], candidates[np.asarray(nearest)[near]]


def _eyes(model: LinearFaceModel) -> Int[np.ndarray, "n"]:
    names = ("eyeballs", "right_eyeball", "left_eyeball", "mouth_inside", "teeth")
    parts = [model.topology.regions[name] for name in names if name in model.topology.regions]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _corner_of(
    triangles: Int[np.ndarray, "triangles 3"], vertices: Int[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """A triangle that has each vertex, and which corner of it the vertex is."""
    where = np.full(int(triangles.max()) + 1, -1)
    where[triangles.ravel()] = np.arange(triangles.size)
    return where[vertices] // 3, where[vertices] % 3
