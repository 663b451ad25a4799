"""Two pictures compared where a mask allows: pixel distances and structural similarity.

Every function takes (rendered, photo, mask), sRGB in [0, 1], and returns a mean over the mask, so that a loss
does not depend on the picture's size; an empty mask gives zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Image = Float[Tensor, "height width 3"]
Mask = Bool[Tensor, "height width"]


def masked_l1(rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
    """Mean absolute difference.

    Source: Jiang 2024, "Learning Animatable 3D Face Models from In-the-Wild Images", sections 2.1 and 2.2: the
    photometric loss |V (I - I_r)| of the coarse and of the detailed face (equation 5 of DECA).
    """
    return (rendered - photo).abs()[mask].sum() / max(1, 3 * int(mask.sum()))


def masked_l2(rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
    """Mean squared difference.

    Source: Fan, "3D Human Face Reconstruction From Single Image", equation 4, whose mask is where the face was
    rendered.
    """
    return ((rendered - photo) ** 2)[mask].sum() / max(1, 3 * int(mask.sum()))


def masked_norm(rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
    """Mean Euclidean distance of the two colours (the 2,1-norm): a pixel far off counts once, not squared.

    Source: Thies et al., "Face2Face", CVPR 2016, section 4; the photometric term of Deng et al. 2019.
    """
    squared = ((rendered - photo) ** 2).sum(-1)[mask]
    # The root has no slope at zero; 1e-4 of full scale is far below a grey level.
    return (squared + 1e-8).sqrt().sum() / max(1, int(mask.sum()))


@dataclass(frozen=True)
class Ssim:
    """(1 - structural similarity) / 2, over the windows that lie inside the mask.

    Where no window does, over all windows that touch it, with what lies outside set to zero in both pictures.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, by
    kornia; the quality measure of Munireddy et al., "3D Face Reconstruction from 2D Images Using CNN", table 1.
    """

    window: int = 11
    name: str = "ssim"

    def __call__(self, rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
        from kornia.metrics import ssim  # on first use: it brings much

        if not bool(mask.any()):
            return 0.0 * rendered.sum()
        first, second = ((image * mask[..., None]).permute(2, 0, 1)[None] for image in (rendered, photo))
        similarity = ssim(first, second, self.window)[0].mean(0)
        # Eroded by half a window: the dilation of what is outside.
        outside = torch.nn.functional.max_pool2d((~mask)[None].float(), self.window, 1, self.window // 2)[0]
        whole = outside == 0
        value: Tensor = (0.5 * (1 - similarity))[whole if bool(whole.any()) else mask].mean()
        return value
