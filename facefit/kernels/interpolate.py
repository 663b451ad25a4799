"""Vertex attributes at pixels on the CPU, and the derivative of that."""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float32, Int32


@numba.njit(cache=True, nogil=True, inline="always")
def _blend(
    ids: np.ndarray,
    barycentric: np.ndarray,
    attributes: np.ndarray,
    triangles: np.ndarray,
    out: np.ndarray,
    channels: int,
) -> None:
    for row in range(ids.shape[0]):
        seen, weights, blended = ids[row], barycentric[row], out[row]
        for column in range(ids.shape[1]):
            t = seen[column]
            if t < 0:
                for c in range(channels):
                    blended[column, c] = 0.0
                continue
            s = np.uintp(t)
            p, q, r = np.uintp(triangles[s, 0]), np.uintp(triangles[s, 1]), np.uintp(triangles[s, 2])
            b0, b1, b2 = weights[column, 0], weights[column, 1], weights[column, 2]
            for c in range(channels):
                blended[column, c] = b0 * attributes[p, c] + b1 * attributes[q, c] + b2 * attributes[r, c]


@numba.njit(cache=True, nogil=True)
def interpolate_kernel(
    ids: Int32[np.ndarray, "height width"],
    barycentric: Float32[np.ndarray, "height width 3"],
    attributes: Float32[np.ndarray, "vertices channels"],
    triangles: Int32[np.ndarray, "triangles 3"],
    out: Float32[np.ndarray, "height width channels"],
) -> None:
    """Blend the three corners' attributes at each covered pixel; zero elsewhere."""
    channels = attributes.shape[1]
    # A number of channels that the compiler knows takes nearly half the time.
    if channels == 3:
        _blend(ids, barycentric, attributes, triangles, out, 3)
    elif channels == 6:
        _blend(ids, barycentric, attributes, triangles, out, 6)
    else:
        _blend(ids, barycentric, attributes, triangles, out, channels)


@numba.njit(cache=True, nogil=True, inline="always")
def _blend_backward(
    ids: np.ndarray,
    barycentric: np.ndarray,
    attributes: np.ndarray,
    triangles: np.ndarray,
    by_out: np.ndarray,
    by_attributes: np.ndarray,
    by_barycentric: np.ndarray,
    channels: int,
) -> None:
    for row in range(ids.shape[0]):
        seen, weights, by_weights, by_blended = ids[row], barycentric[row], by_barycentric[row], by_out[row]
        for column in range(ids.shape[1]):
            t = seen[column]
            if t < 0:
                by_weights[column, 0] = by_weights[column, 1] = by_weights[column, 2] = 0.0
                continue
            s = np.uintp(t)
            i, j, k = np.uintp(triangles[s, 0]), np.uintp(triangles[s, 1]), np.uintp(triangles[s, 2])
            p, q, r = attributes[i], attributes[j], attributes[k]
            by_p, by_q, by_r = by_attributes[i], by_attributes[j], by_attributes[k]
            b0, b1, b2 = weights[column, 0], weights[column, 1], weights[column, 2]
            s0 = s1 = s2 = np.float32(0.0)
            for c in range(channels):
                g = by_blended[column, c]
                s0 += g * p[c]
                s1 += g * q[c]
                s2 += g * r[c]
                by_p[c] += b0 * g
                by_q[c] += b1 * g
                by_r[c] += b2 * g
            by_weights[column, 0], by_weights[column, 1], by_weights[column, 2] = s0, s1, s2


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
    channels = attributes.shape[1]
    if channels == 3:
        _blend_backward(ids, barycentric, attributes, triangles, by_out, by_attributes, by_barycentric, 3)
    elif channels == 6:
        _blend_backward(ids, barycentric, attributes, triangles, by_out, by_attributes, by_barycentric, 6)
    else:
        _blend_backward(
            ids, barycentric, attributes, triangles, by_out, by_attributes, by_barycentric, channels
        )
