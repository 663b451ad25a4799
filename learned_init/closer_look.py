"""The closer look: a first fit unwraps the face, and a network sees by how much its points are off.

What comes out are dense landmarks: where hundreds of surface points lie in the photograph, with how surely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facefit.dense_landmarks import DenseLandmarks
from facefit.detection import MIRRORED_LANDMARKS
from facefit.learned_init.closer_network import Correction
from facefit.learned_init.closer_weights import CloserNetwork
from facefit.learned_init.crop import Crop, crop_of_landmarks
from facefit.learned_init.losses import TYPICAL_MM, TYPICAL_PX_PER_MM
from facefit.learned_init.points import DensePoints, dense_points
from facefit.learned_init.unwrap import Cylinder, Unwrapped
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

# How much larger errors on photographs are than on the drawn pictures of the validation set.
DOMAIN_GAP = 1.5
JAW = slice(17)
MIRROR = torch.tensor([-1.0, 1.0])


@dataclass(frozen=True)
class Look:
    """What the network is shown, and what its answer is relative to: the fit's `points` in crop pixels, and how many
    crop pixels a millimetre of the face has.
    """

    unwrapped: Unwrapped
    marks: Float[np.ndarray, "68 2"]
    view: Float[np.ndarray, "2"]
    points: Float[np.ndarray, "points 2"]
    px_per_mm: float


class Looker:
    """A model's geometry, as the closer look needs it."""

    def __init__(self, model: LinearFaceModel, points: DensePoints) -> None:
        self.cylinder = Cylinder(model)
        self.points = SurfacePoints(model, points.triangles, points.barycentric)
        self.middle = model.mean.mean(0)
        self.model = model.name

    def pixels(self, scene: Scene) -> Float[np.ndarray, "points 2"]:
        """The scene's dense points in the photograph."""
        return scene.camera.project(scene.pose.apply(self.points.at(scene))).double().numpy()

    def __call__(
        self,
        picture: UInt8[np.ndarray, "128 128 3"],
        crop: Crop,
        landmarks: Float[np.ndarray, "68 2"],
        scene: Scene,
    ) -> Look:
        """`picture` is what `crop` cuts from the photograph that landmarks and scene belong to."""
        points = crop.apply(self.pixels(scene))
        depth = float(scene.pose.apply(self.middle[None])[0, 2])
        scale = crop.scale * float(scene.camera.focal_px) / depth
        view = np.array([math.log(scale / TYPICAL_PX_PER_MM), math.log(depth / TYPICAL_MM)])
        marks = (crop.apply(landmarks) - points[:68]) / scale
        # On a turned head detectors put the jaw on the outline: not the points the network is asked about.
        marks[JAW] = np.nan
        return Look(self.cylinder.unwrap(picture, crop, scene), marks, view, points, scale)


@lru_cache(maxsize=4)
def looker_for(model: LinearFaceModel) -> Looker:
    """Kept for a model's next photographs."""
    return Looker(model, dense_points(model))


def look_closer(
    network: CloserNetwork, looker: Looker, observation: Observation, scene: Scene
) -> DenseLandmarks | None:
    """Dense landmarks from a scene that landmarks alone have brought near; None where that is nowhere near."""
    marks = observation.landmarks if observation.landmarks is not None else np.full((68, 2), np.nan)
    pixels = looker.pixels(scene)
    crop = crop_of_landmarks(pixels[:68])
    if crop is None or not np.isfinite(pixels).all():
        return None
    look = looker(crop.cut(observation.image), crop, marks, scene)
    shift, whitening = correction(network, look)
    if not (np.isfinite(shift).all() and np.isfinite(whitening).all()):
        return None
    errors, points = network.errors, network.points
    return DenseLandmarks(
        looker.model, points.triangles, points.barycentric, crop.invert(look.points + shift * look.px_per_mm),
        whitening @ (crop.scale * crop.turn / look.px_per_mm) / DOMAIN_GAP, pixels,
        errors.patterns, errors.variances, errors.floor, errors.shapes, errors.response,
    )  # fmt: skip


def correction(
    network: CloserNetwork, look: Look
) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "points 2 2"]]:
    """Shifts in mm, the mean of what is said of the picture and of its mirror image, and their whitening."""
    seen = inputs_of(look)
    both = [torch.cat([a, b]) for a, b in zip(seen, mirrored(*seen), strict=True)]
    with torch.no_grad():
        said: Correction = network.head(*network.trunk(*both))
    shift = 0.5 * (said.shift[0] + said.shift[1, torch.from_numpy(network.points.mirror)] * MIRROR)
    return shift.double().numpy(), whitening_of(said)[0]


def inputs_of(look: Look) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of one, as the network takes it."""
    picture = torch.from_numpy(look.unwrapped.picture).permute(2, 0, 1)[None].float() / 255
    normals = torch.from_numpy(look.unwrapped.normals).permute(2, 0, 1)[None].float()
    return (
        picture,
        normals,
        torch.from_numpy(look.marks)[None].float(),
        torch.from_numpy(look.view)[None].float(),
    )


def mirrored(
    pictures: Tensor, normals: Tensor, marks: Tensor, view: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network would be shown of the face's mirror image."""
    other = marks[:, list(MIRRORED_LANDMARKS)] * MIRROR
    side = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    return pictures.flip(3), normals.flip(3) * side, other, view


def whitening_of(said: Correction) -> Float[np.ndarray, "batch points 2 2"]:
    """L^-1 with L = [[s0, 0], [k s1, s1]]."""
    first, second = (-said.log_sigma).double().exp().numpy().transpose(2, 0, 1)
    found = np.zeros((*first.shape, 2, 2))
    found[..., 0, 0], found[..., 1, 0], found[..., 1, 1] = first, -said.skew.double().numpy() * first, second
    return found
