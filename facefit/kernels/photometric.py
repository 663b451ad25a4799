"""Predicted minus observed colour at surface samples, and its derivative by everything that is fitted."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int64

from facefit.kernels.harmonics import B1, B2, B20, irradiance_row


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


# A sample and channel's derivative in short, from which `expand_kernel` makes a row: by rotation, translation and log
# focal (7), by the nine rows of the sample's geometry (9), by its albedo (1), by this channel's light (9).
FACTORS = 26


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def photometric_kernel(
    geometry: Float32[np.ndarray, "n 9"],
    albedo: Float32[np.ndarray, "n 3"],
    lighting: Float64[np.ndarray, "9 3"],
    rotation: Float64[np.ndarray, "3 3"],
    right_jacobian: Float64[np.ndarray, "3 3"],
    translation: Float64[np.ndarray, "3"],
    focal: float,
    centre: Float64[np.ndarray, "2"],
    scale: float,
    origin: Float64[np.ndarray, "2"],
    image: Float32[np.ndarray, "height width 3"],
    with_factors: bool,
    residual: Float32[np.ndarray, "n 3"],
    factors: Float32[np.ndarray, "n 3 26"],
) -> None:
    """Predicted minus observed red, green, blue of each sample in sRGB; `with_factors` its derivative, too.

    The image is read through a cubic B-spline, so that its gradient is exact and continuous; a sample within two
    texels of the border has zero rows.
    """
    height, width = image.shape[0], image.shape[1]
    wx, wy, sx, sy = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    value, gx, gy = np.empty(3), np.empty(3), np.empty(3)
    sh, dsh = np.empty(9), np.zeros((9, 3))
    dsh[1, 1] = dsh[2, 2] = dsh[3, 0] = B1
    for k in range(len(geometry)):
        residual[k, :] = 0.0
        if with_factors:
            factors[k, :, :] = 0.0
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
            total = by_x = by_y = 0.0
            for i in range(4):
                texels = image[line - 1 + i]
                t0, t1 = texels[column - 1, c], texels[column, c]
                t2, t3 = texels[column + 1, c], texels[column + 2, c]
                along = wx[0] * t0 + wx[1] * t1 + wx[2] * t2 + wx[3] * t3
                total += wy[i] * along
                if with_factors:
                    by_x += wy[i] * (sx[0] * t0 + sx[1] * t1 + sx[2] * t2 + sx[3] * t3)
                    by_y += sy[i] * along
            value[c], gx[c], gy[c] = total, by_x, by_y

        ax, ay, az = geometry[k, 3], geometry[k, 4], geometry[k, 5]
        bx, by, bz = geometry[k, 6], geometry[k, 7], geometry[k, 8]
        mx, my, mz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = math.sqrt(mx * mx + my * my + mz * mz)
        if length < 1e-12:
            continue
        nx, ny, nz = mx / length, my / length, mz / length
        irradiance_row(nx, ny, nz, sh)
        if with_factors:
            dsh[4, 0], dsh[4, 1] = B2 * ny, B2 * nx
            dsh[5, 1], dsh[5, 2] = B2 * nz, B2 * ny
            dsh[6, 2] = 6.0 * B20 * nz
            dsh[7, 0], dsh[7, 2] = B2 * nz, B2 * nx
            dsh[8, 0], dsh[8, 1] = B2 * nx, -B2 * ny
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
            residual[k, c] = predicted - value[c]
            if not with_factors:
                continue
            factor = slope * albedo[k, c]
            target = factors[k, c]
            # The observed colour moves with the projected point; in camera axes, then in the model frame.
            hx, hy = gx[c] * scale, gy[c] * scale
            cx, cy = hx * focal / Z, hy * focal / Z
            cz = -(cx * X + cy * Y) / Z
            gmx = cx * rotation[0, 0] + cy * rotation[1, 0] + cz * rotation[2, 0]
            gmy = cx * rotation[0, 1] + cy * rotation[1, 1] + cz * rotation[2, 1]
            gmz = cx * rotation[0, 2] + cy * rotation[1, 2] + cz * rotation[2, 2]
            tx, ty, tz = gmy * pz - gmz * py, gmz * px - gmx * pz, gmx * py - gmy * px
            for q in range(3):
                target[q] = tx * right_jacobian[0, q] + ty * right_jacobian[1, q] + tz * right_jacobian[2, q]
            target[3], target[4], target[5] = -cx, -cy, -cz
            target[6] = -(hx * (u - centre[0]) + hy * (v - centre[1]))
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
            target[7], target[8], target[9] = -gmx, -gmy, -gmz
            target[10], target[11], target[12] = by * qz - bz * qy, bz * qx - bx * qz, bx * qy - by * qx
            target[13], target[14], target[15] = qy * az - qz * ay, qz * ax - qx * az, qx * ay - qy * ax
            target[16] = slope * light
            for q in range(9):
                target[17 + q] = factor * sh[q]


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def expand_kernel(
    chosen: Int64[np.ndarray, "n"],
    factors: Float32[np.ndarray, "n 3 26"],
    weight: Float32[np.ndarray, "n"],
    geometry_basis: Float32[np.ndarray, "samples 9 shape"],
    albedo_basis: Float32[np.ndarray, "samples 3 modes"],
    with_geometry: bool,
    jacobian: Float32[np.ndarray, "rows unknowns"],
) -> None:
    """Rows 3k..3k+2: by rotation, translation, log focal, shape coefficients, albedo coefficients, light (9 x 3).

    Times the sample's weight. Light has its colour fastest; what comes before albedo is there only `with_geometry`.
    """
    shape, modes = geometry_basis.shape[2], albedo_basis.shape[2]
    at_albedo = 7 + shape if with_geometry else 0
    at_light = at_albedo + modes
    f = np.empty(26, dtype=np.float32)
    for k in range(len(chosen)):
        basis, colours = geometry_basis[chosen[k]], albedo_basis[chosen[k]]
        b0, b1, b2 = basis[0], basis[1], basis[2]
        b3, b4, b5 = basis[3], basis[4], basis[5]
        b6, b7, b8 = basis[6], basis[7], basis[8]
        w = weight[k]
        for c in range(3):
            for q in range(26):
                f[q] = w * factors[k, c, q]
            row = jacobian[3 * k + c]
            if with_geometry:
                for q in range(7):
                    row[q] = f[q]
                f0, f1, f2, f3, f4, f5, f6, f7, f8 = (
                    f[7],
                    f[8],
                    f[9],
                    f[10],
                    f[11],
                    f[12],
                    f[13],
                    f[14],
                    f[15],
                )
                # All nine in one pass, so that the row is written once.
                for j in range(shape):
                    row[7 + j] = (
                        f0 * b0[j] + f1 * b1[j] + f2 * b2[j] + f3 * b3[j] + f4 * b4[j]
                        + f5 * b5[j] + f6 * b6[j] + f7 * b7[j] + f8 * b8[j]
                    )  # fmt: skip
            shade = f[16]
            for j in range(modes):
                row[at_albedo + j] = shade * colours[c, j]
            for q in range(27):
                row[at_light + q] = 0.0
            for q in range(9):
                row[at_light + 3 * q + c] = f[17 + q]


@numba.njit(cache=True, nogil=True, fastmath={"contract"}, inline="always")
def _main_direction(f: np.ndarray, gram: np.ndarray, turn: np.ndarray) -> None:
    """Rows of `turn`: the mix of the channels that moves most with the shape, and two at right angles to it."""
    c = np.zeros((3, 3))
    for a in range(3):
        for q in range(9):
            along = np.float32(0.0)
            for p in range(9):
                along += f[a, 7 + p] * gram[p, q]
            for b in range(3):
                c[a, b] += along * f[b, 7 + q]
    # Squaring a matrix four times leaves of it the direction of its largest eigenvalue.
    for _ in range(4):
        trace = c[0, 0] + c[1, 1] + c[2, 2]
        if trace < 1e-30:
            break
        d = c / trace
        for a in range(3):
            for b in range(3):
                c[a, b] = d[a, 0] * d[0, b] + d[a, 1] * d[1, b] + d[a, 2] * d[2, b]
    best = 0
    for a in range(1, 3):
        if c[a, a] > c[best, best]:
            best = a
    x, y, z = c[best, 0], c[best, 1], c[best, 2]
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-30:
        x, y, z, length = 1.0, 0.0, 0.0, 1.0
    x, y, z = x / length, y / length, z / length
    turn[0, 0], turn[0, 1], turn[0, 2] = x, y, z
    # At right angles: the cross product with the axis it is furthest from, then with both.
    if abs(x) <= abs(y) and abs(x) <= abs(z):
        u, v, w = 0.0, z, -y
    elif abs(y) <= abs(z):
        u, v, w = -z, 0.0, x
    else:
        u, v, w = y, -x, 0.0
    length = math.sqrt(u * u + v * v + w * w)
    u, v, w = u / length, v / length, w / length
    turn[1, 0], turn[1, 1], turn[1, 2] = u, v, w
    turn[2, 0], turn[2, 1], turn[2, 2] = y * w - z * v, z * u - x * w, x * v - y * u


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def turned_rows_kernel(
    chosen: Int64[np.ndarray, "n"],
    factors: Float32[np.ndarray, "n 3 26"],
    weight: Float32[np.ndarray, "n"],
    gram: Float32[np.ndarray, "samples 9 9"],
    geometry_basis: Float32[np.ndarray, "samples 9 shape"],
    albedo_basis: Float32[np.ndarray, "samples 3 modes"],
    first: Float32[np.ndarray, "n unknowns"],
    others: Float32[np.ndarray, "2n unknowns_but_shape"],
) -> None:
    """The rows of `expand_kernel`, each sample's three turned so that the first holds nearly all that shape does.

    A turn of rows leaves J^T J as it is. `others` lacks the shape's columns: what they would hold is some 1 % of the
    shape's part of J^T J. `gram` holds the products of each sample's nine rows of the geometry basis.
    """
    shape, modes = geometry_basis.shape[2], albedo_basis.shape[2]
    f, turn = np.empty((3, 26), dtype=np.float32), np.empty((3, 3))
    g = np.empty(26, dtype=np.float32)
    for k in range(len(chosen)):
        basis, colours = geometry_basis[chosen[k]], albedo_basis[chosen[k]]
        b0, b1, b2 = basis[0], basis[1], basis[2]
        b3, b4, b5 = basis[3], basis[4], basis[5]
        b6, b7, b8 = basis[6], basis[7], basis[8]
        for c in range(3):
            for q in range(26):
                f[c, q] = weight[k] * factors[k, c, q]
        _main_direction(f, gram[chosen[k]], turn)
        for r in range(3):
            t0, t1, t2 = np.float32(turn[r, 0]), np.float32(turn[r, 1]), np.float32(turn[r, 2])
            for q in range(16):
                g[q] = t0 * f[0, q] + t1 * f[1, q] + t2 * f[2, q]
            if r == 0:
                row, at = first[k], 7 + shape
                f0, f1, f2, f3, f4, f5, f6, f7, f8 = (
                    g[7],
                    g[8],
                    g[9],
                    g[10],
                    g[11],
                    g[12],
                    g[13],
                    g[14],
                    g[15],
                )
                for j in range(shape):
                    row[7 + j] = (
                        f0 * b0[j] + f1 * b1[j] + f2 * b2[j] + f3 * b3[j] + f4 * b4[j]
                        + f5 * b5[j] + f6 * b6[j] + f7 * b7[j] + f8 * b8[j]
                    )  # fmt: skip
            else:
                row, at = others[2 * k + r - 1], 7
            for q in range(7):
                row[q] = g[q]
            s0, s1, s2 = t0 * f[0, 16], t1 * f[1, 16], t2 * f[2, 16]
            for j in range(modes):
                row[at + j] = s0 * colours[0, j] + s1 * colours[1, j] + s2 * colours[2, j]
            for q in range(9):
                row[at + modes + 3 * q] = t0 * f[0, 17 + q]
                row[at + modes + 3 * q + 1] = t1 * f[1, 17 + q]
                row[at + modes + 3 * q + 2] = t2 * f[2, 17 + q]


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def gradient_kernel(
    chosen: Int64[np.ndarray, "n"],
    factors: Float32[np.ndarray, "n 3 26"],
    residual: Float32[np.ndarray, "n 3"],
    weight: Float32[np.ndarray, "n"],
    geometry_basis: Float32[np.ndarray, "samples 9 shape"],
    albedo_basis: Float32[np.ndarray, "samples 3 modes"],
    with_geometry: bool,
    gradient: Float64[np.ndarray, "unknowns"],
) -> None:
    """J^T r without J, for whitened J and r (each times `weight`).

    A sample's three channels are added up before its bases are read.
    """
    shape, modes = geometry_basis.shape[2], albedo_basis.shape[2]
    at_albedo = 7 + shape if with_geometry else 0
    at_light = at_albedo + modes
    g = np.empty(16, dtype=np.float32)
    by_shape, by_albedo = np.zeros(shape), np.zeros(modes)
    gradient[:] = 0.0
    for k in range(len(chosen)):
        basis, colours, f = geometry_basis[chosen[k]], albedo_basis[chosen[k]], factors[k]
        w = weight[k] * weight[k]
        r0, r1, r2 = w * residual[k, 0], w * residual[k, 1], w * residual[k, 2]
        if with_geometry:
            for q in range(16):
                g[q] = f[0, q] * r0 + f[1, q] * r1 + f[2, q] * r2
            for q in range(7):
                gradient[q] += g[q]
            g0, g1, g2, g3, g4, g5, g6, g7, g8 = g[7], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]
            for j in range(shape):
                by_shape[j] += (
                    g0 * basis[0, j] + g1 * basis[1, j] + g2 * basis[2, j] + g3 * basis[3, j] + g4 * basis[4, j]
                    + g5 * basis[5, j] + g6 * basis[6, j] + g7 * basis[7, j] + g8 * basis[8, j]
                )  # fmt: skip
        s0, s1, s2 = f[0, 16] * r0, f[1, 16] * r1, f[2, 16] * r2
        for j in range(modes):
            by_albedo[j] += s0 * colours[0, j] + s1 * colours[1, j] + s2 * colours[2, j]
        for q in range(9):
            gradient[at_light + 3 * q] += f[0, 17 + q] * r0
            gradient[at_light + 3 * q + 1] += f[1, 17 + q] * r1
            gradient[at_light + 3 * q + 2] += f[2, 17 + q] * r2
    if with_geometry:
        gradient[7 : 7 + shape] = by_shape
    gradient[at_albedo:at_light] = by_albedo
