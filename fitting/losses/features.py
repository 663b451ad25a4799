"""Pictures compared by what a network sees in them: perceptual, recognition and texture losses.

No network comes with facefit: hand in any torch module that takes a (1, 3, size, size) picture, in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facefit.fitting.losses.image import Image, Mask

# Layers whose output, in training mode, depends on chance or on what they saw before.
UNSTEADY = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True, eq=False)
class Features:
    """A torch module as the eye: resize, normalise, run, and take its output or that of its named `layers`.

    The picture, sRGB in [0, 1], is resampled to `size` (None: as it is) and becomes (x - mean) / std; the
    defaults map to [-1, 1] as ArcFace wants, ImageNet networks take mean (0.485, 0.456, 0.406) and std
    (0.229, 0.224, 0.225). `bgr` reverses the channels. The module's own parameters get no gradient from `Adam`.
    """

    module: nn.Module
    size: int | None = 112
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    layers: tuple[str, ...] = ()
    bgr: bool = False

    def __post_init__(self) -> None:
        if any(m.training and isinstance(m, UNSTEADY) for m in self.module.modules()):
            raise ValueError(
                f"{type(self.module).__name__} is in training mode, where its output depends on chance "
                "or on earlier pictures: call .eval() first"
            )
        if missing := set(self.layers) - set(dict(self.module.named_modules())):
            raise ValueError(f"{type(self.module).__name__} has no layer {', '.join(sorted(missing))}")

    def __call__(self, image: Image) -> list[Tensor]:
        x = image.permute(2, 0, 1)[None]
        if self.size is not None and self.size != x.shape[-1]:
            x = nn.functional.interpolate(
                x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        mean, std = (torch.tensor(v).to(x)[:, None, None] for v in (self.mean, self.std))
        x = (x - mean) / std
        x = x.flip(1) if self.bgr else x
        with self._caught() as caught:
            output = self.module(x)
        return [caught[name] for name in self.layers] if self.layers else [_tensor(output)]

    @contextmanager
    def _caught(self) -> Iterator[dict[str, Tensor]]:
        """The outputs of the named layers during one run."""
        found: dict[str, Tensor] = {}
        modules = dict(self.module.named_modules())

        def catch(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[name] = _tensor(output)

            return modules[name].register_forward_hook(hook)

        handles = [catch(name) for name in self.layers]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def pair(
        self, rendered: Image, photo: Image, mask: Mask, over_photo: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """Features of both pictures, outside the mask black in both or the photograph in both."""
        inside = mask[..., None]
        if over_photo:
            first, second = torch.where(inside, rendered, photo), photo
        else:
            first, second = rendered * inside, photo * inside
        with torch.no_grad():
            target = self(second)
        return list(zip(self(first), target, strict=True))


def _tensor(output: Any) -> Tensor:
    """The tensor in what a module returns: itself, or the first of several."""
    while isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the module returns {type(output).__name__}, wanted a tensor or a tuple that begins with one"
        )
    return output


@dataclass(frozen=True, eq=False)
class Perceptual:
    """Mean squared distance of features, summed over the layers.

    Source: Munireddy et al., "3D Face Reconstruction from 2D Images Using CNN", equation 2; a mean over a
    layer's numbers where the paper has their sum, so that layers of different sizes weigh alike.
    """

    features: Features
    over_photo: bool = False
    name: str = "perceptual"

    def __call__(self, rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
        pairs = self.features.pair(rendered, photo, mask, self.over_photo)
        return torch.stack([((a - b) ** 2).mean() for a, b in pairs]).sum()


@dataclass(frozen=True, eq=False)
class Recognition:
    """How differently a face-recognition network sees the two pictures.

    "cosine": 1 - cos, the identity consistency of Jiang 2024, section 2.1 (equation 6 of DECA). "l1": mean
    absolute difference, Fan, "3D Human Face Reconstruction From Single Image", equation 6, with weight 20 in
    its equations 7 and 12. "l2": mean squared difference.
    """

    features: Features
    distance: Literal["cosine", "l1", "l2"] = "cosine"
    over_photo: bool = False
    name: str = "recognition"

    def __call__(self, rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
        pairs = self.features.pair(rendered, photo, mask, self.over_photo)
        return torch.stack([self._of(a.flatten(), b.flatten()) for a, b in pairs]).sum()

    def _of(self, a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> Float[Tensor, ""]:
        match self.distance:
            case "cosine":
                return 1 - nn.functional.cosine_similarity(a, b, dim=0)
            case "l1":
                return (a - b).abs().mean()
            case "l2":
                return ((a - b) ** 2).mean()


@dataclass(frozen=True, eq=False)
class IdMrf:
    """Implicit diversified Markov random field: every patch of the photograph wants a patch of its own like it.

    Patches are the feature vectors of a layer. With d_ij = (1 - cos(v_i, s_j)) / 2 between rendered v and
    photographed s, both less the photograph's mean, and w_ij = exp((1 - d_ij / (min_j d_ij + 1e-5)) /
    `stretch`) over its sum along j, the loss is -log mean_j max_i w_ij, summed over the layers.

    Source: Jiang 2024, section 2.2, on layers conv3_2 and conv4_2 of VGG19; Wang et al., "Image Inpainting via
    Generative Multi-column Convolutional Neural Networks", NeurIPS 2018, section 3.2, as their code computes it.
    """

    features: Features
    stretch: float = 0.5
    over_photo: bool = False
    name: str = "id-mrf"

    def __call__(self, rendered: Image, photo: Image, mask: Mask) -> Float[Tensor, ""]:
        pairs = self.features.pair(rendered, photo, mask, self.over_photo)
        return torch.stack([self._of(a[0].flatten(1).T, b[0].flatten(1).T) for a, b in pairs]).sum()

    def _of(self, v: Float[Tensor, "n channels"], s: Float[Tensor, "n channels"]) -> Float[Tensor, ""]:
        middle = s.mean(0)
        v, s = (nn.functional.normalize(x - middle, dim=1) for x in (v, s))
        distance = 0.5 * (1 - v @ s.T).clamp(min=0)
        relative = distance / (distance.amin(1, keepdim=True) + 1e-5)
        weight = torch.softmax((1 - relative) / self.stretch, dim=1)
        return -weight.amax(0).mean().log()
