"""Z-buffer rasterisation of a triangle mesh on the CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32

from facefit.kernels.lanes import LANES, cover


@numba.njit(cache=True, nogil=True, error_model="numpy")
def rasterize_kernel(
    pixels: Float64[np.ndarray, "vertices 2"],
    inverse_depth: Float64[np.ndarray, "vertices"],
    triangles: Int32[np.ndarray, "triangles 3"],
    cull_back: bool,
    nearest: Float64[np.ndarray, "height width"],
    ids: Int32[np.ndarray, "height width"],
) -> None:
    """Fill `nearest` (1/z, 0 where empty) and `ids` (-1 where empty).

    A pixel belongs to a triangle when its centre is inside or on the edge; the nearest wins, at equal depth
    the lower id. All decisions are in float64 by the formula e = a x + (b y + c), which the torch and the
    reference implementations repeat operation by operation, so that ids agree exactly.
    A vertex with inverse_depth <= 0 is behind the camera, and its triangles are dropped.
    """
    height, width = nearest.shape
    # A picture narrower than the lanes is drawn into a wider one.
    across = np.uintp(max(width, LANES))
    narrow = width < LANES
    # Flat and unsigned: numba asks a signed index each time whether it counts from the end.
    near = np.empty(height * LANES) if narrow else nearest.ravel()
    seen = np.empty(height * LANES, dtype=np.int32) if narrow else ids.ravel()
    for cell in range(near.size):
        near[cell] = 0.0
        seen[cell] = -1
    last_column, last_row, last_lanes = width - 1.0, height - 1.0, np.float64(across) - LANES
    for t in range(len(triangles)):
        i, j, k = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
        x0, y0 = pixels[i, 0], pixels[i, 1]
        x1, y1 = pixels[j, 0], pixels[j, 1]
        x2, y2 = pixels[k, 0], pixels[k, 1]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        # y points down, so a triangle that is counter-clockwise seen from the camera has a negative area.
        size = abs(area)
        if not 1e-300 < size < math.inf or (cull_back and area > 0.0):
            continue
        w0, w1, w2 = inverse_depth[i], inverse_depth[j], inverse_depth[k]
        if w0 <= 0.0 or w1 <= 0.0 or w2 <= 0.0:
            continue
        # A pixel centre is at +0.5: the first column whose centre is not left of the triangle.
        left = np.ceil(max(min(x0, x1, x2) - 0.5, 0.0))
        right = np.floor(min(max(x0, x1, x2) - 0.5, last_column))
        top = np.ceil(max(min(y0, y1, y2) - 0.5, 0.0))
        bottom = np.floor(min(max(y0, y1, y2) - 0.5, last_row))
        if not (left <= right and top <= bottom):
            continue
        # Twice the areas opposite each corner. They are not divided by the triangle's own before their signs
        # are read: so the neighbour across an edge computes exactly the negative, and no pixel falls between.
        sign, scale = area / size, 1.0 / size
        a0, b0, c0 = (y1 - y2) * sign, (x2 - x1) * sign, (x1 * y2 - x2 * y1) * sign
        a1, b1, c1 = (y2 - y0) * sign, (x0 - x2) * sign, (x2 * y0 - x0 * y2) * sign
        a2, b2, c2 = (y0 - y1) * sign, (x1 - x0) * sign, (x0 * y1 - x1 * y0) * sign
        slopes, depths, ends = (a0, a1, a2), (w0, w1, w2, scale), (left + 0.5, right + 0.5)
        for row in range(np.uintp(top), np.uintp(bottom) + np.uintp(1)):
            y = np.float64(row) + 0.5
            rows = b0 * y + c0, b1 * y + c1, b2 * y + c2
            column = left
            while column <= right:
                # No lane beyond the row's end; a pixel that is met twice stays as it is.
                at = min(column, last_lanes)
                cover(near, seen, row * across + np.uintp(at), t, at + 0.5, ends, slopes, rows, depths)
                column += LANES
    if narrow:
        for cell in range(height * width):
            row, rest = divmod(cell, width)
            nearest[row, rest], ids[row, rest] = near[row * LANES + rest], seen[row * LANES + rest]


@numba.njit(cache=True, nogil=True)
def _convex(e0: float, e1: float, e2: float) -> tuple[float, float, float]:
    """Three areas of a triangle that holds the pixel's centre, none of a sign of its own."""
    sign = 1.0 if e0 + e1 + e2 > 0.0 else -1.0
    e0, e1, e2 = max(sign * e0, 0.0), max(sign * e1, 0.0), max(sign * e2, 0.0)
    if e0 + e1 + e2 == 0.0:
        return 1.0, 1.0, 1.0
    return e0, e1, e2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def barycentric_kernel(
    pixels: Float64[np.ndarray, "vertices 2"],
    inverse_depth: Float64[np.ndarray, "vertices"],
    triangles: Int32[np.ndarray, "triangles 3"],
    ids: Int32[np.ndarray, "height width"],
    barycentric: Float32[np.ndarray, "height width 3"],
    depth: Float32[np.ndarray, "height width"],
) -> None:
    """Perspective-correct weights and depth of the triangle each pixel sees; zeros and infinity where none.

    Once a pixel rather than once a candidate: the divisions cost more than the rest.
    """
    height, width = ids.shape
    for row in range(height):
        y = row + 0.5
        seen, weights, depths = ids[row], barycentric[row], depth[row]
        for column in range(width):
            t = seen[column]
            if t < 0:
                weights[column, 0] = weights[column, 1] = weights[column, 2] = 0.0
                depths[column] = np.inf
                continue
            # Read anew, though neighbours mostly see the same triangle: asking would be mispredicted every other pixel.
            s = np.uintp(t)
            i, j, k = np.uintp(triangles[s, 0]), np.uintp(triangles[s, 1]), np.uintp(triangles[s, 2])
            w0, w1, w2 = inverse_depth[i], inverse_depth[j], inverse_depth[k]
            x = column + 0.5
            u0, u1, u2 = pixels[i, 0] - x, pixels[j, 0] - x, pixels[k, 0] - x
            y0, y1, y2 = pixels[i, 1] - y, pixels[j, 1] - y, pixels[k, 1] - y
            e0, e1, e2 = u1 * y2 - u2 * y1, u2 * y0 - u0 * y2, u0 * y1 - u1 * y0
            f0, f1, f2 = e0 * w0, e1 * w1, e2 * w2
            total = 1.0 / (f0 + f1 + f2)
            if not min(f0 * total, min(f1 * total, f2 * total)) >= 0.0:
                # On a rim or in a sliver, where an area's sign is rounding alone.
                e0, e1, e2 = _convex(e0, e1, e2)
                f0, f1, f2 = e0 * w0, e1 * w1, e2 * w2
                total = 1.0 / (f0 + f1 + f2)
            weights[column, 0] = f0 * total
            weights[column, 1] = f1 * total
            weights[column, 2] = f2 * total
            depths[column] = (e0 + e1 + e2) * total


@numba.njit(cache=True, nogil=True)
def barycentric_backward_kernel(
    pixels: Float64[np.ndarray, "vertices 2"],
    inverse_depth: Float64[np.ndarray, "vertices"],
    triangles: Int32[np.ndarray, "triangles 3"],
    ids: Int32[np.ndarray, "height width"],
    by_barycentric: Float32[np.ndarray, "height width 3"],
    by_depth: Float32[np.ndarray, "height width"],
    by_pixels: Float64[np.ndarray, "vertices 2"],
    by_z: Float64[np.ndarray, "vertices"],
) -> None:
    """Add to `by_pixels` and `by_z` the derivative of a loss whose derivative by weights and depth is given.

    With e_i twice the area opposite corner i, f_i = e_i / z_i, S = sum f, A = sum e: weight b_i = f_i / S, depth
    d = A / S. For incoming g_i and h, and G = sum g_i b_i: dL/df_i = (g_i - G - h d) / S, dL/de_i = dL/df_i / z_i
    + h / S, dL/dz_i = -dL/df_i e_i / z_i^2; and e_0 = x1 y2 - x2 y1 relative to the pixel, and so on around.
    """
    height, width = ids.shape
    for row in range(height):
        y = row + 0.5
        for column in range(width):
            t = ids[row, column]
            if t < 0:
                continue
            g0, g1, g2 = by_barycentric[row, column]
            h = by_depth[row, column]
            if g0 == 0.0 and g1 == 0.0 and g2 == 0.0 and h == 0.0:
                continue
            x = column + 0.5
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            x0, y0 = pixels[i, 0] - x, pixels[i, 1] - y
            x1, y1 = pixels[j, 0] - x, pixels[j, 1] - y
            x2, y2 = pixels[k, 0] - x, pixels[k, 1] - y
            w0, w1, w2 = inverse_depth[i], inverse_depth[j], inverse_depth[k]
            e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            f0, f1, f2 = e0 * w0, e1 * w1, e2 * w2
            if f0 + f1 + f2 == 0.0:
                continue
            scale = 1.0 / (f0 + f1 + f2)
            common = (g0 * f0 + g1 * f1 + g2 * f2) * scale + h * (e0 + e1 + e2) * scale
            q0, q1, q2 = (g0 - common) * scale, (g1 - common) * scale, (g2 - common) * scale
            by_z[i] -= q0 * f0 * w0
            by_z[j] -= q1 * f1 * w1
            by_z[k] -= q2 * f2 * w2
            p0, p1, p2 = q0 * w0 + h * scale, q1 * w1 + h * scale, q2 * w2 + h * scale
            by_pixels[i, 0] += p2 * y1 - p1 * y2
            by_pixels[i, 1] += p1 * x2 - p2 * x1
            by_pixels[j, 0] += p0 * y2 - p2 * y0
            by_pixels[j, 1] += p2 * x0 - p0 * x2
            by_pixels[k, 0] += p1 * y0 - p0 * y1
            by_pixels[k, 1] += p0 * x1 - p1 * x0
