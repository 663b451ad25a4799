"""Where the face is against where it should be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from facefit.fitting.losses.term import Term
from facefit.fitting.losses.view import View
from facefit.models.scene import Scene
from facefit.rendering.antialias import coverage
from facefit.rendering.soft_silhouette import soft_silhouette


def iou_loss(
    silhouette: Float[Tensor, "height width"], target: Float[Tensor, "height width"]
) -> Float[Tensor, ""]:
    """1 - intersection / union of two maps in [0, 1].

    Source: Liu et al., "Soft Rasterizer", ICCV 2019, the silhouette loss of section 5.1; the renderer of Fan,
    "3D Human Face Reconstruction From Single Image".
    """
    both = (silhouette * target).sum()
    union = (silhouette + target).sum() - both
    return 1 - both / union.clamp(min=1e-6)


def silhouette_loss(
    view: View,
    target: Bool[np.ndarray, "height width"],
    weight: float = 1.0,
    blur_px: float | None = None,
) -> Term:
    """Intersection over union of the rendered mesh with a mask of the photograph's size.

    With `blur_px` by the soft silhouette, whose gradient reaches some three times that far but which swells
    with the fineness of the mesh; without, by antialiased edges, unbiased, for the last steps. Pixels that are
    not usable do not count.
    """
    wanted = view.of(target) * view.usable

    def loss(scene: Scene) -> Float[Tensor, ""]:
        cropped = view.scene(scene)
        points = cropped.pose.apply(cropped.shape(view.model))
        pixels, triangles = cropped.camera.project(points), view.model.triangles
        if blur_px is None:
            found = coverage(pixels, points[:, 2], triangles, view.size, view.size)
        else:
            found = soft_silhouette(pixels, points[:, 2], triangles, view.size, view.size, blur_px)
        return iou_loss(found * view.usable, wanted.to(found))

    return Term(loss, weight, "silhouette")
