"""Predicted minus observed colour at surface samples, and its derivative by everything that is fitted."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int64

_C0 = 0.5 / math.sqrt(math.pi)
_B1 = 2 / 3 * math.sqrt(3 / (4 * math.pi))
_B2 = 1 / 4 * 0.5 * math.sqrt(15 / math.pi)
_B20 = 1 / 4 * 0.25 * math.sqrt(5 / math.pi)


@numba.njit(cache=True, nogil=True, inline="always")
def _spline(fraction: float, weight: np.ndarray, slope: np.ndarray) -> None:
    """Cubic B-spline weights of the four texels around a point, and their derivatives."""
    t = fraction
    s = 1.0 - t
    weight[0] = s * s * s / 6.0
    weight[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weight[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    weight[3] = t * t * t / 6.0
    slope[0] = -0.5 * s * s
    slope[1] = 1.5 * t * t - 2.0 * t
    slope[2] = -1.5 * s * s + 2.0 * s
    slope[3] = 0.5 * t * t


# Sums may be reordered here (still the same bits on one machine): only then are they vectorised, 8 times faster.
@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def sample_geometry(
    chosen: Int64[np.ndarray, "n"],
    mean: Float32[np.ndarray, "samples 9"],
    basis: Float32[np.ndarray, "samples 9 shape"],
    coefficients: Float32[np.ndarray, "shape"],
    out: Float32[np.ndarray, "n rows"],
) -> None:
    """Rows `mean + basis . coefficients` of the chosen samples (also used for albedo with three rows)."""
    for k in range(len(chosen)):
        s = chosen[k]
        for row in range(mean.shape[1]):
            total = np.float32(0.0)
            for j in range(len(coefficients)):
                total += basis[s, row, j] * coefficients[j]
            out[k, row] = mean[s, row] + total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def photometric_kernel(
    chosen: Int64[np.ndarray, "n"],
    geometry: Float32[np.ndarray, "n 9"],
    albedo: Float32[np.ndarray, "n 3"],
    geometry_basis: Float32[np.ndarray, "samples 9 shape"],
    albedo_basis: Float32[np.ndarray, "samples 3 modes"],
    lighting: Float64[np.ndarray, "9 3"],
    rotation: Float64[np.ndarray, "3 3"],
    right_jacobian: Float64[np.ndarray, "3 3"],
    translation: Float64[np.ndarray, "3"],
    focal: float,
    centre: Float64[np.ndarray, "2"],
    scale: float,
    origin: Float64[np.ndarray, "2"],
    image: Float32[np.ndarray, "height width 3"],
    weight: Float32[np.ndarray, "n"],
    with_jacobian: bool,
    with_geometry: bool,
    residual: Float32[np.ndarray, "rows"],
    jacobian: Float32[np.ndarray, "rows unknowns"],
) -> None:
    """Rows 3k..3k+2 are the red, green, blue residual of chosen sample k in sRGB, times weight[k].

    Unknowns in order: rotation vector (3), translation (3), log focal (1), shape coefficients, albedo
    coefficients, lighting (9 x 3, colour fastest); those before albedo only `with_geometry`. The image is read
    through a cubic B-spline, so that its gradient is exact and continuous; a sample within two texels of the
    border, or with weight 0, has zero rows.
    """
    height, width = image.shape[0], image.shape[1]
    shape, modes = geometry_basis.shape[2], albedo_basis.shape[2]
    at_albedo = 7 + shape if with_geometry else 0
    at_light = at_albedo + modes
    wx, wy, sx, sy = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    value, gx, gy = np.empty(3), np.empty(3), np.empty(3)
    sh, dsh = np.empty(9), np.empty((9, 3))
    row9 = np.empty((3, 9), dtype=np.float32)
    for k in range(len(chosen)):
        r0 = 3 * k
        for c in range(3):
            residual[r0 + c] = 0.0
        if with_jacobian:
            jacobian[r0 : r0 + 3, :] = 0.0
        w = weight[k]
        if w == 0.0:
            continue
        px, py, pz = geometry[k, 0], geometry[k, 1], geometry[k, 2]
        X = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz + translation[0]
        Y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz + translation[1]
        Z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz + translation[2]
        if not Z > 1.0:
            continue
        u = focal * X / Z + centre[0]
        v = focal * Y / Z + centre[1]
        # Texel (i, j) of the level has its centre at +0.5, too.
        x, y = (u - origin[0]) * scale - 0.5, (v - origin[1]) * scale - 0.5
        if not (x >= 1.0 and y >= 1.0 and x < width - 2.0 and y < height - 2.0):
            continue
        column, line = int(x), int(y)
        _spline(x - column, wx, sx)
        _spline(y - line, wy, sy)
        for c in range(3):
            value[c] = gx[c] = gy[c] = 0.0
        for i in range(4):
            for j in range(4):
                for c in range(3):
                    texel = image[line - 1 + i, column - 1 + j, c]
                    value[c] += wy[i] * wx[j] * texel
                    gx[c] += wy[i] * sx[j] * texel
                    gy[c] += sy[i] * wx[j] * texel

        ax, ay, az = geometry[k, 3], geometry[k, 4], geometry[k, 5]
        bx, by, bz = geometry[k, 6], geometry[k, 7], geometry[k, 8]
        mx, my, mz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = math.sqrt(mx * mx + my * my + mz * mz)
        if length < 1e-12:
            continue
        nx, ny, nz = mx / length, my / length, mz / length
        sh[0] = _C0
        sh[1], sh[2], sh[3] = _B1 * ny, _B1 * nz, _B1 * nx
        sh[4], sh[5], sh[7] = _B2 * nx * ny, _B2 * ny * nz, _B2 * nx * nz
        sh[6] = _B20 * (3.0 * nz * nz - 1.0)
        sh[8] = 0.5 * _B2 * (nx * nx - ny * ny)
        if with_jacobian:
            dsh[:] = 0.0
            dsh[1, 1] = dsh[2, 2] = dsh[3, 0] = _B1
            dsh[4, 0], dsh[4, 1] = _B2 * ny, _B2 * nx
            dsh[5, 1], dsh[5, 2] = _B2 * nz, _B2 * ny
            dsh[6, 2] = 6.0 * _B20 * nz
            dsh[7, 0], dsh[7, 2] = _B2 * nz, _B2 * nx
            dsh[8, 0], dsh[8, 1] = _B2 * nx, -_B2 * ny
        s = chosen[k]
        for c in range(3):
            light = 0.0
            for q in range(9):
                light += lighting[q, c] * sh[q]
            linear = albedo[k, c] * light
            if linear <= 0.0031308:
                predicted, slope = 12.92 * linear, 12.92
            elif linear > 1.0:
                predicted, slope = 1.0 + (linear - 1.0) * (1.055 / 2.4), 1.055 / 2.4
            else:
                predicted = 1.055 * linear ** (1 / 2.4) - 0.055
                slope = (predicted + 0.055) / linear / 2.4
            residual[r0 + c] = w * (predicted - value[c])
            if not with_jacobian:
                continue
            factor = w * slope * albedo[k, c]
            shade = np.float32(w * slope * light)
            target = jacobian[r0 + c]
            modes_row = albedo_basis[s, c]
            for j in range(modes):
                target[at_albedo + j] = shade * modes_row[j]
            for q in range(9):
                target[at_light + 3 * q + c] = factor * sh[q]
            if not with_geometry:
                continue
            # The observed colour moves with the projected point; in camera axes, then in the model frame.
            hx, hy = w * gx[c] * scale, w * gy[c] * scale
            cx, cy = hx * focal / Z, hy * focal / Z
            cz = -(cx * X + cy * Y) / Z
            gmx = cx * rotation[0, 0] + cy * rotation[1, 0] + cz * rotation[2, 0]
            gmy = cx * rotation[0, 1] + cy * rotation[1, 1] + cz * rotation[2, 1]
            gmz = cx * rotation[0, 2] + cy * rotation[1, 2] + cz * rotation[2, 2]
            tx, ty, tz = gmy * pz - gmz * py, gmz * px - gmx * pz, gmx * py - gmy * px
            for q in range(3):
                jacobian[r0 + c, q] = (
                    tx * right_jacobian[0, q] + ty * right_jacobian[1, q] + tz * right_jacobian[2, q]
                )
            jacobian[r0 + c, 3] = -cx
            jacobian[r0 + c, 4] = -cy
            jacobian[r0 + c, 5] = -cz
            jacobian[r0 + c, 6] = -(hx * (u - centre[0]) + hy * (v - centre[1]))
            # The predicted colour moves with the normal n = m / |m|, m = a x b:
            # q . dn = da . (b x q) + db . (q x a), with q the part of the light's gradient across n, over |m|.
            dx = dy = dz = 0.0
            for q in range(1, 9):
                dx += lighting[q, c] * dsh[q, 0]
                dy += lighting[q, c] * dsh[q, 1]
                dz += lighting[q, c] * dsh[q, 2]
            along = dx * nx + dy * ny + dz * nz
            qx = factor * (dx - along * nx) / length
            qy = factor * (dy - along * ny) / length
            qz = factor * (dz - along * nz) / length
            row9[c, 0], row9[c, 1], row9[c, 2] = -gmx, -gmy, -gmz
            row9[c, 3], row9[c, 4], row9[c, 5] = by * qz - bz * qy, bz * qx - bx * qz, bx * qy - by * qx
            row9[c, 6], row9[c, 7], row9[c, 8] = qy * az - qz * ay, qz * ax - qx * az, qx * ay - qy * ax
        if with_jacobian and with_geometry:
            # All three channels in one pass, so that the basis, which is what takes time, is read once.
            red, green, blue = jacobian[r0], jacobian[r0 + 1], jacobian[r0 + 2]
            for q in range(9):
                source = geometry_basis[s, q]
                r, g, b = row9[0, q], row9[1, q], row9[2, q]
                for j in range(shape):
                    red[7 + j] += r * source[j]
                    green[7 + j] += g * source[j]
                    blue[7 + j] += b * source[j]
