"""How well a fitted rendering explains its photograph: PSNR and SSIM over the skin of the face."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from facefit.benchmarks.run import Row


def face_agreement(result: Any, free: Bool[np.ndarray, "h w"] | None = None) -> Row:
    """Of a FitResult against its own photograph, on the model's region "face" as rendered.

    `free` leaves out pixels known to be occluded. Where an occluder is not known it counts against the fit:
    the figure says how much of what is seen is explained. More freedom of texture raises it and says nothing
    about shape.
    """
    import facefit as ff

    model = result.model
    with torch.no_grad():
        picture = ff.render(result.scene, model)
    inside = np.zeros(model.n_vertices, bool)
    inside[np.asarray(model.topology.region("face"), np.int64)] = True
    skin = np.append(inside[np.asarray(model.topology.triangles)].all(1), False)
    where = skin[picture.triangle.numpy()]
    if free is not None:
        where = where & free
    photo = result.observation.image.astype(np.float64) / 255
    return image_agreement(picture.color.clamp(0, 1).double().numpy(), photo, where)


def image_agreement(
    mine: Float[np.ndarray, "h w 3"], photo: Float[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"]
) -> Row:
    """PSNR in dB and SSIM (Wang et al. 2004, 7 x 7 windows) over some pixels."""
    from skimage import metrics

    if where.sum() < 100:
        return {}
    filled = np.where(where[..., None], mine, photo)
    similarity: Any = metrics.structural_similarity
    _, local = similarity(filled, photo, channel_axis=2, data_range=1.0, full=True)
    error = float(((mine - photo)[where] ** 2).mean())
    return {"PSNR dB": -10 * math.log10(max(error, 1e-10)), "SSIM": float(local.mean(2)[where].mean())}
