"""What keeps free offsets and textures plausible: small, symmetric, smooth, and one shape per person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.losses.term import Term
from facefit.mesh import unique_edges
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene


def magnitude(values: Float[Tensor, "points channels"]) -> Float[Tensor, ""]:
    """Mean squared length.

    Source: Fan, "3D Human Face Reconstruction From Single Image", equation 8; Munireddy et al., equation 3.
    """
    return (values**2).sum(-1).mean()


def symmetry(
    vectors: Float[Tensor, "vertices 3"],
    mirror: Int[Tensor, "vertices"],
    seen: Float[Tensor, "vertices"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared difference between vectors at vertices and the mirror images (x negated) of their partners'.

    `seen` weighs each vertex: 1 - visibility asks only the hidden side to follow the visible one.

    Source: Fan, equation 9.
    """
    reflected = vectors[mirror] * torch.tensor([-1.0, 1.0, 1.0]).to(vectors)
    squared = ((vectors - reflected) ** 2).sum(1)
    return squared.mean() if seen is None else (seen * squared).mean()


def uv_symmetry(
    texture: Float[Tensor, "height width channels"],
    mask: Float[Tensor, "height width"] | None = None,
    signs: Sequence[float] = (),
) -> Float[Tensor, ""]:
    """Mean absolute difference between a UV map and its left-right mirror image, inside a mask of skin.

    For maps of vectors `signs` says which channels change sign in a mirror, (-1, 1, 1) for normals in the model
    frame. The layout itself must be symmetric.

    Source: Jiang 2024, section 2.2, soft symmetry |V_uv (D - flip(D))|; Fan, equation 9, squares it.
    """
    flipped = texture.flip(1) * (torch.tensor(list(signs)).to(texture) if signs else 1.0)
    difference = (texture - flipped).abs().sum(-1)
    return difference.mean() if mask is None else (mask * difference).sum() / mask.sum().clamp(min=1e-6)


def smoothness(
    values: Float[Tensor, "vertices channels"], edges: Int[Tensor, "edges 2"]
) -> Float[Tensor, ""]:
    """Mean over the vertices of the mean squared difference from their neighbours.

    Source: Fan, equation 10 (positions) and 11 (albedo).
    """
    a, b = edges.unbind(1)
    squared = ((values[a] - values[b]) ** 2).sum(1)
    around, count = values.new_zeros(len(values)), values.new_zeros(len(values))
    ones = torch.ones_like(squared)
    around = around.index_add(0, a, squared).index_add(0, b, squared)
    count = count.index_add(0, a, ones).index_add(0, b, ones)
    return (around / count.clamp(min=1)).mean()


def offset_magnitude(weight: float = 1e-4) -> Term:
    """Small offsets, mm^2 (Fan, equation 8 with its weight of equation 12)."""
    return Term(lambda scene: magnitude(_offsets(scene)), weight, "offset magnitude")


def offset_symmetry(model: LinearFaceModel, weight: float = 1e-4) -> Term:
    """Symmetric offsets (Fan, equation 9 with its weight of equation 12)."""
    if model.topology.mirror is None:
        raise ValueError(f"model {model.name} does not say which vertices mirror each other")
    mirror = torch.from_numpy(model.topology.mirror).long().to(model.mean.device)
    return Term(lambda scene: symmetry(_offsets(scene), mirror), weight, "offset symmetry")


def smooth_shape(
    model: LinearFaceModel, weight: float = 0.08, of: Literal["offsets", "vertices"] = "offsets"
) -> Term:
    """Fan's equation 10 with its weight of equation 12.

    As printed it is of the "vertices", where it adds up squared edge lengths and shrinks the whole face; of the
    "offsets" it leaves the model's own shape alone.
    """
    edges = _edges(model)

    def loss(scene: Scene) -> Float[Tensor, ""]:
        return smoothness(_offsets(scene) if of == "offsets" else scene.shape(model), edges)

    return Term(loss, weight, "smooth shape")


def smooth_albedo(model: LinearFaceModel, weight: float = 0.1) -> Term:
    """Fan's equation 11 with its weight of equation 12, on linear albedo."""
    edges = _edges(model)
    return Term(lambda scene: smoothness(model.albedo(scene.albedo), edges), weight, "smooth albedo")


def shape_consistency(
    losses: Sequence[Callable[[Scene], Float[Tensor, ""]]], scenes: Sequence[Scene]
) -> Float[Tensor, ""]:
    """Mean loss of several photographs of one person when each is explained with another's identity.

    `losses[i]` is photograph i's. Each gets the identity of the next scene, the last that of the first.

    Source: Jiang 2024, section 2.1, the shape consistency loss (equation 7 of DECA).
    """
    if len(losses) != len(scenes) or len(scenes) < 2:
        raise ValueError(f"{len(losses)} losses of {len(scenes)} scenes: wanted one each, and at least two")
    others = [*scenes[1:], scenes[0]]
    values = [
        loss(replace(scene, identity=other.identity))
        for loss, scene, other in zip(losses, scenes, others, strict=True)
    ]
    return torch.stack(values).mean()


def _offsets(scene: Scene) -> Float[Tensor, "vertices 3"]:
    if scene.offsets is None:
        raise ValueError("this scene has no offsets; start from zeros of shape (vertices, 3)")
    return scene.offsets


def _edges(model: LinearFaceModel) -> Int[Tensor, "edges 2"]:
    return torch.from_numpy(unique_edges(model.topology.triangles)).to(model.mean.device)
