"""Which triangle each pixel sees, and where on it: a Numba z-buffer on the CPU, torch on CUDA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """What a rasteriser knows of each pixel.

    `triangle[i, j]` is the id of the nearest triangle under the centre (j + 0.5, i + 0.5), or -1;
    `barycentric[i, j]` are the perspective-correct weights of its three vertices; `depth` is z in camera
    axes (the unit of the input), infinite where nothing is seen.
    """

    triangle: Int[Tensor, "height width"]
    barycentric: Float[Tensor, "height width 3"]
    depth: Float[Tensor, "height width"]

    @property
    def covered(self) -> Bool[Tensor, "height width"]:
        return self.triangle >= 0


def rasterize(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
    height: int,
    width: int,
    cull_back: bool = True,
) -> Fragments:
    """Rasterise projected vertices. `depth` is z in camera axes; triangles that reach behind it are dropped.

    `cull_back` drops triangles that are clockwise as seen. Not differentiable: `interpolate` is.
    """
    pixels, depth = pixels.detach(), depth.detach()
    if pixels.device.type != "cpu":
        return rasterize_torch(pixels, depth, triangles, height, width, cull_back)
    from facefit.kernels.rasterize import barycentric_kernel, rasterize_kernel

    nearest = np.empty((height, width), dtype=np.float64)
    ids = np.empty((height, width), dtype=np.int32)
    barycentric = np.empty((height, width, 3), dtype=np.float32)
    z = np.empty((height, width), dtype=np.float32)
    corners = triangles.to(torch.int32).contiguous().numpy()
    positions, z64 = pixels.double().contiguous().numpy(), depth.double().numpy()
    # `inverse_depth` without torch, whose few operations would cost a tenth of the picture.
    w = np.divide(1.0, z64, out=np.zeros_like(z64), where=z64 > 1e-6)
    rasterize_kernel(positions, w, corners, cull_back, nearest, ids)
    barycentric_kernel(positions, w, corners, ids, barycentric, z)
    return Fragments(torch.from_numpy(ids), torch.from_numpy(barycentric), torch.from_numpy(z))


def inverse_depth(depth: Float[Tensor, "vertices"]) -> Float[Tensor, "vertices"]:
    """1 / z in float64, and 0 for vertices at or behind the camera."""
    depth = depth.double()
    ahead = depth > 1e-6
    return torch.where(ahead, 1 / torch.where(ahead, depth, torch.ones_like(depth)), torch.zeros_like(depth))


def _fragments(
    ids: Int[Tensor, "height width"],
    barycentric: Float[Tensor, "height width 3"],
    nearest: Float[Tensor, "height width"],
) -> Fragments:
    depth = torch.where(ids >= 0, 1 / nearest, torch.full_like(nearest, torch.inf))
    return Fragments(ids.int(), barycentric, depth.float())


def rasterize_torch(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
    height: int,
    width: int,
    cull_back: bool = True,
    rows: tuple[Int[Tensor, "triangles"], Int[Tensor, "triangles"]] | None = None,
) -> Fragments:
    """The same in torch alone: every pixel of a triangle's bounding box is a candidate, the nearest wins.

    `rows` keeps each triangle to the pixel rows from its first to its last.
    """
    pixels, w = pixels.double(), inverse_depth(depth)
    device = pixels.device
    triangles = triangles.long().to(device)
    corner, corner_w = pixels[triangles], w[triangles]
    x, y = corner[..., 0], corner[..., 1]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    keep = (corner_w > 0).all(1) & (area.abs() > 1e-300) & torch.isfinite(area)
    if cull_back:
        keep &= area < 0
    kept = keep.nonzero()[:, 0]
    x, y, corner_w, area = x[kept], y[kept], corner_w[kept], area[kept]

    left = torch.ceil(x.amin(1) - 0.5).clamp(0, width).long()
    right = torch.floor(x.amax(1) - 0.5).clamp(-1, width - 1).long()
    top = torch.ceil(y.amin(1) - 0.5).clamp(0, height).long()
    bottom = torch.floor(y.amax(1) - 0.5).clamp(-1, height - 1).long()
    if rows is not None:
        top, bottom = torch.maximum(top, rows[0][kept]), torch.minimum(bottom, rows[1][kept])
    columns, lines = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)
    counts = columns * lines

    owner = torch.repeat_interleave(torch.arange(len(kept), device=device), counts)
    first = torch.cumsum(counts, 0) - counts
    within = torch.arange(len(owner), device=device) - first[owner]
    span = columns[owner]
    column, row = left[owner] + within % span, top[owner] + within // span
    e = _edge_functions(x, y, area, owner, column, row)
    inside = (e >= 0).all(0)
    owner, column, row, e = owner[inside], column[inside], row[inside], e[:, inside]
    corner_w = corner_w[owner].T
    total = (e[0] * corner_w[0] + e[1] * corner_w[1]) + e[2] * corner_w[2]
    candidate = total * (1 / area.abs())[owner]

    # Two passes, so that equal depths are decided by the lower id as in the sequential kernel.
    cell = row * width + column
    nearest = torch.zeros(height * width, dtype=torch.float64, device=device)
    nearest.scatter_reduce_(0, cell, candidate, "amax")
    none = len(triangles)
    winner = candidate == nearest[cell]
    ids = torch.full((height * width,), none, dtype=torch.int64, device=device)
    ids.scatter_reduce_(0, cell[winner], kept[owner[winner]], "amin")
    chosen = winner & (kept[owner] == ids[cell])
    barycentric = torch.zeros(height * width, 3, dtype=torch.float32, device=device)
    barycentric[cell[chosen]] = (e * corner_w / total)[:, chosen].T.float()
    ids[ids == none] = -1
    return _fragments(
        ids.reshape(height, width), barycentric.reshape(height, width, 3), nearest.reshape(height, width)
    )


def _edge_functions(
    x: Float[Tensor, "triangles 3"],
    y: Float[Tensor, "triangles 3"],
    area: Float[Tensor, "triangles"],
    owner: Int[Tensor, "candidates"],
    column: Int[Tensor, "candidates"],
    row: Int[Tensor, "candidates"],
) -> Float[Tensor, "3 candidates"]:
    """Twice the areas opposite each corner, in the kernel's order of operations."""
    sign = area.sign()
    px, py = column + 0.5, row + 0.5
    weights = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        a = (y[:, j] - y[:, k]) * sign
        b = (x[:, k] - x[:, j]) * sign
        c = (x[:, j] * y[:, k] - x[:, k] * y[:, j]) * sign
        weights.append(a[owner] * px + (b[owner] * py + c[owner]))
    return torch.stack(weights)


def rasterize_reference(
    pixels: Float[np.ndarray, "vertices 2"],
    depth: Float[np.ndarray, "vertices"],
    triangles: Int[np.ndarray, "triangles 3"],
    height: int,
    width: int,
    cull_back: bool = True,
) -> Int[np.ndarray, "height width"]:
    """Triangle ids by the definition: every pixel against every triangle. Slow; the other two's oracle."""
    ids = np.full((height, width), -1)
    nearest = np.zeros((height, width))
    px, py = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for t, corners in enumerate(triangles):
        (x, y), z = pixels[corners].astype(np.float64).T, depth[corners].astype(np.float64)
        area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
        if not (z > 1e-6).all() or not 1e-300 < abs(area) < np.inf or (cull_back and area > 0):
            continue
        e, sign = [], np.sign(area)
        for j, k in ((1, 2), (2, 0), (0, 1)):
            a, b = (y[j] - y[k]) * sign, (x[k] - x[j]) * sign
            e.append(a * px + (b * py + (x[j] * y[k] - x[k] * y[j]) * sign))
        w = ((e[0] * (1 / z[0]) + e[1] * (1 / z[1])) + e[2] * (1 / z[2])) * (1 / abs(area))
        nearer = (e[0] >= 0) & (e[1] >= 0) & (e[2] >= 0) & (w > nearest)
        ids[nearer], nearest[nearer] = t, w[nearer]
    return ids


def nearest_depth(
    pixels: Float[Tensor, "meshes vertices 2"],
    depth: Float[Tensor, "meshes vertices"],
    triangles: Int[Tensor, "triangles 3"],
    size: int,
) -> Float[Tensor, "meshes size size"]:
    """The z-buffers of many meshes of one topology, back faces dropped; infinite where nothing is seen."""
    if pixels.device.type != "cpu":
        return nearest_depth_torch(pixels, depth, triangles, size)
    found = [rasterize(p, z, triangles, size, size).depth for p, z in zip(pixels, depth, strict=True)]
    return torch.stack(found)


def nearest_depth_torch(
    pixels: Float[Tensor, "meshes vertices 2"],
    depth: Float[Tensor, "meshes vertices"],
    triangles: Int[Tensor, "triangles 3"],
    size: int,
) -> Float[Tensor, "meshes size size"]:
    """The same in one call of `rasterize_torch`: the pictures one below the other, each mesh kept to its own."""
    count, vertices = depth.shape
    mesh = torch.arange(count, device=pixels.device)
    stacked = torch.stack([pixels[..., 0], pixels[..., 1] + size * mesh[:, None]], -1).reshape(-1, 2)
    index = (triangles.long()[None] + (vertices * mesh)[:, None, None]).reshape(-1, 3)
    first = (size * mesh).repeat_interleave(len(triangles))
    rows = (first, first + size - 1)
    return rasterize_torch(stacked, depth.reshape(-1), index, count * size, size, rows=rows).depth.reshape(
        count, size, size
    )
