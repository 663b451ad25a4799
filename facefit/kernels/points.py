"""Rows of a point term: how whitened pixels of surface points move with pose, focal length and shape."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float64


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def project_points_kernel(
    mean: Float64[np.ndarray, "n 3"],
    basis: Float64[np.ndarray, "n 3 shape"],
    coefficients: Float64[np.ndarray, "shape"],
    rotation: Float64[np.ndarray, "3 3"],
    translation: Float64[np.ndarray, "3"],
    focal: float,
    centre: Float64[np.ndarray, "2"],
    nearest: float,
    points: Float64[np.ndarray, "n 3"],
    pixels: Float64[np.ndarray, "n 2"],
) -> None:
    """Points in the model frame and their pixels; NaN for one no further than `nearest` before the camera."""
    for i in range(len(mean)):
        for q in range(3):
            total = 0.0
            for j in range(len(coefficients)):
                total += basis[i, q, j] * coefficients[j]
            points[i, q] = mean[i, q] + total
        p0, p1, p2 = points[i, 0], points[i, 1], points[i, 2]
        x = rotation[0, 0] * p0 + rotation[0, 1] * p1 + rotation[0, 2] * p2 + translation[0]
        y = rotation[1, 0] * p0 + rotation[1, 1] * p1 + rotation[1, 2] * p2 + translation[1]
        z = rotation[2, 0] * p0 + rotation[2, 1] * p1 + rotation[2, 2] * p2 + translation[2]
        ahead = z > nearest
        pixels[i, 0] = focal * x / z + centre[0] if ahead else math.nan
        pixels[i, 1] = focal * y / z + centre[1] if ahead else math.nan


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def point_rows_kernel(
    points: Float64[np.ndarray, "n 3"],
    basis: Float64[np.ndarray, "n 3 shape"],
    rotation: Float64[np.ndarray, "3 3"],
    right_jacobian: Float64[np.ndarray, "3 3"],
    translation: Float64[np.ndarray, "3"],
    focal: float,
    whitening: Float64[np.ndarray, "n rows 2"],
    out: Float64[np.ndarray, "n rows 7_plus_shape"],
) -> None:
    """Columns: rotation vector (3), translation (3), log focal (1), shape coefficients.

    With X = R p + t and R = F exp(w): dX/dw = -R [p]x J_r(w), J_r the right Jacobian of SO(3).
    """
    shape = basis.shape[2]
    for i in range(len(points)):
        p0, p1, p2 = points[i, 0], points[i, 1], points[i, 2]
        x = rotation[0, 0] * p0 + rotation[0, 1] * p1 + rotation[0, 2] * p2 + translation[0]
        y = rotation[1, 0] * p0 + rotation[1, 1] * p1 + rotation[1, 2] * p2 + translation[1]
        z = rotation[2, 0] * p0 + rotation[2, 1] * p1 + rotation[2, 2] * p2 + translation[2]
        u, v, f = focal * x / z, focal * y / z, focal / z
        for r in range(whitening.shape[1]):
            a, b = whitening[i, r, 0], whitening[i, r, 1]
            cx, cy, cz = a * f, b * f, -(a * u + b * v) / z
            # By the point in the model frame.
            m0 = cx * rotation[0, 0] + cy * rotation[1, 0] + cz * rotation[2, 0]
            m1 = cx * rotation[0, 1] + cy * rotation[1, 1] + cz * rotation[2, 1]
            m2 = cx * rotation[0, 2] + cy * rotation[1, 2] + cz * rotation[2, 2]
            # m . (-[p]x d) = (p x m) . d
            t0, t1, t2 = p1 * m2 - p2 * m1, p2 * m0 - p0 * m2, p0 * m1 - p1 * m0
            row = out[i, r]
            for q in range(3):
                row[q] = t0 * right_jacobian[0, q] + t1 * right_jacobian[1, q] + t2 * right_jacobian[2, q]
            row[3], row[4], row[5] = cx, cy, cz
            row[6] = a * u + b * v
            for j in range(shape):
                row[7 + j] = m0 * basis[i, 0, j] + m1 * basis[i, 1, j] + m2 * basis[i, 2, j]
