"""Drawn heads: normals and light at vertices, and the pixels of a picture drawn twice as fine."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32


@numba.njit(cache=True, nogil=True, error_model="numpy")
def vertex_normals_kernel(
    vertices: Float32[np.ndarray, "vertices 3"],
    triangles: Int32[np.ndarray, "triangles 3"],
    normals: Float32[np.ndarray, "vertices 3"],
) -> None:
    """`facefit.mesh.vertex_normals`: the area-weighted mean over a vertex's triangles; zero where there is none."""
    normals[:] = 0.0
    for t in range(len(triangles)):
        i, j, k = np.uintp(triangles[t, 0]), np.uintp(triangles[t, 1]), np.uintp(triangles[t, 2])
        a, b, c = vertices[i], vertices[j], vertices[k]
        u0, u1, u2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        v0, v1, v2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        n0, n1, n2 = u1 * v2 - u2 * v1, u2 * v0 - u0 * v2, u0 * v1 - u1 * v0
        for corner in (i, j, k):
            normals[corner, 0] += n0
            normals[corner, 1] += n1
            normals[corner, 2] += n2
    for vertex in range(len(normals)):
        x, y, z = normals[vertex]
        length = max(math.sqrt(x * x + y * y + z * z), np.float32(1e-20))
        normals[vertex, 0], normals[vertex, 1], normals[vertex, 2] = x / length, y / length, z / length


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def lamp_kernel(
    vertices: Float32[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    albedo: Float32[np.ndarray, "3 vertices"],
    seen: Float32[np.ndarray, "vertices"],
    glossy: Float32[np.ndarray, "vertices"],
    exponent: float,
    matt_albedo: float,
    eye: Float64[np.ndarray, "3"],
    direction: Float64[np.ndarray, "3"],
    color: Float64[np.ndarray, "3"],
    light: Float32[np.ndarray, "3 vertices"],
) -> None:
    """Add to `light` what goes towards `eye` of the light of a distant lamp, of which a vertex sees the share `seen`:
    reflected evenly by the albedo, and as gloss by Blinn and Phong's lobe of height `glossy`.

    Gloss fades where the albedo is below `matt_albedo`.
    """
    power = np.float32(exponent)
    for i in range(len(vertices)):
        n0, n1, n2 = normals[i]
        cosine = (n0 * direction[0] + n1 * direction[1] + n2 * direction[2]) * seen[i]
        if not cosine > 0.0:
            continue
        shine = np.float32(0.0)
        if glossy[i] > 0.0:
            x, y, z = eye[0] - vertices[i, 0], eye[1] - vertices[i, 1], eye[2] - vertices[i, 2]
            away = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / away + direction[0], y / away + direction[1], z / away + direction[2]
            lobe = max(n0 * x + n1 * y + n2 * z, 0.0) / math.sqrt(x * x + y * y + z * z)
            shine = glossy[i] * np.float32(lobe) ** power
        for c in range(3):
            own = albedo[c, i]
            light[c, i] += color[c] * (cosine * own + shine * min(own / matt_albedo, 1.0))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def halved_kernel(
    ids: Int32[np.ndarray, "height width"],
    barycentric: Float32[np.ndarray, "height width 3"],
    triangles: Int32[np.ndarray, "triangles 3"],
    attributes: Float32[np.ndarray, "vertices 4"],
    maps: Float32[np.ndarray, "5 half_height half_width"],
) -> None:
    """The mean of every two by two pixels: the attributes blended over triangles, 0 beside them; last, what they
    cover.
    """
    quarter = np.float32(0.25)
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            s0 = s1 = s2 = s3 = covered = np.float32(0.0)
            for r in range(2 * row, 2 * row + 2):
                for c in range(2 * column, 2 * column + 2):
                    t = ids[r, c]
                    if t < 0:
                        continue
                    for corner in range(3):
                        weight, vertex = barycentric[r, c, corner], attributes[triangles[t, corner]]
                        s0 += weight * vertex[0]
                        s1 += weight * vertex[1]
                        s2 += weight * vertex[2]
                        s3 += weight * vertex[3]
                    covered += np.float32(1.0)
            maps[0, row, column], maps[1, row, column] = quarter * s0, quarter * s1
            maps[2, row, column], maps[3, row, column] = quarter * s2, quarter * s3
            maps[4, row, column] = quarter * covered
