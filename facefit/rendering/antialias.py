"""Smooth silhouettes for a hard rendering: pixels blend where an edge passes between their centres.

A rasteriser decides at pixel centres, so its picture does not change while an edge moves from one centre to
the next: no gradient. Here an edge that crosses the line between two neighbouring centres says how far the
nearer surface reaches towards the other pixel, and the two are blended as if the picture had been filtered by
a box one pixel wide along that line. Value and gradient are those of the filtered picture.

Along rows and along columns every stretch of a rim would be counted twice. A rim of unit normal (n_x, n_y)
that moves by d crosses |n_x| rows per unit length and moves by d / |n_x| in each: weighted by n_x^2 along the
rows and n_y^2 along the columns the two add up to the area swept, d (n_x^2 + n_y^2), without a jump from steep to
flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.rendering.rasterize import Fragments, rasterize

# An edge lies in front of a pixel's surface when nearer by this share of its distance: 3 mm at 60 cm.
IN_FRONT = 0.005


def coverage(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
    height: int,
    width: int,
) -> Float[Tensor, "height width"]:
    """The share of each pixel that a mesh covers, differentiable in `pixels`; a silhouette without bias.

    Its sum is the area of the silhouette, however fine the mesh is (`soft_silhouette`'s grows with it). Only
    pixels on the rim have a gradient: blur both silhouettes alike to compare them from further away.
    """
    fragments = rasterize(pixels, depth, triangles, height, width)
    return antialias(fragments.covered.to(pixels)[..., None], fragments, pixels, depth, triangles)[..., 0]


def antialias(
    image: Float[Tensor, "height width channels"],
    fragments: Fragments,
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
) -> Float[Tensor, "height width channels"]:
    """A rendered image with its silhouettes smoothed, differentiable in the image and in `pixels`.

    `fragments` must come from `rasterize(pixels, depth, triangles, ...)` with back faces culled. Outer
    silhouettes blend with whatever the image holds outside; inner ones (a nose in front of a cheek) with the
    surface behind.

    Idea: Laine et al., "Modular Primitives for High-Performance Differentiable Rendering", SIGGRAPH Asia
    2020, section 3.6. Different here: they look for a silhouette edge in the triangle seen at the nearer
    pixel, and miss it where triangles are smaller than pixels; here every silhouette edge looks for the
    pixels it passes. And they take steep edges along rows, others along columns; here the two are weighted.
    """
    edges = silhouette_edges(pixels.detach(), depth.detach(), triangles)
    rows = _crossings(pixels, depth, edges, fragments.depth)
    # The same along columns, in the transposed picture.
    columns = _crossings(pixels.flip(1), depth, edges, fragments.depth.T)
    height, width, channels = image.shape
    flat, blended = image.reshape(-1, channels), image.reshape(-1, channels)
    for crossing, transposed in ((rows, False), (columns, True)):
        inner, outer = crossing.inner, crossing.outer
        if transposed:
            inner, outer = ((cell % height) * width + cell // height for cell in (inner, outer))
        beyond = crossing.weight * (crossing.reach - 0.5)
        # Beyond the middle the nearer surface colours the outer pixel, else the outer one the inner's rest.
        further = beyond.detach() > 0
        target, source = torch.where(further, outer, inner), torch.where(further, inner, outer)
        blended = blended.index_add(0, target, beyond.abs()[:, None] * (flat[source] - flat[target]))
    return blended.reshape(image.shape)


@dataclass(frozen=True)
class Edges:
    """Edges with exactly one drawn triangle: two vertices each, and that triangle's third."""

    ends: Int[Tensor, "edges 2"]
    third: Int[Tensor, "edges"]


def silhouette_edges(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
) -> Edges:
    """The rim of everything drawn (front faces before the camera), where it is folded as where it ends."""
    x, y = pixels[triangles].unbind(2)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    drawn = triangles[(area < 0) & torch.isfinite(area) & (depth[triangles] > 1e-6).all(1)]
    ends = torch.cat([drawn[:, [0, 1]], drawn[:, [1, 2]], drawn[:, [2, 0]]])
    third = torch.cat([drawn[:, 2], drawn[:, 0], drawn[:, 1]])
    low, high = ends.amin(1), ends.amax(1)
    order = torch.argsort(low * len(pixels) + high)
    ends, third, low, high = ends[order], third[order], low[order], high[order]
    same = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    alone = torch.ones_like(low, dtype=torch.bool)
    alone[1:] &= ~same
    alone[:-1] &= ~same
    return Edges(ends[alone], third[alone])


@dataclass(frozen=True)
class Crossings:
    """Pairs of neighbouring pixels in a row that an edge passes between, as indices into the flat picture.

    `reach` in [0, 1] is how far the surface at `inner` extends from its centre towards the centre of `outer`,
    `weight` the squared component of the edge's normal along the row.
    """

    inner: Int[Tensor, "n"]
    outer: Int[Tensor, "n"]
    reach: Float[Tensor, "n"]
    weight: Float[Tensor, "n"]


def _crossings(
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    edges: Edges,
    seen: Float[Tensor, "height width"],
) -> Crossings:
    """Along the rows: where silhouette edges in sight pass between two pixel centres."""
    height, width = seen.shape
    a, b = pixels[edges.ends].unbind(1)
    rows_first = torch.ceil(torch.minimum(a, b).detach()[:, 1] - 0.5).clamp(0, height).long()
    rows_end = torch.ceil(torch.maximum(a, b).detach()[:, 1] - 0.5).clamp(0, height).long()
    count = (rows_end - rows_first).clamp(min=0)
    edge = torch.repeat_interleave(torch.arange(len(count), device=pixels.device), count)
    row = rows_first[edge] + torch.arange(len(edge), device=pixels.device) - (count.cumsum(0) - count)[edge]
    start, along = a[edge], (b - a)[edge]
    share = (row + 0.5 - start[:, 1]) / along[:, 1]
    x = start[:, 0] + share * along[:, 0] - 0.5
    left = x.detach().floor().long()
    inside = (left >= 0) & (left < width - 1)

    # The surface is on the side of the drawn triangle's third corner.
    to_third = (pixels.detach()[edges.third] - a.detach())[edge]
    side = to_third[:, 0] * along.detach()[:, 1] - to_third[:, 1] * along.detach()[:, 0]
    rightward = (side * along.detach()[:, 1]) < 0
    cell = row * width + left.clamp(0, width - 2)
    inner, outer = torch.where(rightward, cell, cell + 1), torch.where(rightward, cell + 1, cell)
    reach = torch.where(rightward, x - left, 1 - (x - left))

    near = 1 / depth.detach()[edges.ends[edge]].to(seen)
    own = 1 / (near[:, 0] + share.detach().to(seen) * (near[:, 1] - near[:, 0]))
    behind = seen.reshape(-1)
    visible = (behind[outer] > own * (1 + IN_FRONT)) & torch.isfinite(behind[inner])
    visible &= torch.isinf(behind[outer]) | (behind[inner] > own * (1 - IN_FRONT))
    keep = (inside & visible).nonzero()[:, 0]
    inner, outer, reach, along = inner[keep], outer[keep], reach[keep], along[keep]

    # Several edges between two pixels: the surface reaches as far as the last of them.
    pair = inner * 2 + (outer > inner)
    furthest = torch.zeros(2 * height * width, dtype=reach.dtype, device=reach.device)
    furthest.scatter_reduce_(0, pair, reach.detach(), "amax")
    winner = (reach.detach() == furthest[pair]).nonzero()[:, 0]
    first = torch.full_like(furthest, len(pair), dtype=torch.int64)
    first.scatter_reduce_(0, pair[winner], winner, "amin")
    chosen = winner[first[pair[winner]] == winner]
    squared = along[chosen] ** 2
    weight = squared[:, 1] / squared.sum(1)
    return Crossings(inner[chosen], outer[chosen], reach[chosen], weight)
