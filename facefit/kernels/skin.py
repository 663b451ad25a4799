"""What a posed head should look like at each texel, for the search for what hides it."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from facefit.kernels.harmonics import irradiance_row


@numba.njit(cache=True, nogil=True, error_model="numpy")
def head_kernel(
    ids: Int32[np.ndarray, "height width"],
    triangles: Int32[np.ndarray, "triangles 3"],
    camera_points: Float64[np.ndarray, "vertices 3"],
    rotation: Float64[np.ndarray, "3 3"],
    cell: Int64[np.ndarray, "texels"],
    triangle: Int32[np.ndarray, "texels"],
    basis: Float32[np.ndarray, "texels 9"],
    cosine: Float32[np.ndarray, "texels"],
) -> int:
    """The covered texels in order: place, triangle, `irradiance_basis` of its normal, cosine to the line of sight.

    `rotation` is camera from model. Returns how many there are and fills that many rows.
    """
    count = 0
    seen = ids.ravel()
    for place in range(seen.size):
        t = seen[place]
        if t < 0:
            continue
        a = camera_points[triangles[t, 0]]
        b = camera_points[triangles[t, 1]]
        c = camera_points[triangles[t, 2]]
        u0, u1, u2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        v0, v1, v2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        n0, n1, n2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
        length = max(math.sqrt(n0 * n0 + n1 * n1 + n2 * n2), 1e-12)
        n0, n1, n2 = n0 / length, n1 / length, n2 / length
        sight = max(math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]), 1e-12)
        x = rotation[0, 0] * n0 + rotation[1, 0] * n1 + rotation[2, 0] * n2
        y = rotation[0, 1] * n0 + rotation[1, 1] * n1 + rotation[2, 1] * n2
        z = rotation[0, 2] * n0 + rotation[1, 2] * n1 + rotation[2, 2] * n2
        irradiance_row(x, y, z, basis[count])
        cosine[count] = -(n0 * a[0] + n1 * a[1] + n2 * a[2]) / sight
        cell[count], triangle[count] = place, t
        count += 1
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def skin_kernel(
    basis: Float32[np.ndarray, "n 9"],
    albedo: Float32[np.ndarray, "n 3"],
    observed: Float32[np.ndarray, "n 3"],
    light: Float32[np.ndarray, "9 3"],
    along: Float32[np.ndarray, "n"],
    across: Float32[np.ndarray, "n"],
    slope: Float32[np.ndarray, "n 3"],
    difference: Float32[np.ndarray, "n 3"],
) -> None:
    """Observed minus skin-coloured sRGB under a light, along skin's own colour and across it.

    `slope` is the derivative of a colour by its irradiance. Colour goes straight on above 1; dark ends do not matter.
    """
    exponent, least = np.float32(1 / 2.4), np.float32(1e-4)
    gain, foot, steep = np.float32(1.055), np.float32(0.055), np.float32(1.055 / 2.4)
    one, inverse = np.float32(1.0), np.float32(1 / 2.4)
    for k in range(len(basis)):
        length = dot = whole = np.float32(0.0)
        for c in range(3):
            total = np.float32(0.0)
            for q in range(9):
                total += basis[k, q] * light[q, c]
            linear = max(albedo[k, c] * total, least)
            if linear > one:
                skin, by_linear = one + (linear - one) * steep, steep
            else:
                power = gain * linear**exponent
                skin, by_linear = power - foot, power / linear * inverse
            apart = observed[k, c] - skin
            slope[k, c] = by_linear * albedo[k, c]
            difference[k, c] = apart
            length += skin * skin
            dot += apart * skin
            whole += apart * apart
        on = dot / max(math.sqrt(length), 1e-6)
        off = whole - on * on
        along[k] = on
        across[k] = math.sqrt(off) if off > 0.0 else 0.0
