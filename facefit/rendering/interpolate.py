"""Vertex attributes at pixels, differentiable in the attributes and in the vertices' positions.

float32 tensors on the CPU take hand-written kernels, forward and backward; all others (CUDA, float64, inside
torch.func transforms) take the same in torch operations, which is also the kernels' oracle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.rendering.rasterize import Fragments, inverse_depth


def interpolate(
    fragments: Fragments,
    attributes: Float[Tensor, "vertices channels"],
    triangles: Int[Tensor, "triangles 3"],
) -> Float[Tensor, "height width channels"]:
    """Attributes at each covered pixel, zero elsewhere; differentiable in `attributes` and in the weights."""
    if _has_kernel(attributes, fragments.barycentric):
        found: Tensor = _Interpolate.apply(  # type: ignore[no-untyped-call]
            attributes, fragments.barycentric, fragments.triangle, triangles
        )
        return found
    corners = attributes[triangles[fragments.triangle.clamp(min=0)]]
    blended = (fragments.barycentric[..., None].to(attributes) * corners).sum(-2)
    return torch.where(fragments.covered[..., None], blended, torch.zeros_like(blended))


def _has_kernel(*tensors: Tensor) -> bool:
    # A tensor inside a torch.func transform is a wrapper without memory of its own.
    return all(
        t.device.type == "cpu"
        and t.dtype == torch.float32
        and not torch._C._functorch.is_functorch_wrapped_tensor(t)
        for t in tensors
    )


class _Interpolate(torch.autograd.Function):
    """The kernel pair of `facefit.kernels.interpolate` as one differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any, attributes: Tensor, barycentric: Tensor, triangle: Tensor, triangles: Tensor
    ) -> Tensor:
        from facefit.kernels.interpolate import interpolate_kernel

        attributes, barycentric = attributes.contiguous(), barycentric.contiguous()
        ids, corners = triangle.int().contiguous(), triangles.int().contiguous()
        out = torch.empty(*triangle.shape, attributes.shape[1])
        interpolate_kernel(
            ids.numpy(),
            barycentric.detach().numpy(),
            attributes.detach().numpy(),
            corners.numpy(),
            out.numpy(),
        )
        ctx.save_for_backward(attributes, barycentric, ids, corners)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        from facefit.kernels.interpolate import interpolate_backward_kernel

        attributes, barycentric, ids, corners = ctx.saved_tensors
        by_attributes, by_barycentric = torch.zeros_like(attributes), torch.empty_like(barycentric)
        interpolate_backward_kernel(
            ids.numpy(),
            barycentric.detach().numpy(),
            attributes.detach().numpy(),
            corners.numpy(),
            gradients[0].contiguous().numpy(),
            by_attributes.numpy(),
            by_barycentric.numpy(),
        )
        return by_attributes, by_barycentric, None, None


class _Barycentric(torch.autograd.Function):
    """Weights and depth of given triangles as functions of the projected vertices."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, depth: Tensor, triangle: Tensor, triangles: Tensor) -> Any:
        from facefit.kernels.rasterize import barycentric_kernel

        positions, w = pixels.detach().double().contiguous(), inverse_depth(depth.detach())
        ids, corners = triangle.int().contiguous(), triangles.int().contiguous()
        barycentric, z = torch.empty(*triangle.shape, 3), torch.empty(triangle.shape)
        barycentric_kernel(
            positions.numpy(), w.numpy(), corners.numpy(), ids.numpy(), barycentric.numpy(), z.numpy()
        )
        ctx.save_for_backward(positions, w, ids, corners)
        return barycentric, z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        from facefit.kernels.rasterize import barycentric_backward_kernel

        positions, w, ids, corners = ctx.saved_tensors
        by_pixels, by_z = np.zeros(positions.shape), np.zeros(w.shape)
        barycentric_backward_kernel(
            positions.numpy(),
            w.numpy(),
            corners.numpy(),
            ids.numpy(),
            gradients[0].contiguous().numpy(),
            gradients[1].contiguous().numpy(),
            by_pixels,
            by_z,
        )
        return torch.from_numpy(by_pixels).float(), torch.from_numpy(by_z).float(), None, None


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
    if _has_kernel(pixels, depth):
        barycentric, z = _Barycentric.apply(  # type: ignore[no-untyped-call]
            pixels, depth, fragments.triangle, triangles
        )
        return Fragments(fragments.triangle, barycentric, z)
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
