"""Where a surface turns away from the camera."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float64, Int64


@numba.njit(cache=True, nogil=True, error_model="numpy")
def rim_kernel(
    points: Float64[np.ndarray, "points 3"],
    corner: Int64[np.ndarray, "triangles 3"],
    focal: float,
    normals: Float64[np.ndarray, "points 3"],
    facing: Float64[np.ndarray, "points"],
    triangle: Int64[np.ndarray, "triangles"],
    barycentric: Float64[np.ndarray, "triangles 3"],
    pixels: Float64[np.ndarray, "triangles 2"],
    across: Float64[np.ndarray, "triangles 2"],
) -> int:
    """Triangles (by place in `corner`) whose corners face both ways, and where on each the surface is seen edge-on.

    `points` are in camera axes, pixels relative to the principal point, `across` the image of the normal there, of
    length 1. Returns how many were found and fills that many rows; `normals` and `facing` are room to work in.
    """
    normals[:] = 0.0
    for t in range(len(corner)):
        i, j, k = corner[t]
        a, b, c = points[i], points[j], points[k]
        n0 = (b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1])
        n1 = (b[2] - a[2]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[2] - a[2])
        n2 = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        for v in (i, j, k):
            normals[v, 0] += n0
            normals[v, 1] += n1
            normals[v, 2] += n2
    for v in range(len(points)):
        facing[v] = -(
            normals[v, 0] * points[v, 0] + normals[v, 1] * points[v, 1] + normals[v, 2] * points[v, 2]
        )
    count = 0
    for t in range(len(corner)):
        i, j, k = corner[t]
        f0, f1, f2 = facing[i], facing[j], facing[k]
        ahead = int(f0 > 0.0) + int(f1 > 0.0) + int(f2 > 0.0)
        if ahead == 0 or ahead == 3:
            continue
        # Two edges of such a triangle change sign; the point is midway between their zero crossings.
        lone = ahead == 1
        odd = 0 if (f0 > 0.0) == lone else (1 if (f1 > 0.0) == lone else 2)
        weights = barycentric[count]
        weights[:] = 0.0
        for step in (1, 2):
            other = (odd + step) % 3
            f, g = facing[corner[t, odd]], facing[corner[t, other]]
            share = f / (f - g)
            weights[odd] += (1.0 - share) / 2.0
            weights[other] += share / 2.0
        x = y = z = u = v = 0.0
        for q in range(3):
            w, p = weights[q], corner[t, q]
            x += w * points[p, 0]
            y += w * points[p, 1]
            z += w * points[p, 2]
            u += w * normals[p, 0]
            v += w * normals[p, 1]
        length = math.sqrt(u * u + v * v)
        # Anything not finite compares false and is left out.
        if not (z > 0.0 and length > 0.0 and length < math.inf and abs(x) < math.inf and abs(y) < math.inf):
            continue
        triangle[count] = t
        pixels[count, 0], pixels[count, 1] = focal * x / z, focal * y / z
        across[count, 0], across[count, 1] = u / length, v / length
        count += 1
    return count
