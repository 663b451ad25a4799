"""A finer mesh over part of a coarse one: every chosen triangle cut into four, once or twice.

Skin's detail is finer than a face model's mesh (2 to 5 mm between vertices), so it lives on this one. The coarse
vertices keep their numbers, a new one belongs to the middle of an edge; all photographs of all people share one
refinement of a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array, eye_array, vstack

from facefit.fitting.surface_samples import face_triangles
from facefit.models.face_model import LinearFaceModel, Topology


@dataclass(frozen=True, eq=False)
class Refinement:
    """`weights` (fine, coarse) makes fine vertex values from coarse ones; its first rows are the identity.

    `triangles` are the refined ones, `kept` the coarse triangles left as they are. `middles` are the ends of the edge
    a new vertex halves, a cut after the other. `mirror[i]` is the vertex across the mid-plane, i where none is.
    """

    weights: csr_array
    triangles: Int[np.ndarray, "fine 3"]
    kept: Int[np.ndarray, "kept 3"]
    middles: tuple[Int[np.ndarray, "new 2"], ...]
    mirror: Int[np.ndarray, "vertices"]

    @property
    def n_vertices(self) -> int:
        return int(self.weights.shape[0])

    @property
    def n_coarse(self) -> int:
        return int(self.weights.shape[1])

    @property
    def all_triangles(self) -> Int[np.ndarray, "triangles 3"]:
        """The whole head: what was left as it is, then what was refined."""
        return np.concatenate([self.kept, self.triangles])

    def carry(self, coarse: Float[np.ndarray, "coarse *rest"]) -> Float[np.ndarray, "fine *rest"]:
        """Values of coarse vertices on the fine ones, by linear interpolation."""
        fine: Float[np.ndarray, "fine *rest"] = np.asarray(self.weights @ coarse)
        return fine

    def halved(self, values: Float[np.ndarray, "before *rest"]) -> Float[np.ndarray, "fine *rest"]:
        """Values on the vertices before the last cut, carried over it."""
        middle = values[self.middles[-1]].mean(1)
        fine: Float[np.ndarray, "fine *rest"] = np.concatenate([values, middle])
        return fine

    def gather(
        self, fine: Float[np.ndarray, "fine *rest"], area: Float[np.ndarray, "fine"]
    ) -> Float[np.ndarray, "coarse *rest"]:
        """Means of fine values around each coarse vertex: what the coarse mesh can hold of them."""
        share = self.weights.T @ diags_array(area)
        flat = np.asarray(share @ fine.reshape(len(fine), -1))
        mean = flat / np.maximum(share.sum(1), 1e-12)[:, None]
        return np.asarray(mean.reshape(self.n_coarse, *fine.shape[1:]))

    def positions(
        self, points: Float[np.ndarray, "coarse 3"], normals: Float[np.ndarray, "coarse 3"]
    ) -> Float[np.ndarray, "fine 3"]:
        """Fine vertices on a surface that is as round as its normals say, through the coarse vertices.

        The middle of an edge is moved half the way to the mean of its projections on the planes of the edge's ends,
        which is right on a sphere: Boubekeur and Alexa, "Phong Tessellation", SIGGRAPH Asia 2008.
        """
        points, normals = points.astype(np.float64), normals.astype(np.float64)
        for middles in self.middles:
            (a, b), (m, n) = points[middles].transpose(1, 0, 2), normals[middles].transpose(1, 0, 2)
            half = 0.5 * (b - a)
            bulge = (half * n).sum(1, keepdims=True) * n - (half * m).sum(1, keepdims=True) * m
            points = np.concatenate([points, 0.5 * (a + b) + 0.25 * bulge])
            normals = np.concatenate([normals, _unit(m + n)])
        return points

    def normals(self, normals: Float[np.ndarray, "coarse 3"]) -> Float[np.ndarray, "fine 3"]:
        """Unit normals that vary smoothly between those of the coarse vertices."""
        return _unit(self.carry(normals.astype(np.float64)))


def refine(topology: Topology, chosen: Int[np.ndarray, "chosen"], vertices: int, levels: int) -> Refinement:
    """The chosen triangles of a mesh of so many vertices cut into four, `levels` times.

    Where refined and kept triangles meet, nothing may move, or a crack opens.
    """
    fine = topology.triangles[chosen].astype(np.int64)
    mirror = np.arange(vertices) if topology.mirror is None else np.asarray(topology.mirror, dtype=np.int64)
    weights: csr_array = eye_array(vertices, format="csr")
    cuts: list[Int[np.ndarray, "new 2"]] = []
    for _ in range(levels):
        fine, middles = quarter(fine, len(mirror))
        half = 0.5 * (weights[middles[:, 0]] + weights[middles[:, 1]])
        weights = vstack([weights, half], format="csr")
        mirror = np.concatenate([mirror, _mirrored(middles, mirror)])
        cuts.append(middles)
    left = np.ones(len(topology.triangles), dtype=bool)
    left[chosen] = False
    return Refinement(weights, fine, topology.triangles[left].astype(np.int64), tuple(cuts), mirror)


def quarter(
    triangles: Int[np.ndarray, "triangles 3"], vertices: int
) -> tuple[Int[np.ndarray, "quarters 3"], Int[np.ndarray, "middles 2"]]:
    """The quarters of all triangles at their first corners, then at the second, the third, and the middle ones;
    and the edge of each new vertex, its lower end first, in ascending order.
    """
    sides = np.sort(np.stack([triangles[:, [1, 2]], triangles[:, [2, 0]], triangles[:, [0, 1]]], 1), axis=2)
    keys, number = np.unique(sides[..., 0] * vertices + sides[..., 1], return_inverse=True)
    opposite = vertices + number.reshape(-1, 3)
    corners = [
        np.stack([triangles[:, k], opposite[:, (k + 2) % 3], opposite[:, (k + 1) % 3]], 1) for k in range(3)
    ]
    return np.concatenate([*corners, opposite]), np.stack([keys // vertices, keys % vertices], 1)


def _mirrored(
    middles: Int[np.ndarray, "new 2"], mirror: Int[np.ndarray, "vertices"]
) -> Int[np.ndarray, "new"]:
    """For each new vertex the one on the mirrored edge, itself where that edge is not there."""
    count = len(mirror)
    keys = middles[:, 0] * count + middles[:, 1]
    across = np.sort(mirror[middles], axis=1)
    wanted = across[:, 0] * count + across[:, 1]
    at = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
    return count + np.where(keys[at] == wanted, at, np.arange(len(keys)))


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    unit: Float[np.ndarray, "n 3"] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return unit


@lru_cache(maxsize=4)
def face_refinement(model: LinearFaceModel, levels: int) -> Refinement:
    """The model's face region refined. Kept for the model's next fits."""
    return refine(model.topology, face_triangles(model.topology, model.n_vertices), model.n_vertices, levels)
