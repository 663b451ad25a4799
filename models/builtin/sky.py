"""How much of the sky each point of the head sees: the shade that lies in its hollows under any light.

The renderer knows no shadow, so what every photograph has in common of them (eye sockets, the wings of the
nose, under lip and chin) belongs to the colour of the skin.
"""

import numpy as np

from facefit.kernels.rasterize import rasterize_kernel
from facefit.models.builtin.halfmesh import Ints
from facefit.models.builtin.plane import Array

DIRECTIONS = 500
PIXEL_MM = 0.5
# An overcast sky is three times as bright above as at the horizon (Moon and Spencer 1942); what comes from below
# has met the ground (its reflectance is ours).
GROUND = 0.3
# A point is looked at from a little outside, so that its own triangles do not hide it.
LIFT_MM = 0.7


def sky_view(
    points: Array,
    triangles: Ints,
    normals: Array,
    count: int,
    directions: int = DIRECTIONS,
    pixel_mm: float = PIXEL_MM,
) -> Array:
    """Share of an overcast sky's light that reaches the first `count` vertices past the rest of the head."""
    lifted = points[:count] + LIFT_MM * normals[:count]
    seen, possible = np.zeros(count), np.zeros(count)
    corners = triangles.astype(np.int32)
    reach = np.linalg.norm(points, axis=1).max() + 2.0
    size = int(np.ceil(2.0 * reach / pixel_mm))
    highest, ids = np.empty((size, size)), np.empty((size, size), dtype=np.int32)
    for way in _directions(directions):
        across = np.cross(way, [1.0, 0.0, 0.0] if abs(way[0]) < 0.7 else [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        screen = np.stack([across, np.cross(way, across)], axis=1)
        pixels = (points @ screen + reach) / pixel_mm
        # Seen from afar, height towards the viewer is linear in the picture, as 1/z is from nearby.
        rasterize_kernel(pixels, points @ way + reach, corners, False, highest, ids)
        column, row = ((lifted @ screen + reach) / pixel_mm).astype(np.int64).T
        free = lifted @ way + reach > highest[row, column]
        bright = (1.0 + 2.0 * way[1]) / 3.0 if way[1] > 0.0 else GROUND
        slant = bright * np.maximum(normals[:count] @ way, 0.0)
        seen += slant * free
        possible += slant
    return np.asarray(seen / possible)


def tinted(sky: Array, albedo: Array) -> Array:
    """Shade per channel, light that the hollow throws back upon itself included: bright skin fills its hollows.

    Source: Jimenez, Wu, Pesce and Jarabo, "Practical Real-Time Strategies for Accurate Indirect Occlusion"
    (SIGGRAPH courses 2016), their fit of a cubic in the visible share.
    """
    a, b, c = 2.0404 * albedo - 0.3324, -4.7951 * albedo + 0.6417, 2.7552 * albedo + 0.6903
    v = sky[:, None]
    return np.maximum(v, ((v * a + b) * v + c) * v)


def _directions(count: int) -> Array:
    """Evenly over the sphere, on a spiral."""
    index = np.arange(count) + 0.5
    height, turn = 1.0 - 2.0 * index / count, np.pi * (1.0 + 5.0**0.5) * index
    ring = np.sqrt(1.0 - height * height)
    return np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], axis=1)
