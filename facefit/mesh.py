"""Plain mesh functions on tensors and arrays; knows no face and no camera."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def vertex_normals(
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "vertices 3"]:
    """Unit normals, each the area-weighted mean over the vertex's triangles; outward for counter-clockwise ones.

    A vertex of no triangle, or of degenerate ones only, has the zero vector.
    """
    a, b, c = vertices[triangles].unbind(1)
    doubled_area = torch.linalg.cross(b - a, c - a)
    summed = torch.zeros_like(vertices).index_add(0, triangles.reshape(-1), doubled_area.repeat_interleave(3, 0))
    return torch.nn.functional.normalize(summed, dim=-1, eps=1e-20)
