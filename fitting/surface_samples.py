"""Points fixed on a model's surface, with everything the photometric term needs of them gathered once.

Position and two tangents of a surface point are linear in identity and expression, so for each sample the nine
rows (position, tangent, tangent) of the shape basis are gathered when the samples are drawn. A linearisation
then costs the same whatever the size of the photograph and of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from facefit.models.face_model import LinearFaceModel, Topology


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Samples of one model. Rows of `geometry` are position, first and second tangent, three coordinates each.

    The tangents span the surface's smoothed tangent plane; their cross product points outwards. `area_mm2` is
    the piece of mean surface a sample stands for. `core` marks the middle of the face, from the brows to the chin and
    no wider than the eyes, which hair rarely hides.
    """

    triangles: Int[np.ndarray, "samples"]
    corner: Int[np.ndarray, "samples 3"]
    barycentric: Float[np.ndarray, "samples 3"]
    area_mm2: Float[np.ndarray, "samples"]
    geometry_mean: Float[np.ndarray, "samples 9"]
    geometry_basis: Float[np.ndarray, "samples 9 shape"]
    albedo_mean: Float[np.ndarray, "samples 3"]
    albedo_basis: Float[np.ndarray, "samples 3 albedo"]
    core: Bool[np.ndarray, "samples"]

    @cached_property
    def gram(self) -> Float[np.ndarray, "samples 9 9"]:
        """The products of each sample's nine rows of the geometry basis with each other."""
        basis = self.geometry_basis
        gram: Float[np.ndarray, "samples 9 9"] = basis @ basis.transpose(0, 2, 1)
        return gram

    def __len__(self) -> int:
        return len(self.triangles)


@lru_cache(maxsize=8)
def surface_samples(model: LinearFaceModel, count: int, seed: int = 0) -> SurfaceSamples:
    """`count` samples spread evenly over the model's "face" region. Kept for the model's next fits."""
    triangles, barycentric, area = draw(model, count, seed)
    return gather(model, triangles, barycentric, area)


def draw(
    model: LinearFaceModel, count: int, seed: int
) -> tuple[Int[np.ndarray, "samples"], Float[np.ndarray, "samples 3"], Float[np.ndarray, "samples"]]:
    """Stratified by area: sample k lies in the k-th of `count` equal slices of the accumulated triangle area."""
    candidates = face_triangles(model.topology, model.n_vertices)
    corners = model.mean.numpy()[model.topology.triangles[candidates]]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    # Neighbours in space should be neighbours in the accumulated area, or stratifying by it spreads nothing:
    # order the triangles along a Morton curve through their centres.
    order = np.argsort(_morton(corners.mean(1)))
    accumulated = np.cumsum(area[order])
    random = np.random.default_rng(seed)
    targets = (np.arange(count) + random.random(count)) / count * accumulated[-1]
    chosen = candidates[order[np.searchsorted(accumulated, targets).clip(max=len(order) - 1)]]
    root, along = np.sqrt(random.random(count)), random.random(count)
    barycentric = np.stack([1 - root, root * (1 - along), root * along], 1)
    return chosen, barycentric, np.full(count, accumulated[-1] / count)


def face_triangles(topology: Topology, vertices: int) -> Int[np.ndarray, "triangles"]:
    """Triangles whose three corners are skin of the face."""
    inside = np.zeros(vertices, dtype=bool)
    inside[topology.region("face")] = True
    return np.flatnonzero(inside[topology.triangles].all(1))


def gather(
    model: LinearFaceModel,
    triangles: Int[np.ndarray, "samples"],
    barycentric: Float[np.ndarray, "samples 3"],
    area: Float[np.ndarray, "samples"],
) -> SurfaceSamples:
    """The samples' rows of the model's bases."""
    rows = sample_rows(model, triangles, barycentric)
    geometry = sp.vstack(rows).tocsr()
    count, identity = len(triangles), model.n_identity
    basis = np.empty((count, 9, identity + model.n_expression), dtype=np.float32)
    for fields, first in ((model.identity_basis, 0), (model.expression_basis, identity)):
        for start, part in _gathered(geometry, fields.numpy()):
            at = first + start
            basis[:, :, at : at + part.shape[2]] = (
                part.reshape(3, count, 3, -1).transpose(1, 0, 2, 3).reshape(count, 9, -1)
            )
    albedo = np.empty((count, 3, model.n_albedo), dtype=np.float32)
    for start, part in _gathered(rows[0], model.albedo_basis.numpy()):
        albedo[:, :, start : start + part.shape[2]] = part
    mean = np.concatenate([row @ model.mean.numpy() for row in rows], axis=1)
    return SurfaceSamples(
        triangles=triangles,
        corner=np.ascontiguousarray(model.topology.triangles[triangles], dtype=np.int32),
        barycentric=barycentric,
        area_mm2=area,
        geometry_mean=np.ascontiguousarray(mean, dtype=np.float32),
        geometry_basis=basis,
        albedo_mean=np.ascontiguousarray(rows[0] @ model.albedo_mean.numpy(), dtype=np.float32),
        albedo_basis=albedo,
        core=in_core(model, mean[:, :3]),
    )


# Modes gathered at a time: the transposed copy of all of them would double the model's memory.
MODES_AT_A_TIME = 8


def _gathered(
    matrix: sp.csr_matrix, fields: Float[np.ndarray, "modes vertices 3"]
) -> Iterator[tuple[int, Float[np.ndarray, "rows 3 part"]]]:
    """`matrix` (rows, vertices) applied to a few modes after the other, with the first mode's number."""
    used = np.unique(matrix.indices)
    matrix = matrix[:, used]
    for start in range(0, len(fields), MODES_AT_A_TIME):
        part = fields[start : start + MODES_AT_A_TIME, used].transpose(1, 2, 0).reshape(len(used), -1)
        yield start, np.asarray(matrix @ part).reshape(matrix.shape[0], 3, -1)


def in_core(model: LinearFaceModel, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Points of the mean face between brows and chin, between the outer eye corners; all where those are unknown."""
    landmarks = dict(
        zip(model.topology.landmarks.numbers.tolist(), model.landmark_points(model.mean).numpy(), strict=True)
    )
    if not {8, 19, 24, 36, 45} <= set(landmarks):
        return np.ones(len(points), dtype=bool)
    brow = min(landmarks[19][1], landmarks[24][1])
    inside: Bool[np.ndarray, "n"] = (
        (points[:, 0] > landmarks[36][0])
        & (points[:, 0] < landmarks[45][0])
        & (points[:, 1] < brow)
        & (points[:, 1] > landmarks[8][1])
    )
    return inside if inside.any() else np.ones(len(points), dtype=bool)


def sample_rows(
    model: LinearFaceModel, triangles: Int[np.ndarray, "samples"], barycentric: Float[np.ndarray, "samples 3"]
) -> tuple[sp.csr_matrix, sp.csr_matrix, sp.csr_matrix]:
    """Three sparse matrices (samples, vertices): position and the two smoothed tangents from vertex positions.

    A triangle's corners determine the linear map from its mean shape to its present one, E P with E the two
    edges and P the pseudo-inverse of the mean's. Averaging these maps over the triangles around each corner
    (by area) and over the corners (by barycentric weight) and applying the average to a fixed frame of the mean
    surface gives tangents that vary smoothly and stay exactly linear in the vertices.
    """
    faces, mean = model.topology.triangles, model.mean.numpy().astype(np.float64)
    count, vertices = len(triangles), model.n_vertices
    corner = faces[triangles]
    index = np.arange(count)
    position = sp.csr_matrix(
        (barycentric.ravel(), (np.repeat(index, 3), corner.ravel())), shape=(count, vertices)
    )

    # Only triangles around a sample's corners count.
    touched = np.zeros(vertices, dtype=bool)
    touched[corner] = True
    faces = faces[touched[faces].any(1)]
    x0, x1, x2 = mean[faces].transpose(1, 0, 2)
    one, other = x1 - x0, x2 - x0
    normal = np.cross(one, other)
    twice = np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    unit = normal / twice
    # The rows of the pseudo-inverse: in the triangle's plane, each at right angles to the other edge.
    inverse = np.stack([np.cross(other, unit), np.cross(unit, one)], axis=1) / twice[:, None]
    # around[v, t] = share of triangle t in the area around vertex v; then triangles around each sample.
    around = sp.csr_matrix(
        (np.repeat(twice, 3), (faces.ravel(), np.repeat(np.arange(len(faces)), 3))),
        shape=(vertices, len(faces)),
    )
    around = sp.diags(1 / np.maximum(np.asarray(around.sum(1)).ravel(), 1e-12)) @ around
    share = position @ around
    mean_normal, share = share @ unit, share.tocoo()

    first, second = tangent_frame(mean_normal)
    tangents = []
    for axis in (first, second):
        along = np.einsum("kij,kj->ki", inverse[share.col], axis[share.row]) * share.data[:, None]
        weights = np.concatenate([-along.sum(1), along[:, 0], along[:, 1]])
        columns = faces[share.col].T.ravel()
        tangents.append(sp.csr_matrix((weights, (np.tile(share.row, 3), columns)), shape=(count, vertices)))
    return position, tangents[0], tangents[1]


def tangent_frame(
    normal: Float[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Two unit vectors per normal, first x second along the normal."""
    unit = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    helper = np.eye(3)[np.abs(unit).argmin(1)]
    first = np.cross(helper, unit)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    return first, np.cross(unit, first)


def _morton(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """Position along a space-filling curve, from ten interleaved bits per axis."""
    low, high = points.min(0), points.max(0)
    cells = ((points - low) / np.maximum(high - low, 1e-9).max() * 1023).astype(np.int64)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code
