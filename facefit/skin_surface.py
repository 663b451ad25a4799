"""What each vertex contributes to the texture: where it is seen, its light, and a colour for where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu
from torch import Tensor

from facefit.face_weight import face_vertices, face_weight
from facefit.fitting.result import FitResult
from facefit.mesh import adjacency, vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.photo_view import PhotoView, smoothstep

# The cosine between normal and viewing ray from which a point begins to be believed, and from which it fully
# is: towards the contour a pixel covers much skin, and an error of the fit lets the background in.
GRAZING = (0.2, 0.55)

# Irradiance below this part of its mean is not divided out fully: it would turn noise of deep shadow into
# colour.
DARKEST = 0.25

# Over this length along the surface the model's albedo is brought to the colour that the photograph shows.
COLOUR_SMOOTHING_MM = 10.0

# The colour of seen skin reaches sqrt(1 / this) times the smoothing length into hidden skin: about 7 cm.
FORGETTING = 0.02

# A vertex that is darker than the skin by this logarithm counts half.
UNLIKELY = 0.6

# Towards the border of the face the photograph fades out over this length.
BORDER_MM = 20.0

# Skin does not lie in patches half as bright again as the face: beyond this (the logarithm of the factor) a
# bright patch is light that the fit has missed, and is taken out. Dark patches are left: they may be beard or
# hair.
BRIGHT_PATCH = 0.25


@dataclass(frozen=True)
class SkinSurface:
    """Per vertex: camera axes (mm), trust in the photograph (0-1), light to divide out, colour to fill in
    (linear), and the light under which to show what was filled in.
    """

    camera_points: Float[Tensor, "vertices 3"]
    trust: Float[Tensor, "vertices 1"]
    light: Float[Tensor, "vertices 3"]
    fill: Float[Tensor, "vertices 3"]
    shown_light: Float[Tensor, "vertices 3"]

    @staticmethod
    def of(result: FitResult, size: int) -> tuple[SkinSurface, PhotoView]:
        """The surface of a fit and the photograph around it, for a texture of `size` texels a side."""
        model, scene = result.model, result.scene
        vertices = scene.shape(model)
        camera_points = scene.pose.apply(vertices)
        normals = vertex_normals(vertices, model.triangles)
        toward_camera = -torch.nn.functional.normalize(camera_points, dim=1)
        facing = (normals @ scene.pose.camera_from_model.T * toward_camera).sum(1, keepdim=True)
        graph = adjacency(model.topology.triangles, model.n_vertices)
        edge_mm = _edge_mm(model, graph)
        trust = smoothstep(facing, *GRAZING) * face_weight(model, BORDER_MM)[:, None]

        view = PhotoView.of(result, camera_points, size)
        irradiance = scene.lighting.irradiance(normals)
        light = _without_darkness(irradiance)
        albedo = scene.surface_albedo(model).clamp(min=0.005)
        color, visible = view.sample(camera_points, coarse=True)
        tint, excess = _tint(
            graph * (COLOUR_SMOOTHING_MM / edge_mm) ** 2, albedo, color / light, visible * trust
        )
        shown = torch.lerp(_plain(light, face_vertices(model)), light, trust)
        surface = SkinSurface(camera_points, trust, light * excess.exp(), albedo * tint / excess.exp(), shown)
        return surface, view

    @property
    def channels(self) -> Float[Tensor, "vertices 13"]:
        return torch.cat([self.camera_points, self.trust, self.light, self.fill, self.shown_light], 1)

    @staticmethod
    def from_channels(channels: Float[Tensor, "points 13"]) -> SkinSurface:
        parts = torch.tensor_split(channels, (3, 4, 7, 10), dim=1)
        return SkinSurface(*parts)


def _tint(
    stiffness: csr_array,
    albedo: Float[Tensor, "vertices 3"],
    skin: Float[Tensor, "vertices 3"],
    seen: Float[Tensor, "vertices 1"],
) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "vertices 1"]]:
    """Factor that brings the model's albedo to the photographed skin, smooth on the surface; its excess
    brightness.

    The logarithm g of the factor minimises sum w (g - log ratio)^2 + length^2 |grad g|^2 with a pull to the
    median: seen vertices keep the photograph's low frequencies, hidden ones continue them and forget them with
    the distance. Vertices far darker than the median (hair over the forehead) count little.
    """
    if float(seen.sum()) < 1:
        return torch.ones_like(albedo), torch.zeros_like(seen)
    w = seen[:, 0].double().numpy()
    ratio = ((skin.clamp(min=0) + 0.02).log() - (albedo + 0.02).log()).clamp(-1.5, 1.5).double().numpy()
    middle = np.median(ratio[w > 0.5 * w.max()], axis=0)
    darker = np.maximum(0, (middle - ratio).mean(1))
    w = w / (1 + (darker / UNLIKELY) ** 2)
    diagonal = stiffness.sum(1) + w + FORGETTING
    factor = splu(
        (diags_array(diagonal) - stiffness).tocsc(), diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    g = torch.from_numpy(factor.solve(w[:, None] * (ratio - middle)) + middle).float()
    brightness = g.mean(1, keepdim=True)
    above = (brightness - brightness[seen > 0.5].median() - BRIGHT_PATCH).clamp(min=0)
    # What is above the limit is halved at first and never exceeds another half of the limit.
    kept = BRIGHT_PATCH / 2 * (1 - (-above / BRIGHT_PATCH).exp())
    return g.exp(), above - kept


def _edge_mm(model: LinearFaceModel, graph: csr_array) -> float:
    """The typical length of an edge of the mean face."""
    start, end = graph.nonzero()
    return float((model.mean[start] - model.mean[end]).norm(dim=1).median())


def _plain(light: Float[Tensor, "vertices 3"], face: Bool[Tensor, "vertices"]) -> Float[Tensor, "vertices 3"]:
    """Light of the face's mean colour and within its range of brightness.

    What nine harmonics say of directions that the photograph does not show (the crown, the shoulders) is an
    extrapolation, in strange colours at times.
    """
    brightness = light.mean(1, keepdim=True)
    low, high = brightness[face].quantile(0.02), brightness[face].quantile(0.98)
    mean = light[face].mean(0)
    return brightness.clamp(low, high) * mean / mean.mean()


def _without_darkness(irradiance: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices 3"]:
    """Irradiance with its dark end lifted smoothly, so that it can be divided by."""
    floor = DARKEST * irradiance.clamp(min=0).mean().clamp(min=1e-4)
    return torch.where(irradiance > floor, irradiance, floor * (irradiance / floor - 1).clamp(min=-1).exp())
