"""Which vertex mirrors which, found from the geometry of a symmetric mean face."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree


def mirror_pairs(
    vertices_mm: Float[np.ndarray, "vertices 3"], tolerance_mm: float = 2.0
) -> Int[np.ndarray, "vertices"] | None:
    """mirror[i] = the vertex at (-x, y, z) of vertex i; None where the mesh is not built symmetrically.

    The plane x = c is taken where it brings the mesh closest to its mirror image. The answer is only given
    when it is an involution (the partner of the partner is the vertex itself) for 98 % of the vertices; the
    rest mirror onto themselves, which leaves a symmetry prior silent there instead of wrong.
    """
    middle = 0.5 * (float(vertices_mm[:, 0].min()) + float(vertices_mm[:, 0].max()))
    tree = cKDTree(vertices_mm)
    reflections = [vertices_mm * [-1.0, 1.0, 1.0] + [2.0 * centre, 0.0, 0.0] for centre in (0.0, middle)]
    found = [[np.asarray(part) for part in tree.query(reflected)] for reflected in reflections]
    distance, partner = min(found, key=lambda answer: float(np.median(answer[0])))
    paired = (partner[partner] == np.arange(len(partner))) & (distance < tolerance_mm)
    if paired.mean() < 0.98:
        return None
    return np.where(paired, partner, np.arange(len(partner))).astype(np.int64)
