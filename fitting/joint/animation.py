"""One person's detail, told apart and put to use: the model's expressions carry the wrinkles that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.detail.refinement import Refinement
from facefit.fitting.detail.stage import Detail
from facefit.fitting.joint.wrinkles import (
    NOISE_MM,
    STATIC_MM,
    AnimatableDetail,
    separate,
    strain,
)
from facefit.fitting.result import FitResult
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene


def animatable(results: Sequence[FitResult]) -> AnimatableDetail:
    """What of the displacements of one person's photographs stays, and what goes with which expression."""
    model = results[0].model
    heights = np.stack([height_mm(result.scene, model) for result in results])
    expressions = np.stack([result.scene.expression.double().numpy() for result in results])
    neutral = plain(results[0].scene).neutral_shape(model).double().numpy()
    reach = strain(neutral, model.topology.triangles, model.expression_basis.double().numpy())
    return separate(heights, expressions, reach, shown(heights))


def shown(heights: Float[np.ndarray, "photographs vertices"]) -> Float[np.ndarray, "photographs vertices"]:
    """1 where a photograph has a say: what it does not show is not moved at all, which is no flatness seen."""
    share: Float[np.ndarray, "photographs vertices"] = (heights != 0).astype(np.float64)
    return share


def animated(results: Sequence[FitResult], detail: AnimatableDetail) -> list[FitResult]:
    """The results with the detail in place of each photograph's own displacements.

    What stays becomes the scenes' offsets. What moves joins the expressions of the model, along the normals of the
    neutral face: whatever is made of the results afterwards (a neutral head, morph targets) has it without being told.
    What is finer than the mesh stays beside it, one map for all.
    """
    first = results[0]
    normals = vertex_normals(plain(first.scene).neutral_shape(first.model), first.model.triangles)
    model = wrinkled(first.model, detail, normals)
    offsets = torch.from_numpy(detail.static_mm).to(normals)[:, None] * normals
    return [
        replace(result, model=model, scene=replace(result.scene, offsets=offsets), detail=finer)
        for result, finer in zip(results, in_common([result.detail for result in results]), strict=True)
    ]


def in_common(details: Sequence[Detail | None]) -> list[Detail | None]:
    """The finest of the refinements for all, with the displacement they show in common; colours stay each one's own.

    So fine a relief is taken for what stays: against a prior of `STATIC_MM` each photograph errs by `NOISE_MM`.
    """
    known = [detail for detail in details if detail is not None]
    if not known:
        return list(details)
    finest = max((detail.refinement for detail in known), key=lambda refinement: refinement.n_vertices)
    heights = np.stack([carried(detail.displacement_mm, detail.refinement, finest) for detail in known])
    displacement = heights.sum(0) / (shown(heights).sum(0) + (NOISE_MM / STATIC_MM) ** 2)
    return [
        None
        if detail is None
        else Detail(
            finest,
            displacement.astype(np.float32),
            carried(detail.albedo_offsets, detail.refinement, finest),
        )
        for detail in details
    ]


def carried(
    values: Float[np.ndarray, "before *rest"], refinement: Refinement, finest: Refinement
) -> Float[np.ndarray, "fine *rest"]:
    """Values on one refinement of a model, on another that is cut at least as often."""
    for middles in finest.middles[len(refinement.middles) :]:
        values = np.concatenate([values, values[middles].mean(1)])
    return values


def wrinkled(
    model: LinearFaceModel, detail: AnimatableDetail, normals: Float[Tensor, "vertices 3"]
) -> LinearFaceModel:
    """The model with the wrinkles of its expressions in their modes."""
    wrinkles = torch.from_numpy(detail.wrinkles_mm).to(normals)
    return replace(model, expression_basis=model.expression_basis + wrinkles[:, :, None] * normals)


def height_mm(scene: Scene, model: LinearFaceModel) -> Float[np.ndarray, "vertices"]:
    """The scene's offsets along the normals of the surface they are added to."""
    if scene.offsets is None:
        return np.zeros(model.n_vertices)
    normals = vertex_normals(plain(scene).shape(model), model.triangles)
    height: Float[np.ndarray, "vertices"] = (scene.offsets * normals).sum(1).double().numpy()
    return height


def plain(scene: Scene) -> Scene:
    """The scene without offsets."""
    return replace(scene, offsets=None)
