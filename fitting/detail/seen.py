"""What one photograph shows of a refined surface: a colour for each small triangle, and how far to believe it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn.functional import grid_sample

from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.refinement import Refinement
from facefit.fitting.detail.skin import bare_skin, smoothstep
from facefit.fitting.pyramid import PyramidLevel
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import srgb_to_linear

# The cosine between normal and line of sight from which a triangle begins to be believed, and from which it fully is.
GRAZING = (0.2, 0.5)
# Hidden by less counts as seen: the depth step between pixels on the side of a nose.
HIDDEN_MM = 2.5
# Logarithms are taken of linear colour plus this: below it the eight bits of a photograph are mostly noise.
DARK = 0.01


@dataclass(frozen=True, eq=False)
class SeenSurface:
    """The base surface of one photograph's scene at a refinement's triangles, and the photograph there.

    `normals` (model frame) vary smoothly from triangle to triangle; `log_color` is log(linear RGB + DARK), averaged
    over about a triangle; `seen` (0-1) is how well the camera sees it, `skin` (0-1) how surely it is bare skin.
    """

    operators: SurfaceOperators
    normals: Float[np.ndarray, "triangles 3"]
    albedo: Float[np.ndarray, "triangles 3"]
    log_color: Float[np.ndarray, "triangles 3"]
    seen: Float[np.ndarray, "triangles"]
    skin: Float[np.ndarray, "triangles"]

    @property
    def area_seen(self) -> float:
        """mm^2 of bare skin that the photograph shows."""
        return float((self.operators.area * self.seen * self.skin).sum())


def seen_surface(
    scene: Scene, model: LinearFaceModel, refinement: Refinement, level: PyramidLevel
) -> SeenSurface:
    """`level.usable` says which pixels may speak."""
    shape = scene.shape(model)
    coarse_normals = vertex_normals(shape, model.triangles).numpy()
    points = refinement.positions(shape.numpy(), coarse_normals)
    operators = SurfaceOperators.of(points, refinement.triangles)
    normals = operators.at_triangles(refinement.normals(coarse_normals))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    in_camera = scene.pose.apply(torch.from_numpy(operators.at_triangles(points)).float())
    texels = to_texels(scene, in_camera, level)
    pixel_mm = millimetres_per_texel(scene, model, level)
    color = softened(torch.from_numpy(level.image), spacing_mm(operators) / pixel_mm)
    log_color = torch.log(srgb_to_linear(color) + DARK)
    maps = torch.cat(
        [log_color, torch.from_numpy(level.usable)[..., None].float(), _depth(scene, model, level)], 2
    )
    found = _read(maps, texels).numpy().astype(np.float64)

    depth = in_camera[:, 2].numpy()
    sight = -in_camera.numpy() / np.maximum(np.linalg.norm(in_camera.numpy(), axis=1, keepdims=True), 1e-12)
    facing = ((normals @ scene.pose.camera_from_model.numpy().T) * sight).sum(1)
    seen = smoothstep(facing, *GRAZING) * (depth < found[:, 4] + HIDDEN_MM)
    seen = seen * smoothstep(found[:, 3], 0.5, 1.0) * _inside(texels, level)
    skin = operators.at_triangles(refinement.carry(bare_skin(model)))
    albedo = operators.at_triangles(refinement.carry(scene.surface_albedo(model).numpy()))
    return SeenSurface(operators, normals, albedo.clip(1e-3), found[:, :3], seen, skin)


def to_texels(
    scene: Scene, in_camera: Float[torch.Tensor, "points 3"], level: PyramidLevel
) -> Float[torch.Tensor, "points 2"]:
    """Points in camera axes to texels of a level, edge-based."""
    return (scene.camera.project(in_camera) - torch.from_numpy(level.origin).to(in_camera)) * level.scale


def millimetres_per_texel(scene: Scene, model: LinearFaceModel, level: PyramidLevel) -> float:
    """On the face, seen frontally."""
    face = torch.from_numpy(np.asarray(model.topology.region("face"), dtype=np.int64))
    depth = float(scene.pose.apply(scene.shape(model)[face])[:, 2].median())
    return depth / float(scene.camera.focal_px) / level.scale


def spacing_mm(operators: SurfaceOperators) -> float:
    """The side of an equilateral triangle of the median area."""
    return float(np.sqrt(4 / np.sqrt(3) * np.median(operators.area)))


def softened(
    image: Float[torch.Tensor, "height width 3"], ratio: float
) -> Float[torch.Tensor, "height width 3"]:
    """Averaged over squares of about `ratio` texels: what is finer than the mesh would appear as something else."""
    radius = round((ratio - 1) / 2)
    if radius < 1:
        return image
    channels = image.permute(2, 0, 1)[None]
    wide = torch.nn.functional.pad(channels, (radius,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(wide, 2 * radius + 1, 1)[0].permute(1, 2, 0)


def _depth(
    scene: Scene, model: LinearFaceModel, level: PyramidLevel
) -> Float[torch.Tensor, "height width 1"]:
    """Of the nearest surface; 0 where there is none."""
    rows, columns = level.usable.shape
    in_camera = scene.pose.apply(scene.shape(model))
    fragments = rasterize(to_texels(scene, in_camera, level), in_camera[:, 2], model.triangles, rows, columns)
    return torch.where(fragments.covered, fragments.depth, torch.zeros_like(fragments.depth))[..., None]


def _read(
    maps: Float[torch.Tensor, "height width channels"], texels: Float[torch.Tensor, "points 2"]
) -> Float[torch.Tensor, "points channels"]:
    """Bilinear."""
    extent = torch.tensor([maps.shape[1], maps.shape[0]]).to(texels)
    grid = torch.nan_to_num(texels / extent * 2 - 1, nan=2.0, posinf=2.0, neginf=-2.0).clamp(-2, 2)
    found = grid_sample(
        maps.permute(2, 0, 1)[None].float(), grid[None, None], padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def _inside(texels: Float[torch.Tensor, "points 2"], level: PyramidLevel) -> Bool[np.ndarray, "points"]:
    limit = torch.tensor([level.usable.shape[1], level.usable.shape[0]]) - 1.0
    inside: Bool[np.ndarray, "points"] = ((texels > 1) & (texels < limit)).all(1).numpy()
    return inside
