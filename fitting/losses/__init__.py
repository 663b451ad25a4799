"""Losses that are no sum of whitened squares, for `Adam`: every one of the source papers, and their relatives.

A loss is any function of a scene that returns one number; `Term` gives it a weight and the name under which it
appears in the report. What compares two pictures (`masked_l1`, `Ssim`, `Perceptual`, ...) is a function of
(rendered, photo, mask); a `View` makes a loss of it.

    view = View(observation, model, size=224)
    losses = [view.term(masked_l2), view.term(Recognition(Features(network)), 20.0), landmark_loss(...)]
    scene, report = Adam(300).solve(losses, start, free=("identity", "expression", "rotation", "translation"))
"""

from __future__ import annotations

from facefit.fitting.losses.features import Features, IdMrf, Perceptual, Recognition
from facefit.fitting.losses.image import Ssim, masked_l1, masked_l2, masked_norm
from facefit.fitting.losses.points import closure_loss, landmark_loss, shape_loss
from facefit.fitting.losses.regularisers import (
    magnitude,
    offset_magnitude,
    offset_symmetry,
    shape_consistency,
    smooth_albedo,
    smooth_shape,
    smoothness,
    symmetry,
    uv_symmetry,
)
from facefit.fitting.losses.silhouette import iou_loss, silhouette_loss
from facefit.fitting.losses.term import Term
from facefit.fitting.losses.view import View

__all__ = [
    "Features",
    "IdMrf",
    "Perceptual",
    "Recognition",
    "Ssim",
    "Term",
    "View",
    "closure_loss",
    "iou_loss",
    "landmark_loss",
    "magnitude",
    "masked_l1",
    "masked_l2",
    "masked_norm",
    "offset_magnitude",
    "offset_symmetry",
    "shape_consistency",
    "shape_loss",
    "silhouette_loss",
    "smooth_albedo",
    "smooth_shape",
    "smoothness",
    "symmetry",
    "uv_symmetry",
]
