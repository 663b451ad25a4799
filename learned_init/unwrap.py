"""The face as it would look from everywhere at once: a photograph read through a scene, pose and lens taken out.

A cylinder around the mean face gives every model the same picture: cell by cell the same place of a face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from facefit.learned_init.crop import Crop
from facefit.learned_init.points import DensePoints
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.rendering.rasterize import rasterize

# Cells a side where the surface is known, and pixels a side of the picture, which is read between them.
CELLS, PIXELS = 64, 128
# The cylinder: its axis lies so far behind the bridge of the nose; its picture reaches so far to each side, above the
# brows and below the chin.
AXIS_MM, REACH_RAD = 90.0, 1.3
ABOVE_MM, BELOW_MM = 42.0, 22.0


@dataclass(frozen=True)
class Axis:
    """Where the cylinder stands about a model's mean face: upright, its axis at x = 0 and `z`."""

    z: float
    top: float
    bottom: float

    @staticmethod
    def of(model: LinearFaceModel) -> Axis:
        marks = model.landmark_points(model.mean).double().numpy()
        return Axis(marks[27, 2] - AXIS_MM, marks[17:27, 1].mean() + ABOVE_MM, marks[8, 1] - BELOW_MM)

    def places(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Column and row in the picture, both from 0 to 1 where they lie in it."""
        across = np.arctan2(points[:, 0], points[:, 2] - self.z) / REACH_RAD
        return np.stack([(across + 1) / 2, (self.top - points[:, 1]) / (self.top - self.bottom)], 1)


def places_on_cylinder(model: LinearFaceModel, points: DensePoints) -> Float[np.ndarray, "points 2"]:
    """Where points lie in the picture; those beyond it at its edge."""
    at = points.gather(model, model.mean).double().numpy()
    return np.asarray(Axis.of(model).places(at).clip(0.01, 0.99))


@dataclass(frozen=True)
class Unwrapped:
    """A photograph read on the surface, and how the surface stands: unit normals in the crop's axes."""

    picture: UInt8[np.ndarray, "128 128 3"]
    normals: Float[np.ndarray, "64 64 3"]


class Cylinder:
    """A model's surface by cells of the cylinder's picture."""

    def __init__(self, model: LinearFaceModel) -> None:
        mean = model.mean.double().numpy()
        around = Axis.of(model)
        radius = np.hypot(mean[:, 0], mean[:, 2] - around.z)
        # Behind the axis the surface folds over: out of the picture.
        places = np.where((mean[:, 2] > around.z)[:, None], around.places(mean), -9.0) * CELLS
        fragments = rasterize(
            torch.from_numpy(places).float(), torch.from_numpy(1000 - radius).float(), front(model, mean, around.z),
            CELLS, CELLS, cull_back=False,
        )  # fmt: skip
        triangle, weights = filled(
            fragments.covered.numpy(), fragments.triangle.numpy(), fragments.barycentric.numpy()
        )
        self.cells = SurfacePoints(model, triangle.ravel(), weights.reshape(-1, 3))

    def surface(self, scene: Scene) -> Float[np.ndarray, "64 64 3"]:
        """The cells' places in the camera frame, mm."""
        found: Float[np.ndarray, "64 64 3"] = scene.pose.apply(self.cells.at(scene)).double().numpy()
        return found.reshape(CELLS, CELLS, 3)

    def unwrap(self, image: UInt8[np.ndarray, "128 128 3"], crop: Crop, scene: Scene) -> Unwrapped:
        """`image` is what `crop` cuts from the photograph that the scene belongs to."""
        surface = self.surface(scene)
        camera = scene.camera
        pixels = float(camera.focal_px) * surface[..., :2] / np.maximum(surface[..., 2:], 1.0)
        pixels = crop.apply((pixels + camera.principal_point.double().numpy()).reshape(-1, 2))
        grid = torch.from_numpy(pixels.reshape(1, CELLS, CELLS, 2)).float().permute(0, 3, 1, 2)
        fine = torch.nn.functional.interpolate(
            grid, size=(PIXELS, PIXELS), mode="bilinear", align_corners=False
        )
        source = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        found = torch.nn.functional.grid_sample(
            source, fine.permute(0, 2, 3, 1) * (2 / image.shape[0]) - 1, align_corners=False
        )
        across = np.gradient(surface, axis=1)
        down = np.gradient(surface, axis=0)
        normals = np.cross(across, down)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
        normals[..., :2] = normals[..., :2] @ crop.turn.T
        return Unwrapped(found[0].permute(1, 2, 0).round().byte().numpy(), normals)


def front(model: LinearFaceModel, mean: Float[np.ndarray, "n 3"], z: float) -> Int[Tensor, "triangles 3"]:
    """The triangles before the axis; they keep their numbers, the others become points."""
    before = (mean[:, 2] > z + 5)[model.topology.triangles].all(1)
    return torch.from_numpy(np.where(before[:, None], model.topology.triangles, 0).astype(np.int32))


def filled(
    covered: np.ndarray, triangle: Int[np.ndarray, "cells cells"], weights: Float[np.ndarray, "cells cells 3"]
) -> tuple[Int[np.ndarray, "cells cells"], Float[np.ndarray, "cells cells 3"]]:
    """Cells that show nothing (beside the neck, inside an open mouth) show what the nearest one does."""
    from scipy.ndimage import distance_transform_edt

    row, column = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return triangle[row, column].astype(np.int64), weights[row, column].astype(np.float32)
