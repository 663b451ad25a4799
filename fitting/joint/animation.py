"""One person's detail, told apart and put to use: the model's expressions carry the wrinkles that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.joint.wrinkles import AnimatableDetail, separate, strain
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
    return separate(heights, expressions, reach)


def animated(results: Sequence[FitResult], detail: AnimatableDetail) -> list[FitResult]:
    """The results with the detail in place of each photograph's own displacements.

    What stays becomes the scenes' offsets. What moves joins the expressions of the model, along the normals of the
    neutral face: whatever is made of the results afterwards (a neutral head, morph targets) has it without being told.
    """
    first = results[0]
    normals = vertex_normals(plain(first.scene).neutral_shape(first.model), first.model.triangles)
    model = wrinkled(first.model, detail, normals)
    offsets = torch.from_numpy(detail.static_mm).to(normals)[:, None] * normals
    return [
        replace(result, model=model, scene=replace(result.scene, offsets=offsets), detail=None)
        for result in results
    ]


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
