"""People, poses, cameras and lights drawn at random, wide enough that photographs lie inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from facefit.models.camera import FACING
from facefit.models.face_model import LinearFaceModel

# Real faces lie outside a model's space, and often further out than its deviations say.
IDENTITY_SCALE = (0.8, 1.35)
# Half of all portraits are near frontal; the network must also know profiles.
YAW_SIGMA_DEG, YAW_EVEN_SHARE, YAW_LIMIT_DEG = 24.0, 0.3, 95.0
PITCH_SIGMA_DEG, ROLL_SIGMA_DEG = 12.0, 8.0
# From an arm's length (or less) to a telephoto lens; log-uniform.
DISTANCE_MM = (240.0, 3000.0)
# How far from the middle of the photograph a face may lie, as a direction.
OFF_AXIS = 0.25
# Share of pictures where one-sided expressions are drawn alike on both sides of the face.
SYMMETRIC_SHARE = 0.7
SKIN_REFLECTANCE = (0.01, 0.95)


@dataclass(frozen=True)
class Lamp:
    """A distant lamp: direction to it in the model frame, irradiance it gives a surface facing it, linear RGB."""

    direction: Float[np.ndarray, "3"]
    color: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class Sky:
    """Light from everywhere: irradiance `level` + `gradient` . normal, linear RGB."""

    level: Float[np.ndarray, "3"]
    gradient: Float[np.ndarray, "3 3"]


def draw_identity(model: LinearFaceModel, rng: np.random.Generator) -> Float[np.ndarray, "identity"]:
    return rng.normal(size=model.n_identity) * rng.uniform(*IDENTITY_SCALE)


def draw_expression(model: LinearFaceModel, rng: np.random.Generator) -> Float[np.ndarray, "expression"]:
    """Neutral, a few shapes of the model at once, or many weakly; blinks and open mouths more often than chance.

    One-sided and in the model's units: an activation of 1 is 1 / `expression_unit` standard deviations.
    """
    names = model.expression_names
    count = len(names)
    found = np.zeros(count)
    if not count:
        return found
    full = 1.0 / model.expression_unit.double().numpy()
    kind = rng.random()
    if kind > 0.25:
        active = rng.choice(count, min(count, int(rng.integers(1, 9))), replace=False)
        found[active] = np.abs(rng.normal(size=len(active))) * rng.uniform(0.5, 1.1)
    if kind > 0.75:
        found += np.abs(rng.normal(size=count)) * rng.uniform(0.05, 0.35)
    if rng.random() < 0.15:
        for i, name in enumerate(names):
            if name.startswith("eyeBlink"):
                found[i] = full[i] * rng.uniform(0.3, 1.0)
    if rng.random() < 0.25 and "jawOpen" in names:
        found[names.index("jawOpen")] = full[names.index("jawOpen")] * rng.uniform(0.2, 1.0)
    if rng.random() < 0.3:
        # A smile, mostly one that shows the teeth.
        smile, parted = rng.uniform(0.2, 1.0), rng.uniform(0.0, 0.9) * (rng.random() < 0.75)
        for i, name in enumerate(names):
            if name.startswith("mouthSmile"):
                found[i] = full[i] * smile
            elif name.startswith(("mouthUpperUp", "mouthLowerDown")):
                found[i] = full[i] * parted
    if rng.random() < SYMMETRIC_SHARE:
        for left, right in side_pairs(names):
            found[right] = found[left]
    return np.minimum(found, 1.1 * full)


def side_pairs(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Indices of shapes whose names differ in Left/Right or _L/_R alone."""
    at = {name: i for i, name in enumerate(names)}
    pairs = []
    for name, i in at.items():
        for left, right in (("Left", "Right"), ("_L", "_R")):
            other = name[: -len(left)] + right
            if name.endswith(left) and other in at and "eyeLook" not in name:
                pairs.append((i, at[other]))
    return pairs


def draw_turn(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """camera_from_model of a head at random, upright within some degrees: the crop takes out what is more."""
    yaw = rng.normal() * YAW_SIGMA_DEG
    if rng.random() < YAW_EVEN_SHARE:
        yaw = rng.uniform(-YAW_LIMIT_DEG, YAW_LIMIT_DEG)
    return turned_by(float(np.clip(yaw, -YAW_LIMIT_DEG, YAW_LIMIT_DEG)), rng)


def turned_by(yaw: float, rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """camera_from_model at a yaw in degrees, nodding and leaning at random."""
    pitch, roll = rng.normal() * PITCH_SIGMA_DEG, rng.normal() * ROLL_SIGMA_DEG
    turns = Rotation.from_euler("YXZ", [yaw, -pitch, -roll], degrees=True)
    return np.array(FACING) @ turns.as_matrix()


def draw_distance(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(DISTANCE_MM))))


def draw_light(rng: np.random.Generator) -> tuple[list[Lamp], Sky]:
    """Up to three lamps in the front or side half-space and a sky, from overcast to a bare bulb."""
    lamps = []
    strength = rng.uniform(0.1, 1.2)
    for number in range(int(rng.integers(1, 4))):
        direction = rng.normal(size=3)
        direction[2] = abs(direction[2]) + (0.2 if number == 0 else -0.3)
        direction[1] += 0.5
        color = _warmth(rng) * strength * rng.uniform(0.4, 1.0) / (1 + number)
        lamps.append(Lamp(direction / np.linalg.norm(direction), color))
    level = rng.uniform(0.15, 0.7)
    gradient = rng.normal(size=3) * [0.3, 0.4, 0.3] * level
    return lamps, Sky(_warmth(rng) * level, gradient[:, None] * _warmth(rng))


def draw_tones(
    model: LinearFaceModel, count: int, rng: np.random.Generator
) -> Float[np.ndarray, "count albedo"]:
    """Albedo coefficients, N(0, 1), of those draws whose colours skin can have."""
    region = np.asarray(model.topology.region("face"), np.int64)[::7]
    skin = torch.from_numpy(region)
    low, high = SKIN_REFLECTANCE
    found: list[np.ndarray] = []
    for _ in range(40 * count):
        if len(found) == count or not model.n_albedo:
            break
        drawn = rng.normal(size=model.n_albedo)
        reflected = model.albedo_mean[skin] + torch.einsum(
            "m,mvc->vc", torch.from_numpy(drawn).float(), model.albedo_basis[:, skin]
        )
        if float(((reflected >= low) & (reflected <= high)).float().mean()) > 0.97:
            found.append(drawn)
    while len(found) < count:
        found.append(np.zeros(model.n_albedo))
    return np.stack(found)


def off_axis(rng: np.random.Generator, distance_mm: float) -> Float[np.ndarray, "2"]:
    """x / z and y / z of the head: a near head fills the picture, a far one may stand at its side."""
    return rng.uniform(-1, 1, 2) * OFF_AXIS * min(1.0, math.sqrt(300.0 / distance_mm))


def _warmth(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """A light's colour, from tungsten to blue sky, of mean 1."""
    warm, green = rng.normal() * 0.12, rng.normal() * 0.03
    color = np.array([1 + warm, 1 + green, 1 - warm])
    return np.asarray(np.clip(color, 0.4, 1.6))
