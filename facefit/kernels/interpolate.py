"""Vertex attributes at pixels on the CPU, and the derivative of that."""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float32, Int32


@numba.njit(cache=True, nogil=True)
def interpolate_kernel(
    ids: Int32[np.ndarray, "height width"],
    barycentric: Float32[np.ndarray, "height width 3"],
    attributes: Float32[np.ndarray, "vertices channels"],
    triangles: Int32[np.ndarray, "triangles 3"],
    out: Float32[np.ndarray, "height width channels"],
) -> None:
    """Blend the three corners' attributes at each covered pixel; zero elsewhere."""
    height, width = ids.shape
    channels = attributes.shape[1]
    for row in range(height):
        for column in range(width):
            t = ids[row, column]
            if t < 0:
                out[row, column, :] = 0.0
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            b0, b1, b2 = barycentric[row, column]
            for c in range(channels):
                out[row, column, c] = b0 * attributes[i, c] + b1 * attributes[j, c] + b2 * attributes[k, c]


@numba.njit(cache=True, nogil=True)
def interpolate_backward_kernel(
    ids: Int32[np.ndarray, "height width"],
    barycentric: Float32[np.ndarray, "height width 3"],
    attributes: Float32[np.ndarray, "vertices channels"],
    triangles: Int32[np.ndarray, "triangles 3"],
    by_out: Float32[np.ndarray, "height width channels"],
    by_attributes: Float32[np.ndarray, "vertices channels"],
    by_barycentric: Float32[np.ndarray, "height width 3"],
) -> None:
    """Add to `by_attributes` and fill `by_barycentric` from the derivative by the interpolated values."""
    height, width = ids.shape
    channels = attributes.shape[1]
    for row in range(height):
        for column in range(width):
            t = ids[row, column]
            if t < 0:
                by_barycentric[row, column, :] = 0.0
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            b0, b1, b2 = barycentric[row, column]
            s0 = s1 = s2 = np.float32(0.0)
            for c in range(channels):
                g = by_out[row, column, c]
                s0 += g * attributes[i, c]
                s1 += g * attributes[j, c]
                s2 += g * attributes[k, c]
                by_attributes[i, c] += b0 * g
                by_attributes[j, c] += b1 * g
                by_attributes[k, c] += b2 * g
            by_barycentric[row, column, 0] = s0
            by_barycentric[row, column, 1] = s1
            by_barycentric[row, column, 2] = s2
