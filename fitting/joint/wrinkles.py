"""Detail that animates: displacements of several photographs of one person, split into what stays and what moves.

A photograph's displacement along the normals is taken for d = static + wrinkles . expression. Both are least squares
with priors, vertex by vertex, and have a closed form: as many equations as photographs.

Source: Feng, Feng, Black and Bolkart, "Learning an Animatable Detailed 3D Face Model from In-The-Wild Images" (DECA),
SIGGRAPH 2021: detail of one person is to explain any of their photographs under that photograph's expression (detail
consistency). A network trained on many people learns it there; here it is a linear map of one person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Standard deviation of what stays: moles, scars, the furrows of a face at rest.
STATIC_MM = 0.3
# Skin that is compressed by a tenth is folded by about so many tenths of a millimetre.
FOLD_MM_PER_STRAIN = 4.0
# An offset map errs by about this much where the photograph shows the surface well.
NOISE_MM = 0.1


@dataclass(frozen=True, eq=False)
class AnimatableDetail:
    """Displacements along the normals, mm: `static_mm`, and `wrinkles_mm` per standard deviation of each expression."""

    static_mm: Float[np.ndarray, "vertices"]
    wrinkles_mm: Float[np.ndarray, "expression vertices"]

    def at(self, expression: Float[np.ndarray, "expression"]) -> Float[np.ndarray, "vertices"]:
        """The displacement under an expression (coefficients in standard deviations)."""
        found: Float[np.ndarray, "vertices"] = self.static_mm + expression @ self.wrinkles_mm
        return found


def separate(
    displacements_mm: Float[np.ndarray, "photographs vertices"],
    expressions: Float[np.ndarray, "photographs expression"],
    reach: Float[np.ndarray, "expression vertices"],
    seen: Float[np.ndarray, "photographs vertices"] | None = None,
    noise_mm: float = NOISE_MM,
    static_mm: float = STATIC_MM,
    fold_mm: float = FOLD_MM_PER_STRAIN,
) -> AnimatableDetail:
    """What stays and what moves with expression, the more probable the less either has to be.

    `reach` (see `strain`) says where each expression can fold the skin: a wrinkle there is believed to be
    `fold_mm` times it; where an expression strains nothing, what differs is no wrinkle of it. `seen` (0 to 1) is how
    well a photograph shows a vertex; 0 leaves it out. With y the displacements of one vertex, their covariance is
    C = static^2 11^T + fold^2 (E r)(E r)^T + noise^2 / seen, and static = static^2 1^T C^-1 y, likewise the wrinkles.
    """
    photographs, vertices = displacements_mm.shape
    trusted = np.ones((photographs, vertices)) if seen is None else np.clip(seen, 1e-6, 1)
    scale = (fold_mm * reach) ** 2
    # Pairs of photographs: how alike their wrinkles are believed to be at each vertex.
    alike = np.einsum("ik,jk,kv->vij", expressions, expressions, scale, optimize=True)
    covariance = static_mm**2 + alike
    rows = np.arange(photographs)
    covariance[:, rows, rows] += (noise_mm**2 / trusted).T
    solved = np.linalg.solve(covariance, displacements_mm.T[:, :, None])[:, :, 0]
    return AnimatableDetail(
        static_mm=static_mm**2 * solved.sum(1),
        wrinkles_mm=scale * (expressions.T @ solved.T),
    )


def strain(
    vertices: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    expressions: Float[np.ndarray, "expression vertices 3"],
) -> Float[np.ndarray, "expression vertices"]:
    """How much each expression, at one standard deviation, changes lengths around each vertex, as a share.

    The root mean square over the vertex's edges of their relative change, to first order.
    """
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(sides, axis=1), axis=0)
    along = vertices[edges[:, 1]] - vertices[edges[:, 0]]
    squared = (along**2).sum(1).clip(1e-12)
    count = np.bincount(edges.ravel(), minlength=len(vertices)).clip(1)
    found = np.empty((len(expressions), len(vertices)))
    for k, moves in enumerate(expressions):
        change = ((moves[edges[:, 1]] - moves[edges[:, 0]]) * along).sum(1) / squared
        total = np.bincount(edges.ravel(), np.repeat(change**2, 2), len(vertices))
        found[k] = np.sqrt(total / count)
    return found


def swapped(
    detail: AnimatableDetail,
    displacements_mm: Float[np.ndarray, "photographs vertices"],
    expressions: Float[np.ndarray, "photographs expression"],
    of: int,
    onto: int,
) -> Float[np.ndarray, "vertices"]:
    """Photograph `of`'s detail as it would be under `onto`'s expression: its own map, moved by the wrinkles."""
    moved: Float[np.ndarray, "vertices"] = (
        displacements_mm[of] + (expressions[onto] - expressions[of]) @ detail.wrinkles_mm
    )
    return moved


def inconsistency(
    detail: AnimatableDetail,
    displacements_mm: Float[np.ndarray, "photographs vertices"],
    expressions: Float[np.ndarray, "photographs expression"],
) -> float:
    """DECA's detail consistency as one number: what swapping leaves over what copying leaves, root mean squares.

    0: each photograph's detail explains every other under that one's expression; 1: the wrinkles explain nothing.
    """
    count = len(displacements_mm)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    left = [displacements_mm[j] - swapped(detail, displacements_mm, expressions, i, j) for i, j in pairs]
    copied = [displacements_mm[j] - displacements_mm[i] for i, j in pairs]
    if not pairs:
        return 0.0
    return float(np.linalg.norm(left) / max(float(np.linalg.norm(copied)), 1e-12))
