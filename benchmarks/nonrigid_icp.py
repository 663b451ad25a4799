"""Optimal-step non-rigid ICP: a mesh deformed onto a surface by one affine map per vertex that varies
smoothly.

Source: Amberg, Romdhani and Vetter, "Optimal Step Nonrigid ICP Algorithms for Surface Registration", CVPR
2007, equations 3-12.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu

from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Points, Surface, lengths

# Of the translation part of a map against its linear part.
GAMMA = 1.0


def deform(
    mesh: SurfaceMesh,
    target: Surface,
    stiffness: Sequence[float],
    *,
    anchors: Int[np.ndarray, "anchors"] | None = None,
    anchor_targets: Points | None = None,
    anchor_weight: float = 50.0,
    outlier_factor: float = 2.0,
    outlier_floor: float = 1.0,
    standstill: float = 1.0,
    most_steps: int = 10,
) -> Points:
    """Vertices of `mesh` brought onto `target`, from stiff to soft.

    Per stiffness the closest points are renewed until the maps stand still. A vertex farther than
    max(outlier_factor x mean distance, outlier_floor) has no say in that step. `anchors` are pulled to their
    own targets whatever the closest points are.
    """
    n = len(mesh.vertices)
    edges = unique_edges(mesh.triangles)
    incidence = _incidence(edges, n)
    weights = sparse.diags([1.0, 1.0, 1.0, GAMMA])
    smooth = sparse.kron(incidence, weights).tocsr()
    smooth_square = (smooth.T @ smooth).tocsc()
    homogeneous = np.column_stack([mesh.vertices, np.ones(n)])
    rows = np.repeat(np.arange(n), 4)
    positions = sparse.csr_matrix((homogeneous.ravel(), (rows, np.arange(4 * n))), shape=(n, 4 * n))
    maps = np.tile(np.vstack([np.eye(3), np.zeros(3)]), (n, 1))
    for alpha in stiffness:
        for _ in range(most_steps):
            moved = positions @ maps
            closest, _ = target.closest(moved)
            distance = lengths(closest - moved)
            trusted = distance <= max(outlier_factor * float(distance.mean()), outlier_floor)
            weighted = sparse.diags(trusted.astype(np.float64)) @ positions
            normal = alpha**2 * smooth_square + weighted.T @ weighted
            right = weighted.T @ (closest * trusted[:, None])
            if anchors is not None and anchor_targets is not None:
                pulled = positions[anchors]
                normal = normal + anchor_weight * pulled.T @ pulled
                right = right + anchor_weight * pulled.T @ anchor_targets
            # A vertex without trusted neighbours would leave the system singular.
            normal = normal + 1e-9 * sparse.identity(4 * n)
            new = splu(normal.tocsc()).solve(right)
            change = float(np.linalg.norm(new - maps))
            maps = new
            if change < standstill:
                break
    return np.asarray(positions @ maps)


def unique_edges(triangles: Int[np.ndarray, "t 3"]) -> Int[np.ndarray, "edges 2"]:
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return np.asarray(np.unique(np.sort(pairs, axis=1), axis=0))


def _incidence(edges: Int[np.ndarray, "edges 2"], n: int) -> sparse.csr_matrix:
    """One row per edge: -1 and 1 at its ends."""
    count = len(edges)
    row = np.repeat(np.arange(count), 2)
    value: Float[np.ndarray, "n"] = np.tile([-1.0, 1.0], count)
    return sparse.csr_matrix((value, (row, edges.ravel())), shape=(count, n))
