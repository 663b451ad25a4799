"""One plane for one texture: a model's texture coordinates made free of overlap, or a cylinder where it has
none.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facefit.models.face_model import Topology
from facefit.rendering.rasterize import rasterize

# Charts are compared on a grid of this size; sharing this part of the smaller one's cells counts as overlap.
_GRID, _SHARED = 256, 0.02

# Cells along each side when several sheets share the plane: the face takes all but one row and one column.
_CELLS = 4

_MARGIN = 0.004


def texture_layout(
    topology: Topology, mean: Float[np.ndarray, "vertices 3"]
) -> tuple[Float[np.ndarray, "uvs 2"], Int[np.ndarray, "triangles 3"]]:
    """Texture coordinates in the unit square (origin bottom-left) in which no two triangles share a texel.

    Many models spread their parts over several images whose coordinates coincide (face, back of the head,
    each eye). Such sheets are laid side by side, the one with most of the face large. A model whose own
    layout is already flat keeps it unchanged.
    """
    if topology.uv is None or topology.uv_triangles is None:
        return cylinder(topology, mean)
    uv, triangles = topology.uv.astype(np.float64), topology.uv_triangles
    sheet, tile = _sheets(uv, triangles)
    if sheet.max() == 0 and not tile.any():
        return uv.clip(0, 1), triangles
    face = np.isin(topology.triangles, topology.regions.get("face", np.arange(len(mean)))).all(1)
    order = np.argsort(-np.bincount(sheet[triangles[face, 0]], minlength=sheet.max() + 1), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    corner, size = _cells(len(order))
    rank_of_uv = rank[sheet]
    return corner[rank_of_uv] + (uv - tile).clip(0, 1) * size[rank_of_uv, None], triangles


def cylinder(
    topology: Topology, mean: Float[np.ndarray, "vertices 3"]
) -> tuple[Float[np.ndarray, "uvs 2"], Int[np.ndarray, "triangles 3"]]:
    """Height against the angle about a vertical axis behind the face, cut at the back of the head."""
    middle = [mean[:, 0].mean(), 0.0, (mean[:, 2].min() + mean[:, 2].max()) / 2]
    x, y, z = (mean - middle).astype(np.float64).T
    angle = np.arctan2(x, z)
    corners = angle[topology.triangles]
    wraps = corners.max(1) - corners.min(1) > np.pi
    # A triangle across the cut takes copies of its vertices one turn further.
    turned = corners[wraps] < 0
    copied = np.unique(topology.triangles[wraps][turned])
    copy_of = np.zeros(len(mean), np.int64)
    copy_of[copied] = len(mean) + np.arange(len(copied))
    triangles = topology.triangles.astype(np.int64)
    triangles[wraps] = np.where(turned, copy_of[triangles[wraps]], triangles[wraps])
    plane = np.stack([np.append(angle, angle[copied] + 2 * np.pi), np.append(y, y[copied])], 1)
    low, high = plane.min(0), plane.max(0)
    return _MARGIN + (1 - 2 * _MARGIN) * (plane - low) / (high - low), triangles


def _sheets(
    uv: Float[np.ndarray, "uvs 2"], triangles: Int[np.ndarray, "triangles 3"]
) -> tuple[Int[np.ndarray, "uvs"], Float[np.ndarray, "uvs 2"]]:
    """Per texture coordinate its sheet, and the integer corner of the tile its chart lies in.

    Charts (connected parts) go, the largest first, to the first sheet of their tile where they cover no
    other.
    """
    one = np.ones(2 * len(triangles))
    links = (triangles[:, [0, 1]].ravel(), triangles[:, [1, 2]].ravel())
    count, chart = connected_components(coo_array((one, links), shape=(len(uv), len(uv))), directed=False)
    low = np.full((count, 2), np.inf)
    np.minimum.at(low, chart, uv)
    tile = np.floor(low + 1e-6)
    chart_of_triangle = chart[triangles[:, 0]]
    sheet_of_chart = np.zeros(count, np.int64)
    sheets: list[tuple[tuple[float, float], Bool[np.ndarray, "grid grid"]]] = []
    sizes = np.bincount(chart_of_triangle, minlength=count)
    for number in np.argsort(-sizes, kind="stable")[: int((sizes > 0).sum())]:
        mask = _covered(uv - tile[number], triangles[chart_of_triangle == number])
        place = (float(tile[number, 0]), float(tile[number, 1]))
        fits = (
            i
            for i, (where, taken) in enumerate(sheets)
            if where == place and (mask & taken).sum() <= _SHARED * min(mask.sum(), taken.sum())
        )
        found = next(fits, None)
        if found is None:
            found = len(sheets)
            sheets.append((place, np.zeros_like(mask)))
        sheets[found] = (place, sheets[found][1] | mask)
        sheet_of_chart[number] = found
    return sheet_of_chart[chart], tile[chart]


def _covered(
    uv: Float[np.ndarray, "uvs 2"], triangles: Int[np.ndarray, "triangles 3"]
) -> Bool[np.ndarray, "grid grid"]:
    plane = torch.from_numpy(uv * _GRID)
    flat = torch.ones(len(uv), dtype=torch.float64)
    fragments = rasterize(plane, flat, torch.from_numpy(triangles), _GRID, _GRID, cull_back=False)
    return fragments.covered.numpy()


def _cells(sheets: int) -> tuple[Float[np.ndarray, "sheets 2"], Float[np.ndarray, "sheets"]]:
    """Lower left corner and side of each sheet's square: the first large, the rest along the right and the
    top.
    """
    if sheets == 1:
        return np.full((1, 2), _MARGIN), np.full(1, 1 - 2 * _MARGIN)
    cells = max(_CELLS, math.ceil((sheets + 1) / 2))
    side = 1 / cells
    corners = [(0.0, 0.0)] + [((cells - 1) * side, k * side) for k in range(cells)]
    corners += [(k * side, (cells - 1) * side) for k in range(cells - 1)]
    size = np.full(sheets, side - 2 * _MARGIN)
    size[0] = (cells - 1) * side - 2 * _MARGIN
    return np.array(corners[:sheets]) + _MARGIN, size
