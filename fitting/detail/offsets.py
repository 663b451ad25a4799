"""Displacements of a refined surface that explain a photograph's shading: sparse Gauss-Newton with smoothness priors.

After Fan, "3D Human Face Reconstruction From Single Image", whose offsets "almost zero everywhere" came of a pixel loss
alone: here the rows are shading (see `shading.py`), and the priors are his magnitude (equation 8), symmetry (9) and
Laplacian smoothness (10), written as integrals, so that they mean the same on every mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, cg

from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.shading import LEAST_TRUST, ShadingRows, ShadingTerm


@dataclass(frozen=True)
class DisplacementPrior:
    """What is believed of displacements before a photograph is seen.

    `slope` is the standard deviation of their gradient over a square millimetre (0.6: 31 degrees, the walls of a
    wrinkle), `curvature_per_mm` that of their Laplacian: without it shading leaves streaks along the light. What is
    longer than `wavelength_mm` is left to the model's shape: light and pigment vary over such lengths too, and a slope
    misread over centimetres becomes millimetres of height. `symmetry` is how much of the magnitude prior's strength
    also draws the two halves of the face together, where both are free.
    """

    slope: float = 0.6
    curvature_per_mm: float = 0.4
    wavelength_mm: float = 40.0
    symmetry: float = 0.25

    def precision(
        self, terms: Sequence[ShadingTerm], mirror: Int[np.ndarray, "vertices"], free: Int[np.ndarray, "free"]
    ) -> csr_array:
        """The matrix Q of the prior h Q h / 2 on the free vertices, in the metric of the first term's surface."""
        operators = terms[0].surface.operators
        # A wave of length l is damped by half where its height costs as much as what its slope is known by.
        known = 1 / self.slope**2 + sum(sensitivity(term) for term in terms)
        magnitude = (2 * math.pi / self.wavelength_mm) ** 2 * known
        stiffness, mass = operators.stiffness, operators.mass()[free][:, free]
        curved = diags_array(1 / np.sqrt(np.maximum(operators.vertex_area, 1e-12))) @ stiffness[:, free]
        apart = _antisymmetric(mirror, free)
        near = mass + self.symmetry * (apart.T @ mass @ apart)
        # The sparsest first: each sum costs as much as its fuller part.
        total: csr_array = (
            (magnitude * near + stiffness[free][:, free] / self.slope**2)
            + curved.T @ curved / self.curvature_per_mm**2
        ).tocsr()
        return total


@dataclass(frozen=True, eq=False)
class Solution:
    """Displacements in mm, zero where nothing is free, and how the cost fell (by term, before and after)."""

    height: Float[np.ndarray, "vertices"]
    steps: int
    cost_before: dict[str, float]
    cost_after: dict[str, float]


def solve_displacement(
    terms: Sequence[ShadingTerm],
    prior: DisplacementPrior,
    mirror: Int[np.ndarray, "vertices"],
    steps: int = 3,
    start: Float[np.ndarray, "vertices"] | None = None,
) -> Solution:
    """One displacement map for all terms: photographs of one person on the same refinement.

    The matrix is never formed: conjugate gradients ask for its products only, and its diagonal is precondition enough
    since the magnitude prior bounds how far a displacement reaches.
    """
    count = terms[0].surface.operators.n_vertices
    free = free_vertices([term.surface.operators for term in terms], [term.trust for term in terms])
    if not len(free):
        return Solution(np.zeros(count), 0, {}, {})
    problem = _Problem(terms, prior.precision(terms, mirror, free), free, count)
    height = np.zeros(len(free)) if start is None else start[free].astype(np.float64)
    first, began = height, problem.rows(height)
    rows = began
    taken = 0
    for _ in range(steps):
        found = problem.descended(rows, height)
        if found is None:
            break
        height, rows = found
        taken += 1
    # Before and after by one yardstick, the robust weights of the end.
    before = problem.costs(weighed_as(began, rows), first)
    return Solution(problem.spread(height), taken, before, problem.costs(rows, height))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The terms on the free vertices, with the prior's matrix."""

    terms: Sequence[ShadingTerm]
    precision: csr_array
    free: Int[np.ndarray, "free"]
    count: int

    def spread(self, height: Float[np.ndarray, "free"]) -> Float[np.ndarray, "vertices"]:
        whole = np.zeros(self.count)
        whole[self.free] = height
        return whole

    def rows(self, height: Float[np.ndarray, "free"]) -> list[ShadingRows]:
        """Linearised here."""
        return [term.rows(self.spread(height)) for term in self.terms]

    def costs(self, rows: Sequence[ShadingRows], height: Float[np.ndarray, "free"]) -> dict[str, float]:
        shading = sum(0.5 * float(row.weight @ row.residual**2) for row in rows)
        return {"shading": shading, "smoothness": 0.5 * float(height @ (self.precision @ height))}

    def descended(
        self, rows: Sequence[ShadingRows], height: Float[np.ndarray, "free"]
    ) -> tuple[Float[np.ndarray, "free"], list[ShadingRows]] | None:
        """A Gauss-Newton step, or a half or quarter of it, if it lowers the cost under the weights it came from."""
        parts = [(row.jacobian[:, self.free], row.weight) for row in rows]
        gradient = -(self.precision @ height)
        for (jacobian, weight), row in zip(parts, rows, strict=True):
            gradient += jacobian.T @ (weight * row.residual)
        change = conjugate_gradients(parts, self.precision, gradient)
        old = sum(self.costs(rows, height).values())
        for share in (1.0, 0.5, 0.25):
            candidate = height + share * change
            fresh = self.rows(candidate)
            # A NaN compares false: a step into nonsense is refused.
            if sum(self.costs(weighed_as(fresh, rows), candidate).values()) < old:
                return candidate, fresh
        return None


def weighed_as(rows: Sequence[ShadingRows], others: Sequence[ShadingRows]) -> list[ShadingRows]:
    """Rows with the robust weights of others."""
    return [replace(row, weight=other.weight) for row, other in zip(rows, others, strict=True)]


def conjugate_gradients(
    parts: Sequence[tuple[csr_array, Float[np.ndarray, "rows"]]],
    precision: csr_array,
    gradient: Float[np.ndarray, "free"],
    tolerance: float = 1e-2,
    limit: int = 200,
) -> Float[np.ndarray, "free"]:
    """x with (sum J^T W J + Q) x = gradient."""
    transposed = [(j, w, j.T.tocsr()) for j, w in parts]

    def product(x: Float[np.ndarray, "free"]) -> Float[np.ndarray, "free"]:
        total = precision @ x
        for jacobian, weight, back in transposed:
            total = total + back @ (weight * (jacobian @ x))
        return np.asarray(total)

    diagonal = precision.diagonal()
    for jacobian, weight in parts:
        diagonal = diagonal + jacobian.multiply(jacobian).T @ weight
    size = len(gradient)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    inverse = diags_array(1 / np.maximum(diagonal, 1e-12))
    found, _ = cg(operator, gradient, rtol=tolerance, maxiter=limit, M=inverse)
    return np.asarray(found)


def sensitivity(term: ShadingTerm) -> float:
    """Precision of a slope (per mm^2) that one photograph's light gives: the median over what is believed."""
    _, slope = term.log_shading(np.zeros(term.surface.operators.n_vertices))
    sure = term.trust[term.used] > 0.5
    return float(np.median((slope[sure] ** 2).sum(1))) / term.noise**2 if sure.any() else 0.0


def free_vertices(
    operators: Sequence[SurfaceOperators], trust: Sequence[Float[np.ndarray, "triangles"]]
) -> Int[np.ndarray, "free"]:
    """Corners of triangles that some photograph is believed at, without those that also touch a forbidden one.

    The rest stays at zero, and smoothness brings displacements down to that.
    """
    triangles = operators[0].triangles
    believed = np.max(np.stack(list(trust)), axis=0) > LEAST_TRUST
    inside = np.zeros(operators[0].n_vertices, dtype=bool)
    inside[triangles[believed]] = True
    inside[triangles[~believed]] = False
    return np.flatnonzero(inside)


def _antisymmetric(mirror: Int[np.ndarray, "vertices"], free: Int[np.ndarray, "free"]) -> csr_array:
    """(free, free): half the difference between a vertex and the one across, for pairs that are both free."""
    number = np.full(len(mirror), -1)
    number[free] = np.arange(len(free))
    left = np.flatnonzero(number[mirror[free]] >= 0)
    across = number[mirror[free[left]]]
    value = np.repeat([0.5, -0.5], len(left))
    index = (np.tile(left, 2), np.concatenate([left, across]))
    matrix: csr_array = coo_array((value, index), shape=(len(free), len(free))).tocsr()
    return matrix
