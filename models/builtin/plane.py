"""The parameter plane: directions from a point inside the head, unrolled about the straight-ahead axis.

A skin point is named by the direction in which it is seen from `VIEWPOINT` (the head is star-shaped about it
but for lips, nostrils and ears). The azimuthal equidistant projection of that direction, 100 units to the
radian, is the plane in which feature rings are drawn.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Names = NDArray[np.str_]
VIEWPOINT = np.array([0.0, -25.0, 40.0])
UNITS_PER_RADIAN = 100.0


def direction_of_point(points: Array) -> Array:
    """Unit direction (n, 3) from the viewpoint to points in millimetres."""
    ray = np.asarray(points, dtype=np.float64) - VIEWPOINT
    return np.asarray(ray / np.linalg.norm(ray, axis=-1, keepdims=True))


def plane_of_direction(direction: Array) -> Array:
    """Azimuthal equidistant coordinates (n, 2): u to the subject's left, v up."""
    side = np.linalg.norm(direction[..., :2], axis=-1)
    angle = np.arctan2(side, direction[..., 2])
    scale = UNITS_PER_RADIAN * angle / np.maximum(side, 1e-12)
    return np.asarray(direction[..., :2] * scale[..., None])


def direction_of_plane(plane: Array) -> Array:
    """Inverse of `plane_of_direction`."""
    radius = np.linalg.norm(plane, axis=-1)
    angle = radius / UNITS_PER_RADIAN
    scale = np.sin(angle) / np.maximum(radius, 1e-12)
    return np.concatenate([plane * scale[..., None], np.cos(angle)[..., None]], axis=-1)


def plane_of_point(points: Array) -> Array:
    return plane_of_direction(direction_of_point(points))
