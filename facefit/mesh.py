"""Plain mesh functions on tensors and arrays; knows no face and no camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array
from torch import Tensor


def vertex_normals(
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "vertices 3"]:
    """Unit normals: the area-weighted mean over a vertex's triangles, outward where these are
    counter-clockwise.

    A vertex of no triangle, or of degenerate ones only, has the zero vector.
    """
    a, b, c = vertices[triangles].unbind(1)
    doubled_area = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices).index_add(
        0, triangles.reshape(-1), doubled_area.repeat_interleave(3, 0)
    )
    return torch.nn.functional.normalize(summed, dim=-1, eps=1e-20)


@dataclass(frozen=True)
class SeamSplit:
    """A mesh with one vertex per (position, texture coordinate) pair, as graphics hardware and glTF want it.

    New vertex i is old vertex `vertex[i]` with texture coordinate `uv[i]`; `triangles` index the new
    vertices.
    """

    vertex: Int[np.ndarray, "split"]
    uv: Int[np.ndarray, "split"]
    triangles: Int[np.ndarray, "triangles 3"]


def split_seams(
    triangles: Int[np.ndarray, "triangles 3"], uv_triangles: Int[np.ndarray, "triangles 3"]
) -> SeamSplit:
    """Cut a mesh along the seams of its texture."""
    uvs = int(uv_triangles.max()) + 1
    pairs, corner = np.unique(triangles.astype(np.int64) * uvs + uv_triangles, return_inverse=True)
    return SeamSplit(pairs // uvs, pairs % uvs, corner.reshape(triangles.shape))


def adjacency(triangles: Int[np.ndarray, "triangles 3"], vertices: int) -> csr_array:
    """The symmetric sparse matrix that holds 1 where an edge joins two vertices."""
    edges = unique_edges(triangles)
    one = np.ones(len(edges))
    both: csr_array = coo_array((one, (edges[:, 0], edges[:, 1])), shape=(vertices, vertices)).tocsr()
    both = both + both.T
    return both


def unique_edges(triangles: Int[np.ndarray, "triangles 3"]) -> Int[np.ndarray, "edges 2"]:
    """Every edge once, lower vertex first."""
    return _counted_edges(triangles)[0]


def border_edges(triangles: Int[np.ndarray, "triangles 3"]) -> Int[np.ndarray, "edges 2"]:
    """Edges of one triangle only, lower vertex first."""
    edges, times = _counted_edges(triangles)
    return np.asarray(edges[times == 1])


def _counted_edges(
    triangles: Int[np.ndarray, "triangles 3"],
) -> tuple[Int[np.ndarray, "edges 2"], Int[np.ndarray, "edges"]]:
    """Every edge once, lower vertex first, and the number of its triangles."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(
        np.int64
    )
    sides.sort(axis=1)
    count = int(sides.max(initial=0)) + 1
    keys, times = np.unique(sides[:, 0] * count + sides[:, 1], return_counts=True)
    return np.stack([keys // count, keys % count], 1), times
