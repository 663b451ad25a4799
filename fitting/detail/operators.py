"""Sparse operators on a triangle mesh: gradients, areas, mean values, the stiffness behind Laplacian smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array, diags_array


@dataclass(frozen=True, eq=False)
class SurfaceOperators:
    """Of one surface in mm. Functions on it have one value a vertex and are linear inside a triangle.

    `hats[t, k]` is the gradient (1/mm, in the triangle's plane) of the function that is 1 at corner k and 0 at the
    other two. `area` is per triangle, `vertex_area` a third of those around a vertex, mm^2.
    """

    triangles: Int[np.ndarray, "triangles 3"]
    hats: Float[np.ndarray, "triangles 3 3"]
    area: Float[np.ndarray, "triangles"]
    vertex_area: Float[np.ndarray, "vertices"]

    @staticmethod
    def of(
        points: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
    ) -> SurfaceOperators:
        # Components first: long rows of numbers are several times faster than many short vectors.
        along = np.ascontiguousarray(points.T, dtype=np.float64)
        a, b, c = (along[:, triangles[:, k]] for k in range(3))
        normal = cross(b - a, c - a)
        squared = (normal**2).sum(0)
        # A triangle without area has no gradient: it says nothing, rather than everything.
        scaled = normal * np.where(squared > 1e-12, 1 / np.maximum(squared, 1e-12), 0.0)
        # A hat rises across the opposite side: normal x side / |normal|^2. The three hats add up to 1.
        second, third = cross(scaled, a - c), cross(scaled, b - a)
        hats = np.empty((len(triangles), 3, 3))
        hats[:, 0], hats[:, 1], hats[:, 2] = -(second + third).T, second.T, third.T
        area = 0.5 * np.sqrt(squared)
        shared = np.bincount(triangles.ravel(), np.repeat(area / 3, 3), minlength=len(points))
        return SurfaceOperators(triangles, hats, area, shared)

    @property
    def n_vertices(self) -> int:
        return len(self.vertex_area)

    def gradient(
        self, values: Float[np.ndarray, "vertices"], chosen: Int[np.ndarray, "chosen"] | slice = slice(None)
    ) -> Float[np.ndarray, "chosen 3"]:
        """Of a function, per triangle."""
        return np.asarray(np.einsum("tk,tkx->tx", values[self.triangles[chosen]], self.hats[chosen]))

    def rows(
        self,
        corner_values: Float[np.ndarray, "chosen 3"],
        chosen: Int[np.ndarray, "chosen"] | slice = slice(None),
    ) -> csr_array:
        """The sparse matrix (chosen triangles, vertices) that weights the corners of each triangle."""
        corners = self.triangles[chosen]
        start = np.arange(0, 3 * len(corners) + 1, 3)
        return csr_array(
            (corner_values.ravel(), corners.ravel(), start), shape=(len(corners), self.n_vertices)
        )

    @cached_property
    def thirds(self) -> csr_array:
        """(triangles, vertices): the mean of a triangle's corners."""
        return self.rows(np.full((len(self.triangles), 3), 1 / 3))

    @cached_property
    def stiffness(self) -> csr_array:
        """S with h S h = the integral of |grad h|^2: membrane smoothing, the cotangent Laplacian.

        It is Fan's equations 10 and 11 (sums of squared differences along edges) without their dependence on
        how finely the mesh is cut.
        """
        corner, count = self.triangles, self.n_vertices
        pairs = [(0, 1), (1, 2), (2, 0)]
        value = np.stack([(self.hats[:, a] * self.hats[:, b]).sum(1) * self.area for a, b in pairs])
        start, end = (np.stack([corner[:, pair[k]] for pair in pairs]) for k in (0, 1))
        # The three gradients of a triangle add up to zero, so each row of the matrix does, too.
        off = coo_array((value.ravel(), (start.ravel(), end.ravel())), shape=(count, count)).tocsr()
        off = off + off.T
        matrix: csr_array = (off - diags_array(off.sum(1))).tocsr()
        return matrix

    def mass(self, weight: Float[np.ndarray, "vertices"] | float = 1.0) -> csr_array:
        """M with h M h = the integral of weight h^2."""
        matrix: csr_array = diags_array(weight * self.vertex_area).tocsr()
        return matrix

    def at_triangles(
        self, values: Float[np.ndarray, "vertices *rest"]
    ) -> Float[np.ndarray, "triangles *rest"]:
        """Means over the corners."""
        a, b, c = self.triangles.T
        mean: Float[np.ndarray, "triangles *rest"] = (values[a] + values[b] + values[c]) / 3
        return mean

    def at_vertices(
        self, values: Float[np.ndarray, "triangles *rest"]
    ) -> Float[np.ndarray, "vertices *rest"]:
        """Means over the triangles around a vertex, by area; zero at a vertex of none."""
        weighed = values.reshape(len(values), -1) * self.area[:, None]
        mean = np.asarray(self.thirds.T @ weighed) / np.maximum(self.vertex_area, 1e-12)[:, None]
        return np.asarray(mean.reshape(self.n_vertices, *values.shape[1:]))


def cross(a: Float[np.ndarray, "3 n"], b: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "3 n"]:
    """Cross products of columns."""
    product: Float[np.ndarray, "3 n"] = np.empty_like(a)
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        product[k] = a[i] * b[j] - a[j] * b[i]
    return product
