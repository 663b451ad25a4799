"""Photographs whose truth is known: scenes drawn from a model's own priors, rendered, and made worse.

Everything comes from a seed. A picture drawn and fitted with the same model flatters the fit (it contains
nothing the model cannot say); draw with another model to see what a model's limits cost.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

OCCLUDERS = {"none": 0.61, "glasses": 0.13, "hand": 0.13, "hair": 0.13}
# Behind an open mouth of a model without a throat.
THROAT = (0.12, 0.05, 0.05)
SIZE_PX = 512

# Yaw and pitch of portraits in the wild are roughly normal; beyond 60 degrees dlib's detector finds nobody.
YAW_SIGMA_DEG, YAW_LIMIT_DEG = 22.0, 60.0
TILT_SIGMA_DEG = 7.0
# Longer side of the field of view, from a wide selfie to a short telephoto lens.
FIELD_OF_VIEW_DEG = (15.0, 60.0)
FACE_WIDTH_PX = (150.0, 260.0)
FACE_WIDTH_MM = 140.0
ACTIVE_EXPRESSIONS = 5
# Linear reflectance of skin, lips and lashes.
SKIN_REFLECTANCE = (0.01, 0.95)


@dataclass(frozen=True)
class Drawn:
    """A picture with its truth. `free` is where the head shows, unoccluded."""

    image: UInt8[np.ndarray, "height width 3"]
    jpeg: bytes
    scene: Any
    free: Bool[np.ndarray, "height width"]
    occluder: str
    noise: float
    quality: int


def draw_scene(model: Any, rng: np.random.Generator, yaw_deg: float | None = None) -> Any:
    """Identity and albedo N(0, 1); in two of three pictures some expressions; pose, lens and light. The yaw is drawn
    too, or given.
    """
    from facefit.models.camera import Camera, Pose, rotation_matrix
    from facefit.models.scene import Scene

    def normal(n: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=n)).float()

    expression = torch.zeros(model.n_expression)
    if model.n_expression and rng.random() < 2 / 3:
        active = rng.choice(model.n_expression, min(ACTIVE_EXPRESSIONS, model.n_expression), replace=False)
        # Activations are one-sided (a mouth does not open backwards), so is the draw.
        expression[active] = normal(len(active)).abs()
    yaw = float(np.clip(rng.normal() * YAW_SIGMA_DEG, -YAW_LIMIT_DEG, YAW_LIMIT_DEG))
    yaw = yaw if yaw_deg is None else yaw_deg
    pitch, roll = rng.normal(size=2) * TILT_SIGMA_DEG
    turn = [torch.tensor(v).float() * math.pi / 180 for v in ((0, yaw, 0), (-pitch, 0, 0), (0, 0, roll))]
    rotation = rotation_matrix(turn[0]) @ rotation_matrix(turn[1]) @ rotation_matrix(turn[2])
    camera = Camera.from_field_of_view(SIZE_PX, SIZE_PX, float(rng.uniform(*FIELD_OF_VIEW_DEG)))
    width = float(rng.uniform(*FACE_WIDTH_PX))
    distance = float(camera.focal_px) * FACE_WIDTH_MM / width
    shift = torch.from_numpy(rng.normal(size=2)).float() * 0.05 * SIZE_PX * distance / float(camera.focal_px)
    facing = Pose.frontal().camera_from_model
    pose = Pose.from_camera_from_model(
        facing @ rotation, torch.tensor([float(shift[0]), float(shift[1]), distance])
    )
    lighting = draw_lighting(rng)
    identity, albedo = normal(model.n_identity), draw_albedo(model, rng)
    return Scene(identity, expression, albedo, pose, camera, lighting)


def draw_albedo(model: Any, rng: np.random.Generator) -> torch.Tensor:
    """N(0, 1), drawn again until the face reflects what skin can: a linear model also says less than nothing."""
    skin = torch.from_numpy(np.asarray(model.topology.region("face"), np.int64))
    low, high = SKIN_REFLECTANCE
    for attempt in range(60):
        # If the model's own prior never gives skin, come nearer to its mean.
        drawn = torch.from_numpy(rng.normal(size=model.n_albedo)).float() * 0.7 ** (attempt // 20)
        reflected = model.albedo(drawn)[skin]
        if float(((reflected >= low) & (reflected <= high)).float().mean()) > 0.98:
            break
    return drawn


def draw_lighting(rng: np.random.Generator) -> Any:
    """One lamp from the front half-space over an ambient floor, each with its own warmth."""
    from facefit.models.lighting import Lighting

    direction = rng.normal(size=3)
    direction[2] = abs(direction[2]) + 0.3
    lamp = Lighting.directional(
        torch.from_numpy(direction).float(), float(rng.uniform(0.2, 1.0)), ambient=0.0
    )
    floor = Lighting.ambient(float(rng.uniform(0.3, 0.8)))
    warmth = [torch.tensor([1 + w, 1.0, 1 - w]).float() for w in rng.uniform(-0.15, 0.15, 2)]
    return Lighting(lamp.coefficients * warmth[0] + floor.coefficients * warmth[1])


def photograph(scene: Any, model: Any, rng: np.random.Generator) -> Drawn:
    """Render twice as large and average, expose, put before a background, occlude, add noise, compress."""
    from PIL import Image
    from scipy.ndimage import binary_dilation, binary_fill_holes

    import facefit as ff

    with torch.no_grad():
        small = ff.render(scene, model, 128, 128)
        lit = (small.albedo * small.irradiance)[small.covered]
        # Exposure: the face's mean linear luminance, as a photographer would meter it.
        level = float(rng.uniform(0.12, 0.3)) / max(1e-6, float(lit.mean()))
        scene = scene.with_lighting(replace(scene.lighting, coefficients=scene.lighting.coefficients * level))
        picture = ff.render(scene, model, 2 * SIZE_PX, 2 * SIZE_PX)
        pixels = scene.camera.project(scene.pose.apply(model.landmark_points(scene.shape(model)))).numpy()
    covered = halved(picture.covered.double().numpy()[..., None])
    color = halved((picture.color * picture.covered[..., None]).double().clamp(0, 1).numpy())
    behind = background(rng)
    seen = covered[..., 0] > 0
    behind[binary_dilation(binary_fill_holes(seen) & ~seen)] = THROAT
    image = color + (1 - covered) * behind
    numbers = {int(n): p for n, p in zip(model.topology.landmarks.numbers, pixels, strict=True)}
    occluder = str(rng.choice(list(OCCLUDERS), p=list(OCCLUDERS.values())))
    image, hidden = occlude(image, numbers, occluder, rng)
    noise, quality = float(rng.uniform(0, 0.02)), int(rng.integers(70, 96))
    image = np.clip(image + rng.normal(size=image.shape) * noise, 0, 1)
    buffer = io.BytesIO()
    Image.fromarray((image * 255 + 0.5).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    with Image.open(io.BytesIO(buffer.getvalue())) as read:
        final = np.array(read)
    free = (covered[..., 0] > 0.99) & ~hidden
    return Drawn(final, buffer.getvalue(), scene, free, occluder, noise, quality)


def halved(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h2 w2 c"]:
    return np.asarray((image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4)


def background(rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Soft blotches of colour, as of a room out of focus."""
    from scipy.ndimage import gaussian_filter

    noise = rng.normal(size=(SIZE_PX, SIZE_PX, 3))
    soft = np.stack([gaussian_filter(noise[..., c], 40) for c in range(3)], -1)
    soft = soft.mean(2, keepdims=True) + 0.4 * soft
    base = rng.uniform(0.2, 0.8) + rng.uniform(-0.1, 0.1, 3)
    return np.asarray(np.clip(base + 0.15 * soft / soft.std(), 0, 1))


def occlude(
    image: Float[np.ndarray, "h w 3"], marks: dict[int, np.ndarray], kind: str, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Paint dark glasses, a hand over mouth or chin, or a strand of hair; give back what is hidden."""
    from PIL import Image, ImageDraw
    from scipy.ndimage import gaussian_filter

    needed = {"glasses": (36, 39, 42, 45), "hand": (48, 54, 8), "hair": (17, 26)}.get(kind, ())
    if not needed or any(n not in marks for n in needed):
        return image, np.zeros(image.shape[:2], bool)
    canvas = Image.new("L", (SIZE_PX, SIZE_PX))
    pen = ImageDraw.Draw(canvas)
    color = rng.uniform(0.02, 0.12, 3)
    if kind == "glasses":
        radius = 0.32 * float(np.linalg.norm(marks[36] - marks[45]))
        for inner, outer in ((39, 36), (42, 45)):
            x, y = (marks[inner] + marks[outer]) / 2
            pen.ellipse([x - radius, y - 0.75 * radius, x + radius, y + 0.75 * radius], fill=255)
        pen.line([*marks[39], *marks[42]], fill=255, width=max(2, int(radius / 6)))
    elif kind == "hand":
        x, y = (marks[48] + marks[54]) / 2 * 0.4 + marks[8] * 0.6
        width = float(np.linalg.norm(marks[48] - marks[54]))
        x += width * rng.uniform(-0.7, 0.7)
        pen.ellipse([x - 0.7 * width, y - 0.6 * width, x + 0.7 * width, y + 1.6 * width], fill=255)
        color = np.array([0.75, 0.55, 0.45]) * rng.uniform(0.4, 1.1)
    else:
        side, other = (17, 26) if rng.random() < 0.5 else (26, 17)
        across = marks[other] - marks[side]
        up = np.array([across[1], -across[0]]) * (1 if across[0] > 0 else -1)
        start = marks[side] + 0.4 * across + 0.6 * up
        for strand in rng.uniform(-0.08, 0.08, 40):
            middle = marks[side] + (0.05 + strand) * across + 0.3 * up
            end = marks[side] + (strand - 0.1) * across - 0.6 * rng.random() * up
            t = np.linspace(0, 1, 20)[:, None]
            curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
            pen.line(curve.ravel().tolist(), fill=255, width=int(0.015 * np.linalg.norm(across)) + 1)
    alpha = gaussian_filter(np.asarray(canvas, np.float64) / 255, 1.0)[..., None]
    grain = gaussian_filter(rng.normal(size=image.shape[:2]), 2)[..., None]
    painted = np.clip(color * (1 + 0.6 * grain), 0, 1)
    return image * (1 - alpha) + painted * alpha, alpha[..., 0] > 0.01
