"""How probably each pixel is covered by a mesh: smooth in the vertices, so that silhouettes can be fitted."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facefit.rendering.rasterize import rasterize

# A triangle's probability below this is taken for zero, and above one minus this for one.
NEGLIGIBLE = 1e-4
# Pairs of pixel and triangle worked on at a time: about 50 MB with their intermediate values.
PAIRS = 1 << 18


def soft_silhouette(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
    height: int,
    width: int,
    blur_px: float = 0.5,
) -> Float[Tensor, "height width"]:
    """1 - prod_j (1 - p_j), with p_j = sigmoid(+-(d_j / blur_px)^2), d_j the distance from triangle j's rim.

    The sign is + inside; all triangles count, whichever way they face. Differentiable in `pixels`.

    Only pixels near the rim of the hard silhouette are worked on: those deeper inside are 1, those further
    outside 0, each to `NEGLIGIBLE` per triangle. So the time follows the length of the rim, not the number of
    pixels times triangles.

    Every triangle near a pixel adds to its probability, so the finer the mesh, the more the silhouette
    swells: by about blur_px sqrt(log n), n the triangles within blur_px of the rim (on a head of 19,000
    triangles 0.6 px for a blur of 0.5, 1.3 px for 1). `antialias.coverage` does not.

    Source: Liu, Li, Chen and Li, "Soft Rasterizer: A Differentiable Renderer for Image-based 3D Reasoning",
    ICCV 2019, equations 1 and 3; their sigma is blur_px^2 in units of half the picture squared.
    """
    if not blur_px > 0:
        raise ValueError(f"blur_px = {blur_px}: give a length above 0; the hard silhouette is `rasterize`'s")
    reach = blur_px * math.sqrt(math.log(1 / NEGLIGIBLE))
    hard = rasterize(pixels, depth, triangles, height, width, cull_back=False).covered
    band = near_rim(hard | touched(pixels, height, width), math.ceil(reach) + 1)
    kept = _near(pixels, depth, triangles, band, reach)
    number = torch.full((height * width,), -1, dtype=torch.int64, device=pixels.device)
    cells = band.reshape(-1).nonzero()[:, 0]
    number[cells] = torch.arange(len(cells), device=pixels.device)
    log_miss = pixels.new_zeros(len(cells))
    chunks = _chunks(pixels, triangles, kept, reach, height, width)
    for chunk in chunks:
        arguments = (pixels, triangles[chunk], number, len(cells), reach, blur_px, height, width)
        if len(chunks) > 1 and pixels.requires_grad:
            # Computed again on the way back, so that memory stays that of one chunk.
            part = torch.utils.checkpoint.checkpoint(_log_miss, *arguments, use_reentrant=False)
        else:
            part = _log_miss(*arguments)
        log_miss = log_miss + part
    inside = (hard & ~band).reshape(-1).to(pixels)
    return inside.index_put((cells,), -torch.expm1(log_miss)).reshape(height, width)


def near_rim(covered: Bool[Tensor, "height width"], radius: int) -> Bool[Tensor, "height width"]:
    """Pixels with a covered and an uncovered one within `radius` (a square); the border is no rim."""
    both = torch.stack([covered, ~covered]).float()[None]
    # A square maximum is one along the rows after one along the columns.
    both = torch.nn.functional.max_pool2d(both, (2 * radius + 1, 1), 1, (radius, 0))
    both = torch.nn.functional.max_pool2d(both, (1, 2 * radius + 1), 1, (0, radius))
    return (both[0] > 0).all(0)


def touched(pixels: Float[Tensor, "vertices 2"], height: int, width: int) -> Bool[Tensor, "height width"]:
    """Pixels that hold a vertex: a part too thin to cover any pixel's centre has a rim all the same."""
    x, y = pixels.detach().unbind(1)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = torch.zeros(height, width, dtype=torch.bool, device=pixels.device)
    found[y[seen].long(), x[seen].long()] = True
    return found


def _boxes(
    pixels: Float[Tensor, "vertices 2"], triangles: Int[Tensor, "n 3"], reach: float, height: int, width: int
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Left, top, columns and rows of the pixel centres within `reach` of each triangle's bounding box."""
    corner = pixels.detach()[triangles]
    size = torch.tensor([width, height], device=pixels.device)
    low = torch.minimum(torch.ceil(corner.amin(1) - reach - 0.5).clamp(min=0), size.to(corner)).long()
    high = torch.minimum(
        torch.floor(corner.amax(1) + reach - 0.5).clamp(min=-1), (size - 1).to(corner)
    ).long()
    columns, rows = (high - low + 1).clamp(min=0).unbind(1)
    return low[:, 0], low[:, 1], columns, rows


def _near(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
    band: Bool[Tensor, "height width"],
    reach: float,
) -> Int[Tensor, "kept"]:
    """Triangles in front of the camera whose box meets the band, found in a table of sums over rectangles."""
    height, width = band.shape
    whole = torch.isfinite(pixels.detach()).all(1) & (depth.detach() > 1e-6)
    candidates = whole[triangles].all(1).nonzero()[:, 0]
    left, top, columns, rows = _boxes(pixels, triangles[candidates], reach, height, width)
    sums = torch.nn.functional.pad(band.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    right, bottom = left + columns, top + rows
    count = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return candidates[(count > 0) & (columns * rows > 0)]


def _chunks(
    pixels: Float[Tensor, "vertices 2"],
    triangles: Int[Tensor, "triangles 3"],
    kept: Int[Tensor, "kept"],
    reach: float,
    height: int,
    width: int,
) -> list[Int[Tensor, "chunk"]]:
    """The kept triangles, split so that the boxes of a part hold about `PAIRS` pixels together."""
    *_, columns, rows = _boxes(pixels, triangles[kept], reach, height, width)
    part = torch.cumsum(columns * rows, 0) // PAIRS
    return [kept[part == p] for p in range(int(part[-1]) + 1)] if len(part) else []


def _log_miss(
    pixels: Float[Tensor, "vertices 2"],
    triangles: Int[Tensor, "n 3"],
    number: Int[Tensor, "cells"],
    count: int,
    reach: float,
    blur_px: float,
    height: int,
    width: int,
) -> Float[Tensor, "band"]:
    """Sum of log (1 - p_j) over some triangles, at each of the `count` band pixels."""
    left, top, columns, rows = _boxes(pixels, triangles, reach, height, width)
    boxes = columns * rows
    owner = torch.repeat_interleave(torch.arange(len(triangles), device=pixels.device), boxes)
    within = torch.arange(len(owner), device=pixels.device) - (torch.cumsum(boxes, 0) - boxes)[owner]
    column, row = left[owner] + within % columns[owner], top[owner] + within // columns[owner]
    target = number[row * width + column]
    in_band = (target >= 0).nonzero()[:, 0]
    owner, target = owner[in_band], target[in_band]
    centre = torch.stack([column[in_band], row[in_band]], 1).to(pixels) + 0.5
    squared, inside = _rim_distance(centre, pixels[triangles[owner]])
    close = (inside | (squared.detach() < reach**2)).nonzero()[:, 0]
    signed = torch.where(inside, squared, -squared)[close] / blur_px**2
    # log (1 - sigmoid(s)) = -softplus(s), exact at both ends.
    return pixels.new_zeros(count).index_add(0, target[close], -torch.nn.functional.softplus(signed))


def _rim_distance(
    points: Float[Tensor, "n 2"], corners: Float[Tensor, "n 3 2"]
) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Squared distance of each point to its triangle's nearest side, and whether it is inside."""
    nearest, sides = None, []
    for i in range(3):
        a, b = corners[:, i], corners[:, (i + 1) % 3]
        along, to = b - a, points - a
        sides.append(along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0])
        share = ((to * along).sum(1) / ((along * along).sum(1) + 1e-12)).clamp(0, 1)
        squared = ((to - share[:, None] * along) ** 2).sum(1)
        nearest = squared if nearest is None else torch.minimum(nearest, squared)
    assert nearest is not None
    side = torch.stack(sides).detach()
    return nearest, (side >= 0).all(0) | (side <= 0).all(0)
