"""The person's own skin as a texture: the photograph laid out over the model's UV plane, without its light.

Where the camera sees the surface well, a texel is the photograph divided by the fitted irradiance. Elsewhere
it is the mirrored half of the face, where that is seen, and else the model's albedo; both are first brought
to the colour of the seen skin nearby, by a field that is smooth on the surface, and the parts are blended by
smooth weights. So no seam shows, neither between the parts nor across the cuts of the UV layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from facefit.fitting.result import FitResult
from facefit.mesh import adjacency, vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.overlay import face_vertices
from facefit.photo_view import PhotoView, smoothstep
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import linear_to_srgb
from facefit.uv_layout import texture_layout

DEFAULT_SIZE = 1024

# The cosine between normal and viewing ray from which a texel begins to be believed, and from which it fully
# is: towards the contour a pixel covers much skin, and an error of the fit lets the background in.
GRAZING = (0.2, 0.55)

# Irradiance below this part of its mean is not divided out fully: it would turn the noise of deep shadow into
# colour.
DARKEST = 0.25

# Over this length along the surface the model's albedo is brought to the colour that the photograph shows.
COLOUR_SMOOTHING_MM = 10.0


# Towards the border of the face the photograph fades out over this length.
BORDER_MM = 20.0


@dataclass(frozen=True)
class Texture:
    """De-lit skin in sRGB, row 0 at the top (v = 1). `seen` is 255 where a texel is the photograph's own."""

    srgb: UInt8[np.ndarray, "size size 3"]
    seen: UInt8[np.ndarray, "size size"]
    uv: Float[np.ndarray, "uvs 2"]
    uv_triangles: Int[np.ndarray, "triangles 3"]


@dataclass(frozen=True)
class _Texels:
    """The covered texels: flat index into the texture, and the surface point as a mixture of three vertices.
    """

    index: Int[Tensor, "texels"]
    corners: Int[Tensor, "texels 3"]
    barycentric: Float[Tensor, "texels 3"]
    size: int

    def of(self, attributes: Float[Tensor, "vertices channels"]) -> Float[Tensor, "texels channels"]:
        mixed = attributes[self.corners[:, 0]] * self.barycentric[:, :1]
        for k in (1, 2):
            mixed.addcmul_(attributes[self.corners[:, k]], self.barycentric[:, k : k + 1])
        return mixed

    def image(self, values: Float[Tensor, "texels channels"]) -> Float[Tensor, "channels size size"]:
        """Values on the texture's grid, zero where no triangle lies."""
        grid = torch.zeros(values.shape[1], self.size * self.size)
        grid[:, self.index] = values.T
        return grid.reshape(-1, self.size, self.size)


def bake_texture(result: FitResult, size: int = DEFAULT_SIZE) -> Texture:
    """The texture of a fit, `size` x `size`; takes a few tenths of a second at 1024."""
    with torch.no_grad():
        return _bake(result, size)


def _bake(result: FitResult, size: int) -> Texture:
    model, scene = result.model.to("cpu"), result.scene.to("cpu")
    uv, uv_triangles = texture_layout(model.topology, model.mean.numpy())
    texels = _texels(model, uv, uv_triangles, size)
    vertices = scene.shape(model)
    camera_points = scene.pose.apply(vertices)
    graph = adjacency(model.topology.triangles, model.n_vertices)
    normals = vertex_normals(vertices, model.triangles)
    toward_camera = -torch.nn.functional.normalize(camera_points, dim=1)
    facing = (normals @ scene.pose.camera_from_model.T * toward_camera).sum(1, keepdim=True)
    irradiance = _without_darkness(scene.lighting.irradiance(normals))
    albedo = model.albedo(scene.albedo).clamp(min=0.005)
    trust = smoothstep(facing, *GRAZING) * _face_weight(model, graph)

    view = PhotoView.of(result, camera_points, size)
    surface = torch.cat([camera_points, trust, irradiance], 1)
    tint = _tint(model, graph, albedo, *_look(view, surface, coarse=True))
    fill = albedo * tint

    surface = torch.cat([surface, fill], 1)
    skin, seen = _look(view, texels.of(surface))
    weight = _feather(texels, seen)
    here = texels.of(fill)
    if model.topology.mirror is not None:
        other_half = texels.of(surface[torch.from_numpy(model.topology.mirror).long()])
        mirrored, mirror_seen = _look(view, other_half)
        mirror_weight = _feather(texels, mirror_seen)
        mirrored *= here / other_half[:, 7:10]
        here = torch.lerp(here, mirrored, mirror_weight)
    color = torch.lerp(here, skin, weight)

    image = texels.image(torch.cat([linear_to_srgb(color.clamp(0, 1)), weight, torch.ones_like(weight)], 1))
    padded = _padded(image[:3], image[4:])
    return Texture(_bytes(padded.permute(1, 2, 0)), _bytes(image[3]), uv, uv_triangles)


def _texels(
    model: LinearFaceModel,
    uv: Float[np.ndarray, "uvs 2"],
    uv_triangles: Int[np.ndarray, "triangles 3"],
    size: int,
) -> _Texels:
    """The UV plane rasterised like a picture; charts may be mirrored, so both orientations count."""
    pixels = torch.from_numpy(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size)
    flat = torch.ones(len(uv), dtype=torch.float64)
    fragments = rasterize(pixels, flat, torch.from_numpy(uv_triangles), size, size, cull_back=False)
    index = fragments.triangle.reshape(-1)
    covered = (index >= 0).nonzero()[:, 0]
    corners = model.triangles[index[covered]]
    return _Texels(covered, corners, fragments.barycentric.reshape(-1, 3)[covered], size)


def _look(
    view: PhotoView, surface: Float[Tensor, "points channels"], coarse: bool = False
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 1"]]:
    """De-lit colour of surface points (camera xyz, trust, irradiance, ...) and how far it can be believed."""
    color, visible = view.sample(surface[:, :3], coarse)
    return color / surface[:, 4:7], visible * surface[:, 3:4]


def _tint(
    model: LinearFaceModel,
    graph: csr_array,
    albedo: Float[Tensor, "vertices 3"],
    skin: Float[Tensor, "vertices 3"],
    seen: Float[Tensor, "vertices 1"],
) -> Float[Tensor, "vertices 3"]:
    """Factor per vertex and channel that brings the model's albedo to the photographed skin, smooth on the
    surface.

    The logarithm g of the factor minimises sum w (g - log ratio)^2 + length^2 |grad g|^2 with a faint pull to
    the mean: seen vertices keep the photograph's low frequencies, hidden ones continue them harmonically.
    """
    if float(seen.sum()) < 1:
        return torch.ones_like(albedo)
    w = seen[:, 0].double().numpy()
    ratio = ((skin.clamp(min=0) + 0.02).log() - (albedo + 0.02).log()).clamp(-1.5, 1.5).double().numpy()
    mean = (w[:, None] * ratio).sum(0) / w.sum()
    joined = graph * (COLOUR_SMOOTHING_MM / _edge_mm(model, graph)) ** 2
    diagonal = joined.sum(1) + w + 1e-3
    system = (diags_array(diagonal) - joined).tocsc()
    factor = splu(system, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved = factor.solve(w[:, None] * (ratio - mean)) + mean
    return torch.from_numpy(np.exp(solved)).float()


def _feather(texels: _Texels, weight: Float[Tensor, "texels 1"]) -> Float[Tensor, "texels 1"]:
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


def _padded(
    color: Float[Tensor, "3 size size"], covered: Float[Tensor, "1 size size"]
) -> Float[Tensor, "3 size size"]:
    """Empty texels take the mean of the covered ones nearby, at the finest scale that has any (pull and
    push).

    Mip-mapping and bilinear filtering then never mix skin with an undefined colour at the edge of a chart.
    """
    if min(color.shape[1:]) < 2 or bool((covered > 0).all()):
        return color / covered.clamp(min=1e-6)
    total = avg_pool2d(torch.cat([color, covered])[None], 2, ceil_mode=True)[0]
    coarser = _padded(total[:3], total[3:])
    up = interpolate(coarser[None], size=color.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(covered > 0, color / covered.clamp(min=1e-6), up)


def _face_weight(model: LinearFaceModel, graph: csr_array) -> Float[Tensor, "vertices 1"]:
    """1 on the face and its eyes, which the photograph shows; 0 on scalp and neck, under hair and cloth.

    It rises from the border inwards over about `BORDER_MM`, by diffusion along the surface: n steps that mix
    a vertex half and half with its neighbours spread by sqrt(n / 2) edges.
    """
    weight = face_vertices(model).double().numpy()
    if not weight.all():
        count = graph.sum(1)
        mean = diags_array(1 / np.maximum(count, 1)) @ graph + diags_array((count == 0).astype(float))
        for _ in range(min(100, round(2 * (BORDER_MM / 2 / _edge_mm(model, graph)) ** 2))):
            weight = 0.5 * weight + 0.5 * (mean @ weight)
    return smoothstep(torch.from_numpy(weight).float()[:, None], 0.5, 0.9)


def _edge_mm(model: LinearFaceModel, graph: csr_array) -> float:
    """The typical length of an edge of the mean face."""
    start, end = graph.nonzero()
    return float((model.mean[start] - model.mean[end]).norm(dim=1).median())


def _without_darkness(irradiance: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
    """Irradiance with its dark end lifted smoothly, so that it can be divided by."""
    floor = DARKEST * irradiance.clamp(min=0).mean().clamp(min=1e-4)
    return torch.where(irradiance > floor, irradiance, floor * (irradiance / floor - 1).clamp(min=-1).exp())


def _bytes(values: Float[Tensor, "*shape"]) -> np.ndarray:
    return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).contiguous().numpy()
