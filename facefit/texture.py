"""The person's own skin as a texture: the photograph laid out over the model's UV plane, with and without its
light.

Where the camera sees the surface well, a texel is the photograph divided by the fitted irradiance. Elsewhere
it is the mirrored half of the face, where that is seen, and else the model's albedo; both are first brought
to the colour of the seen skin nearby, by a field that is smooth on the surface, and the parts are blended by
smooth weights. So no seam shows, neither between the parts nor across the cuts of the UV layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from facefit.fitting.result import FitResult
from facefit.models.face_model import LinearFaceModel
from facefit.on_cpu import on_cpu
from facefit.photo_view import PhotoView
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import eight_bits, linear_to_srgb
from facefit.skin_surface import SkinSurface
from facefit.uv_layout import texture_layout

DEFAULT_SIZE = 1024


@dataclass(frozen=True)
class Texture:
    """De-lit skin in sRGB, row 0 at the top (v = 1).

    `lit` is the same with the light of the photograph left in: where it is seen, the photograph itself.
    `seen` is 255 where a texel is the photograph's own.
    """

    srgb: UInt8[np.ndarray, "size size 3"]
    lit: UInt8[np.ndarray, "size size 3"]
    seen: UInt8[np.ndarray, "size size"]
    uv: Float[np.ndarray, "uvs 2"]
    uv_triangles: Int[np.ndarray, "triangles 3"]


@dataclass(frozen=True)
class Texels:
    """Covered texels: flat index into the texture, and the surface point as a mixture of three vertices."""

    index: Int[Tensor, "texels"]
    corners: Int[Tensor, "texels 3"]
    barycentric: Float[Tensor, "texels 3"]
    size: int

    @staticmethod
    def of(
        model: LinearFaceModel,
        uv: Float[np.ndarray, "uvs 2"],
        uv_triangles: Int[np.ndarray, "triangles 3"],
        size: int,
    ) -> Texels:
        """The UV plane rasterised like a picture; charts may be mirrored, so both orientations count."""
        pixels = torch.from_numpy(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size)
        flat = torch.ones(len(uv), dtype=torch.float64)
        fragments = rasterize(pixels, flat, torch.from_numpy(uv_triangles), size, size, cull_back=False)
        triangle = fragments.triangle.reshape(-1)
        covered = (triangle >= 0).nonzero()[:, 0]
        barycentric = fragments.barycentric.reshape(-1, 3)[covered]
        return Texels(covered, model.triangles[triangle[covered]], barycentric, size)

    def subset(self, chosen: Bool[Tensor, "texels"]) -> Texels:
        return Texels(self.index[chosen], self.corners[chosen], self.barycentric[chosen], self.size)

    def mixed(self, attributes: Float[Tensor, "vertices channels"]) -> Float[Tensor, "texels channels"]:
        total = attributes[self.corners[:, 0]] * self.barycentric[:, :1]
        for k in (1, 2):
            total.addcmul_(attributes[self.corners[:, k]], self.barycentric[:, k : k + 1])
        return total

    def image(self, values: Float[Tensor, "texels channels"]) -> Float[Tensor, "channels size size"]:
        """Values on the texture's grid, zero where no triangle lies."""
        grid = torch.zeros(values.shape[1], self.size * self.size)
        grid[:, self.index] = values.T
        return grid.reshape(-1, self.size, self.size)


def bake_texture(result: FitResult, size: int = DEFAULT_SIZE) -> Texture:
    """The texture of a fit, `size` x `size`; takes a few tenths of a second at 1024."""
    result = on_cpu(result)
    model = result.model
    uv, uv_triangles = texture_layout(model.topology, model.mean.numpy())
    with torch.no_grad():
        texels = Texels.of(model, uv, uv_triangles, size)
        skin, lit, weight = _colors(model, texels, *SkinSurface.of(result, size))
        colors = linear_to_srgb(torch.cat([skin, lit], 1).clamp(0, 1))
        image = texels.image(torch.cat([colors, weight, torch.ones_like(weight)], 1))
        filled = padded(image[:6], image[7:]).permute(1, 2, 0)
    return Texture(
        eight_bits(filled[..., :3]), eight_bits(filled[..., 3:]), eight_bits(image[6]), uv, uv_triangles
    )


def _colors(
    model: LinearFaceModel, texels: Texels, surface: SkinSurface, view: PhotoView
) -> tuple[Float[Tensor, "texels 3"], Float[Tensor, "texels 3"], Float[Tensor, "texels 1"]]:
    """Linear colour of each texel without and with the photograph's light, and the photograph's share in it."""
    channels = surface.channels
    here = SkinSurface.from_channels(texels.mixed(channels))
    photo, visible = view.sample(here.camera_points)
    weight = _feather(texels, visible * here.trust)
    hidden = here.fill
    if model.topology.mirror is not None:
        # The other half of the face is only asked for texels that the photograph does not decide alone.
        rest = weight[:, 0] < 1
        other = texels.subset(rest)
        there = SkinSurface.from_channels(
            other.mixed(channels[torch.from_numpy(model.topology.mirror).long()])
        )
        mirrored, mirror_visible = view.sample(there.camera_points)
        mirrored = mirrored / there.light * here.fill[rest] / there.fill
        share = _feather(other, mirror_visible * there.trust)
        hidden = hidden.index_put((rest.nonzero()[:, 0],), torch.lerp(hidden[rest], mirrored, share))
    skin = torch.lerp(hidden, photo / here.light, weight)
    lit = torch.lerp(hidden * here.shown_light, photo, weight)
    return skin, lit, weight


def _feather(texels: Texels, weight: Float[Tensor, "texels 1"]) -> Float[Tensor, "texels 1"]:
    """Shrink and soften a weight, so that it falls to zero before the surface stops being seen.

    By about 2 mm on a head that fills the plane: enough for an edge, and it leaves the white of the eyes.
    """
    both = texels.image(torch.cat([weight, torch.ones_like(weight)], 1))[None]
    # A blur leaves no detail that half the resolution could not hold, at a quarter of the work.
    both = avg_pool2d(both, 2, ceil_mode=True)
    radius = max(1, texels.size // 512)
    for _ in range(2):
        both = avg_pool2d(both, 2 * radius + 1, 1, radius)
    share = both[:, :1] / both[:, 1:].clamp(min=1e-6)
    blurred = interpolate(share, size=(texels.size, texels.size), mode="bilinear", align_corners=False)
    return torch.minimum(weight, (2 * blurred.reshape(-1)[texels.index, None] - 1).clamp(min=0))


def padded(
    color: Float[Tensor, "channels size size"], covered: Float[Tensor, "1 size size"]
) -> Float[Tensor, "channels size size"]:
    """Empty texels take the mean of the covered ones nearby, at the finest scale that has any (pull and
    push).

    Mip-mapping and bilinear filtering then never mix skin with an undefined colour at the edge of a chart.
    """
    if min(color.shape[1:]) < 2 or bool((covered > 0).all()):
        return color / covered.clamp(min=1e-6)
    total = avg_pool2d(torch.cat([color, covered])[None], 2, ceil_mode=True)[0]
    coarser = padded(total[:-1], total[-1:])
    up = interpolate(coarser[None], size=color.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(covered > 0, color / covered.clamp(min=1e-6), up)
