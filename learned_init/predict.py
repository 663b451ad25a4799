"""From a photograph to the network's guess: landmarks, and a start for the fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from facefit.detection import MIRRORED_LANDMARKS
from facefit.learned_init.crop import SIZE_PX, Crop, crop_of_landmarks
from facefit.learned_init.losses import TYPICAL_MM, TYPICAL_PX_PER_MM, rotation_of
from facefit.learned_init.network import Guess
from facefit.learned_init.points import DensePoints
from facefit.learned_init.synthetic import in_crop
from facefit.learned_init.weights import Initialiser, initialiser_for
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.observation import Observation

# The network sees the face some times, from crops a little apart, and mirrored; the mean of what it says is better
# than one look.
LOOKS = ((0.0, 0.0, 1.0), (0.02, 0.015, 1.04), (-0.015, -0.02, 0.97))
# A crop of the network's own points that differs less than this from the one it looked at (share of its side) is not
# looked at again.
SETTLED = 0.04
# How much larger errors on photographs are than on the drawn pictures of the validation set.
DOMAIN_GAP = 2.0
NO_MARKS = np.full((68, 2), np.nan)


@dataclass(frozen=True)
class Prediction:
    """What the network says of one photograph, in its pixels: dense points, and a scene's parts with deviations.

    `log_focal` is (mean, sigma) of the logarithm of the focal length in pixels, from perspective alone.
    """

    points: Float[np.ndarray, "points 2"]
    scene: Scene
    identity_sigma: Float[np.ndarray, "identity"]
    expression_sigma: Float[np.ndarray, "expression"]
    log_focal: tuple[float, float]
    crop: Crop

    @property
    def landmarks(self) -> Float[np.ndarray, "68 2"]:
        return self.points[:68]


def predict(
    observation: Observation,
    model: LinearFaceModel,
    crop: Crop | None = None,
    initialiser: Initialiser | None = None,
) -> Prediction | None:
    """The guess for a photograph; None for a model without weights.

    Looks where `crop` says, else around the landmarks, else at the middle of the photograph; then again where its own
    points lie.
    """
    network = initialiser or initialiser_for(model)
    if network is None:
        return None
    marks = observation.landmarks if observation.landmarks is not None else NO_MARKS
    if observation.landmarks_by == "facefit":
        # What the network said before tells it nothing new.
        crop, marks = crop or crop_of_landmarks(marks), NO_MARKS
    crop = crop or crop_of_landmarks(marks) or middle_crop(observation)
    points, _, guess, crop = refined(network, observation.image, crop, marks)
    return decode(guess, points, network.points, crop, observation, model)


def refined(
    network: Initialiser, image: UInt8[np.ndarray, "h w 3"], crop: Crop, marks: Float[np.ndarray, "68 2"]
) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "points 2 2"], Guess, Crop]:
    """Look until the crop is the one of the network's own points, then from several crops about it.

    Points in pixels of the photograph; their covariances, and the guess, in the crop that is given back.
    """
    for _ in range(2):
        points, _, _ = look(network, image, [crop], marks)
        found = crop_of_landmarks(crop.invert(points.mean(0)[:68]))
        if found is None or settled(crop, found):
            break
        crop = found
    x, y = crop.centre
    shifted = [
        replace(crop, centre=(x + right * crop.side, y + down * crop.side), side=crop.side * wider)
        for right, down, wider in LOOKS
    ]
    points, spread, guess = look(network, image, shifted, marks)
    in_photo = np.stack([c.invert(p) for c, p in zip([*shifted, *shifted], points, strict=True)])
    return in_photo.mean(0), spread.mean(0), guess, crop


def look(
    network: Initialiser,
    image: UInt8[np.ndarray, "h w 3"],
    crops: list[Crop],
    marks: Float[np.ndarray, "68 2"],
) -> tuple[Float[np.ndarray, "looks points 2"], Float[np.ndarray, "looks points 2 2"], Guess]:
    """Points and covariances in crop pixels, of every crop and then of every crop mirrored; the first crop's guess."""
    pictures = (
        torch.from_numpy(np.stack([crop.cut(image) for crop in crops])).permute(0, 3, 1, 2).float() / 255
    )
    seen = torch.from_numpy(np.stack([crop.apply(marks) for crop in crops])).float()
    other = seen[:, list(MIRRORED_LANDMARKS)]
    other = torch.stack([SIZE_PX - other[..., 0], other[..., 1]], -1)
    both = torch.cat([pictures, pictures.flip(3)]).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        guess: Guess = network.head(*network.trunk(both, torch.cat([seen, other])))
    points, spread = guess.points.double().numpy(), covariance_of(guess)
    mirror, count = network.points.mirror, len(crops)
    back = points[count:, mirror]
    points[count:] = np.stack([SIZE_PX - back[..., 0], back[..., 1]], -1)
    spread[count:] = spread[count:, mirror] * np.array([[1, -1], [-1, 1]])
    return points, spread, guess


def covariance_of(guess: Guess) -> Float[np.ndarray, "batch points 2 2"]:
    """L L^T with L = [[s0, 0], [k s1, s1]], crop px^2."""
    first, second = guess.points_log_sigma.double().exp().numpy().transpose(2, 0, 1)
    skew = guess.points_skew.double().numpy()
    lower = np.zeros((*first.shape, 2, 2))
    lower[..., 0, 0], lower[..., 1, 0], lower[..., 1, 1] = first, skew * second, second
    return lower @ np.swapaxes(lower, -1, -2)


def decode(
    guess: Guess,
    pixels: Float[np.ndarray, "points 2"],
    points: DensePoints,
    crop: Crop,
    observation: Observation,
    model: LinearFaceModel,
) -> Prediction:
    """A scene from the first look: pose and camera out of the crop's frame into the photograph's."""
    block = {name: value[0].double() for name, value in guess.blocks.items()}
    sigma = {name: value[0].double().exp() for name, value in guess.blocks_log_sigma.items()}
    middle = crop.invert((block["centre"].numpy() + 1) * SIZE_PX / 2)
    px_per_mm = TYPICAL_PX_PER_MM * math.exp(float(block["size"])) / crop.scale
    distance = TYPICAL_MM * math.exp(float(block["distance"]))
    log_focal = math.log(px_per_mm * distance)
    focal_sigma = math.hypot(float(sigma["size"]), float(sigma["distance"]))
    camera = believed_camera(observation, log_focal, focal_sigma)
    focal = float(camera.focal_px)
    ray = np.array([*((middle - camera.principal_point.double().numpy()) / focal), 1.0])
    local = rotation_of(block["rotation"][None])[0].numpy()
    rotation = in_crop(crop, ray).T @ local
    identity, expression, albedo = (block[name].float() for name in ("identity", "expression", "albedo"))
    centre = points.gather(model, model.mean).double().numpy().mean(0)
    pose = Pose.from_camera_from_model(
        torch.from_numpy(rotation), torch.from_numpy(ray * focal / px_per_mm - rotation @ centre)
    )
    scene = Scene(
        identity, expression, albedo, Pose(pose.rotation.float(), pose.translation_mm.float()), camera,
        Lighting(block["lighting"].reshape(9, 3).float()),
    )  # fmt: skip
    return Prediction(
        pixels, scene, sigma["identity"].numpy(), sigma["expression"].numpy(), (log_focal, focal_sigma), crop
    )


def believed_camera(observation: Observation, log_focal: float, sigma: float) -> Camera:
    """The photograph's camera with its focal length drawn towards the network's, by how sure each is."""
    camera, prior = observation.camera, observation.focal_sigma
    if prior <= 0:
        return camera
    weight = prior**2 / (prior**2 + sigma**2)
    mixed = (1 - weight) * math.log(float(camera.focal_px)) + weight * log_focal
    return camera.with_focal(torch.tensor(math.exp(mixed)))


def middle_crop(observation: Observation) -> Crop:
    """Without any landmark the face is taken to fill the middle of the photograph."""
    return Crop(
        (observation.width / 2, observation.height / 2), float(min(observation.width, observation.height))
    )


def settled(one: Crop, other: Crop) -> bool:
    away = math.hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]) / one.side
    turn = abs((one.roll - other.roll + math.pi) % (2 * math.pi) - math.pi)
    return away < SETTLED and abs(math.log(one.side / other.side)) < 2 * SETTLED and turn < 2 * SETTLED
