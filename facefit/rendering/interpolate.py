"""Vertex attributes at pixels, differentiable in the attributes and in the vertices' positions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.rendering.rasterize import Fragments


def interpolate(
    fragments: Fragments,
    attributes: Float[Tensor, "vertices channels"],
    triangles: Int[Tensor, "triangles 3"],
) -> Float[Tensor, "height width channels"]:
    """Attributes at each covered pixel, zero elsewhere; differentiable in `attributes`."""
    corners = attributes[triangles[fragments.triangle.clamp(min=0)]]
    blended = (fragments.barycentric[..., None].to(attributes) * corners).sum(-2)
    return torch.where(fragments.covered[..., None], blended, torch.zeros_like(blended))


def differentiable_barycentric(
    fragments: Fragments,
    pixels: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, "vertices"],
    triangles: Int[Tensor, "triangles 3"],
) -> Fragments:
    """The same fragments with barycentric weights and depth recomputed as functions of the vertices.

    With the triangle of each pixel held fixed the weights are smooth in the projected vertices; gradients
    across silhouettes are not in them (an antialiasing or soft-silhouette loss adds those).
    """
    covered = fragments.covered
    rows, columns = covered.nonzero(as_tuple=True)
    corner = triangles[fragments.triangle[covered]]
    xy, w = pixels[corner], 1 / depth[corner]
    point = torch.stack([columns + 0.5, rows + 0.5], -1).to(pixels)
    delta = xy - point[:, None]
    e = torch.stack(
        [
            delta[:, 1, 0] * delta[:, 2, 1] - delta[:, 2, 0] * delta[:, 1, 1],
            delta[:, 2, 0] * delta[:, 0, 1] - delta[:, 0, 0] * delta[:, 2, 1],
            delta[:, 0, 0] * delta[:, 1, 1] - delta[:, 1, 0] * delta[:, 0, 1],
        ],
        -1,
    )
    e = e / e.sum(-1, keepdim=True)
    weighted = e * w
    total = weighted.sum(-1, keepdim=True)
    barycentric = torch.zeros_like(fragments.barycentric).to(pixels)
    barycentric = barycentric.index_put((rows, columns), weighted / total)
    z = torch.full_like(fragments.depth, torch.inf).to(pixels).index_put((rows, columns), 1 / total[:, 0])
    return Fragments(fragments.triangle, barycentric, z)
