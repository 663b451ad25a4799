"""Which triangles of a mesh cut each other: the test that skin is a surface."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def cutting_pairs(points: Array, triangles: Ints) -> Ints:
    """Pairs (n, 2) of triangles that pass through each other; neighbours, which share a vertex, are not
    counted.
    """
    corner = points[triangles]
    pairs = _near(corner.min(axis=1), corner.max(axis=1))
    shared = (triangles[pairs[:, 0], :, None] == triangles[pairs[:, 1], None, :]).any(axis=(1, 2))
    pairs = pairs[~shared]
    first, second = corner[pairs[:, 0]], corner[pairs[:, 1]]
    cut = np.zeros(len(pairs), dtype=bool)
    for edges_of, surface in ((first, second), (second, first)):
        for k in range(3):
            cut |= _passes(edges_of[:, k], edges_of[:, (k + 1) % 3], surface)
    return np.asarray(pairs[cut])


def _near(low: Array, high: Array) -> Ints:
    """Pairs of boxes that overlap, by sweeping along x and then comparing y and z."""
    order = np.argsort(low[:, 0], kind="stable")
    low, high = low[order], high[order]
    end = np.searchsorted(low[:, 0], high[:, 0], side="right")
    found = []
    for start in range(0, len(order), 512):
        first = np.arange(start, min(start + 512, len(order)))
        count = end[first] - first - 1
        i = np.repeat(first, count)
        j = i + 1 + np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
        near = (low[i, 1:] <= high[j, 1:]).all(axis=1) & (low[j, 1:] <= high[i, 1:]).all(axis=1)
        found.append(np.stack([order[i[near]], order[j[near]]], axis=1))
    return np.concatenate(found)


def _passes(start: Array, end: Array, surface: Array) -> np.ndarray:
    """Whether the segment from start to end crosses the triangle (Moeller and Trumbore, J. Graphics Tools 2,
    1997).
    """
    way, one, two = end - start, surface[:, 1] - surface[:, 0], surface[:, 2] - surface[:, 0]
    across = np.cross(way, two)
    volume = (one * across).sum(axis=1)
    usable = np.abs(volume) > 1e-12
    volume = np.where(usable, volume, 1.0)
    from_corner = start - surface[:, 0]
    u = (from_corner * across).sum(axis=1) / volume
    turned = np.cross(from_corner, one)
    v = (way * turned).sum(axis=1) / volume
    t = (two * turned).sum(axis=1) / volume
    return np.asarray(usable & (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1))
