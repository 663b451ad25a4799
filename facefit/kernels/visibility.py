"""Which surface samples a camera sees."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32


@numba.njit(cache=True, nogil=True, error_model="numpy")
def pose_kernel(
    vertices: Float32[np.ndarray, "vertices 3"],
    rotation: Float64[np.ndarray, "3 3"],
    translation: Float64[np.ndarray, "3"],
    focal: float,
    centre: Float64[np.ndarray, "2"],
    camera_points: Float64[np.ndarray, "vertices 3"],
    pixels: Float64[np.ndarray, "vertices 2"],
    inverse_depth: Float64[np.ndarray, "vertices"],
) -> None:
    """Vertices in camera axes, their pixels, and 1/z (0 at or behind the camera)."""
    for i in range(len(vertices)):
        p0, p1, p2 = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        x = rotation[0, 0] * p0 + rotation[0, 1] * p1 + rotation[0, 2] * p2 + translation[0]
        y = rotation[1, 0] * p0 + rotation[1, 1] * p1 + rotation[1, 2] * p2 + translation[1]
        z = rotation[2, 0] * p0 + rotation[2, 1] * p1 + rotation[2, 2] * p2 + translation[2]
        camera_points[i, 0], camera_points[i, 1], camera_points[i, 2] = x, y, z
        w = 1.0 / z
        pixels[i, 0] = focal * x * w + centre[0]
        pixels[i, 1] = focal * y * w + centre[1]
        inverse_depth[i] = w if z > 1e-6 else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def seen_kernel(
    camera_points: Float64[np.ndarray, "vertices 3"],
    corner: Int32[np.ndarray, "samples 3"],
    barycentric: Float64[np.ndarray, "samples 3"],
    focal: float,
    centre: Float64[np.ndarray, "2"],
    nearest: Float64[np.ndarray, "height width"],
    grazing_cosine: float,
    hidden_mm: float,
    seen: Bool[np.ndarray, "samples"],
    points: Float64[np.ndarray, "samples 3"],
    cosine: Float64[np.ndarray, "samples"],
) -> None:
    """Samples turned to the camera by more than `grazing_cosine`, no more than `hidden_mm` behind the z-buffer.

    `nearest` holds 1/z, 0 where empty. Also each sample's point in camera axes and the cosine between its triangle's
    normal and the line of sight. A sample outside the z-buffer's picture is not seen.
    """
    height, width = nearest.shape
    for k in range(len(corner)):
        a, b, c = camera_points[corner[k, 0]], camera_points[corner[k, 1]], camera_points[corner[k, 2]]
        for q in range(3):
            points[k, q] = barycentric[k, 0] * a[q] + barycentric[k, 1] * b[q] + barycentric[k, 2] * c[q]
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        n0 = (b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1])
        n1 = (b[2] - a[2]) * (c[0] - a[0]) - (b[0] - a[0]) * (c[2] - a[2])
        n2 = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        size = math.sqrt(n0 * n0 + n1 * n1 + n2 * n2) * math.sqrt(x * x + y * y + z * z)
        cosine[k] = -(n0 * x + n1 * y + n2 * z) / max(size, 1e-12)
        column = math.floor(focal * x / z + centre[0])
        row = math.floor(focal * y / z + centre[1])
        # Anything not finite compares false and is out.
        inside = column >= 0 and row >= 0 and column < width and row < height
        seen[k] = False
        if inside and cosine[k] > grazing_cosine and z > 0.0:
            w = nearest[int(row), int(column)]
            seen[k] = w == 0.0 or z <= 1.0 / w + hidden_mm
