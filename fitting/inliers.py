"""Which pixels of the photograph the fitted face explains: skin, rather than hair, hands, glasses or hard shadow."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from scipy.ndimage import uniform_filter

from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.residuals.photometric import robust_weight
from facefit.fitting.surface_samples import face_triangles
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.rendering.interpolate import interpolate
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import lambertian, linear_to_srgb

# A pixel is judged together with its neighbours within this many texels of a 256-texel crop: pores, lashes and
# highlights are small, what hides a face is not.
NEIGHBOURHOOD = 7


def inlier_mask(
    scene: Scene, model: LinearFaceModel, level: PyramidLevel, sigma: float, height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """False where the face region is seen but its colour is not the photograph's; at the photograph's own size.

    `sigma` is the size of the colour error (sRGB) of skin that is explained. Pixels off the face region are True:
    nothing is known against them.
    """
    rows, columns = level.usable.shape
    vertices = scene.shape(model)
    posed = scene.pose.apply(vertices)
    texels = (scene.camera.project(posed) - torch.from_numpy(level.origin).to(posed)) * level.scale
    fragments = rasterize(texels, posed[:, 2], model.triangles, rows, columns)
    attributes = torch.cat([vertex_normals(vertices, model.triangles), scene.surface_albedo(model)], 1)
    maps = interpolate(fragments, attributes, model.triangles)
    normals = torch.nn.functional.normalize(maps[..., :3], dim=-1).reshape(-1, 3)
    irradiance = scene.lighting.irradiance(normals).reshape(rows, columns, 3)
    predicted = linear_to_srgb(lambertian(maps[..., 3:], irradiance)).numpy()

    skin = np.zeros(len(model.topology.triangles), dtype=bool)
    skin[face_triangles(model.topology, model.n_vertices)] = True
    face = fragments.covered.numpy() & skin[fragments.triangle.numpy()]
    error = np.sqrt(((predicted - level.image) ** 2).mean(2))
    explained = np.where(face, robust_weight(error, sigma), 0.0)
    around = max(3, round(NEIGHBOURHOOD * rows / 256)) | 1
    share = uniform_filter(explained, around) / np.maximum(uniform_filter(face.astype(float), around), 1e-9)
    return _at_photo(~face | (share > 0.4), level, height, width)


def _at_photo(
    mask: Bool[np.ndarray, "rows columns"], level: PyramidLevel, height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """The level's mask at the photograph's size; True outside the crop."""
    found = np.ones((height, width), dtype=bool)
    texel = [
        ((np.arange(size) + 0.5 - start) * level.scale).astype(np.int64)
        for size, start in ((height, level.origin[1]), (width, level.origin[0]))
    ]
    inside = [
        np.flatnonzero((np.arange(size) >= start) & (t < limit))
        for size, start, t, limit in zip((height, width), level.origin[::-1], texel, mask.shape, strict=True)
    ]
    found[np.ix_(*inside)] = mask[np.ix_(texel[0][inside[0]], texel[1][inside[1]])]
    return found
