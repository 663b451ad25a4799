"""Which of a model's surface samples a photograph shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from facefit.fitting.projection import camera_rotation
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.same import Same
from facefit.fitting.surface_samples import SurfaceSamples
from facefit.kernels.rasterize import rasterize_kernel
from facefit.kernels.visibility import pose_kernel, seen_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

# Beyond this angle between surface and line of sight (cosine) a sample is a sliver of pixels that a millimetre of
# wrong shape moves onto the background.
GRAZING_COSINE = 0.25
# A sample further behind the z-buffer than this is hidden: above the depth step between neighbouring pixels of a
# cheek at the coarsest level, below the depth of a nose.
HIDDEN_MM = 4.0
# The z-buffer that decides what is hidden needs no more than this many pixels a side.
VISIBILITY_PX = 96


@dataclass(frozen=True, eq=False)
class Seen:
    """Samples seen by the camera: which, their pixel in the photograph, the area of a picture they cover.

    `area_px` is in pixels of the photograph.
    """

    chosen: Int[np.ndarray, "n"]
    pixels: Float[np.ndarray, "n 2"]
    area_px: Float[np.ndarray, "n"]


def visible_samples(
    model: LinearFaceModel, samples: SurfaceSamples, level: PyramidLevel, scene: Scene
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Samples that face the camera, are not hidden and lie on usable pixels, with the texels each covers."""
    height, width = level.usable.shape
    # The levels of one photograph show the same square, but for rounding.
    frame = (*level.origin.tolist(), round(width / level.scale, 3), round(height / level.scale, 3))
    pose, camera = scene.pose, scene.camera
    view = Same(pose.rotation, pose.translation_mm, camera.focal_px, camera.principal_point)
    seen = _seen(model, samples, _shape_of(scene), view, frame)
    texel = (seen.pixels - level.origin) * level.scale
    # Two texels from the border, as the image is read.
    inside = ((texel >= 1.5) & (texel < np.array([width - 1.5, height - 1.5]))).all(1)
    column, row = texel[inside].astype(np.int64).T
    inside[inside] = level.usable[row, column]
    return seen.chosen[inside], seen.area_px[inside] * level.scale**2


def shape_at(model: LinearFaceModel, scene: Scene) -> Float[Tensor, "vertices 3"]:
    """`scene.shape(model)`, kept: a fit asks for it several times while the shape rests."""
    return _vertices(model, _shape_of(scene))


def _shape_of(scene: Scene) -> Same:
    return Same(scene.identity, scene.expression, scene.offsets)


@lru_cache(maxsize=2)
def _vertices(model: LinearFaceModel, shape: Same) -> Float[Tensor, "vertices 3"]:
    identity, expression, offsets = shape.objects
    vertices = model.vertices(identity, expression)
    return vertices if offsets is None else vertices + offsets


# Successive stages begin where the last one ended: one picture serves both.
@lru_cache(maxsize=2)
def _seen(
    model: LinearFaceModel,
    samples: SurfaceSamples,
    shape: Same,
    view: Same,
    frame: tuple[float, float, float, float],
) -> Seen:
    """Samples seen in a frame of the photograph (left, top, width, height), border and mask aside."""
    rotation_vector, translation, focal_px, principal_point = view.objects
    left, top, width, height = frame
    ratio = min(1.0, VISIBILITY_PX / max(width, height))
    rows, columns = max(1, round(height * ratio)), max(1, round(width * ratio))
    focal = float(focal_px)
    centre = principal_point.numpy().astype(np.float64)
    coarse_focal, coarse_centre = focal * ratio, (centre - [left, top]) * ratio
    vertices = _vertices(model, shape).numpy()
    camera_points, pixels = np.empty(vertices.shape), np.empty((len(vertices), 2))
    inverse_depth = np.empty(len(vertices))
    pose_kernel(
        vertices,
        camera_rotation(rotation_vector.numpy().astype(np.float64)),
        translation.numpy().astype(np.float64),
        coarse_focal,
        coarse_centre,
        camera_points,
        pixels,
        inverse_depth,
    )
    nearest, ids = np.empty((rows, columns)), np.empty((rows, columns), dtype=np.int32)
    rasterize_kernel(pixels, inverse_depth, corners_of(model), True, nearest, ids)
    count = len(samples)
    seen, points, cosine = np.empty(count, dtype=bool), np.empty((count, 3)), np.empty(count)
    seen_kernel(
        camera_points,
        samples.corner,
        samples.barycentric,
        coarse_focal,
        coarse_centre,
        nearest,
        GRAZING_COSINE,
        HIDDEN_MM,
        seen,
        points,
        cosine,
    )
    chosen = np.flatnonzero(seen)
    points = points[chosen]
    area = samples.area_mm2[chosen] * cosine[chosen] * (focal / points[:, 2]) ** 2
    return Seen(chosen, focal * points[:, :2] / points[:, 2:] + centre, area)


@lru_cache(maxsize=4)
def corners_of(model: LinearFaceModel) -> Int[np.ndarray, "triangles 3"]:
    """The model's triangles as the kernels read them."""
    return np.ascontiguousarray(model.topology.triangles, dtype=np.int32)
