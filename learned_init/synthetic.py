"""Training pictures from a morphable model: endless, each from its seed alone, with everything known.

A picture is drawn as a crop at once: the scene is projected, and the crop that a detector or earlier landmarks
would have led to is applied to the projection, so that no pixel is drawn which the network does not see.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from facefit.detection import LANDMARK_SIGMA
from facefit.learned_init.crop import SIZE_PX, Crop, crop_of_landmarks
from facefit.learned_init.draws import (
    Lamp,
    Sky,
    draw_distance,
    draw_expression,
    draw_identity,
    draw_light,
    draw_tones,
    draw_turn,
    off_axis,
)
from facefit.learned_init.heads import Hair, HeadPainter, LitHead, View
from facefit.learned_init.points import DensePoints, dense_points
from facefit.learned_init.rim import Rim
from facefit.learned_init.surroundings import (
    OCCLUDERS,
    Colors,
    background,
    behind_head,
    brows,
    grain,
    image_of,
    mouth,
    occlude,
)
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting

# Pixels per photograph unit before the crop; arbitrary, the crop takes it out.
FOCAL_PX = 1000.0
TONES = 500
# Share of the heads that are bent out of the model's space.
WARPED = 0.75
JAW = slice(17)
# How much of the way from a jaw point of the surface to the silhouette detectors go on a turned head.
SLIDES = (0.6, 1.0)
# What teeth reflect, and their colour, and how much brighter a mouth is inside than the model has it: models' are often
# dark, as if they lay in the shade of closed lips.
TEETH, ENAMEL = (0.15, 0.75), (1.0, 0.95, 0.85)
MOUTH = (0.3, 3.0)
# Share of the heads with brows beyond those in the albedo, where both are seen: the eyes lie further apart than this,
# over the distance from the bridge of the nose to the chin.
BROWED, BOTH_BROWS_SEEN = 0.5, 0.65


@dataclass(frozen=True)
class Sample:
    """A training picture and its truth, in crop pixels and in the crop's own frame.

    `rotation` is camera_from_model as seen along the ray to the crop's centre, the crop upright; `size_px_per_mm`
    the scale at the head's centre, `distance_mm` its depth, `centre` its pixel, `principal` the optical axis's.
    `landmarks` is what a detector would have given, NaN where none, and `marked` what a perfect one would: the jaw on
    the silhouette rather than where the points of the surface are; `neutral` how the person's points differ from the
    mean face's, mm, which is more than `identity` says where the head lies outside the model; `lighting` the nine
    harmonics of the light in the picture's exposure.
    """

    image: UInt8[np.ndarray, "size size 3"]
    landmarks: Float[np.ndarray, "68 2"]
    marked: Float[np.ndarray, "68 2"]
    points: Float[np.ndarray, "points 2"]
    identity: Float[np.ndarray, "identity"]
    neutral: Float[np.ndarray, "points 3"]
    expression: Float[np.ndarray, "expression"]
    albedo: Float[np.ndarray, "albedo"]
    lighting: Float[np.ndarray, "27"]
    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "2"]
    principal: Float[np.ndarray, "2"]
    size_px_per_mm: float
    distance_mm: float
    occluder: str


class Synthesizer:
    """Draws `Sample`s from one model; `turn` draws how the head is turned (camera_from_model)."""

    def __init__(
        self,
        model: LinearFaceModel,
        turn: Callable[[np.random.Generator], Float[np.ndarray, "3 3"]] = draw_turn,
    ) -> None:
        self.model = model
        self.turn = turn
        self.points: DensePoints = dense_points(model)
        self.painter = HeadPainter(model)
        self.identity_at_points = self.points.gather(model, model.identity_basis).flatten(1)
        self.middle = self.points.gather(model, model.mean).mean(0)
        self.rim = Rim(model)
        self.tones = draw_tones(model, TONES, np.random.default_rng(17))

    def __call__(self, seed: int, index: int) -> Sample:
        """The same picture for the same seed and index, on every machine of one floating-point kind."""
        rng = np.random.default_rng((seed, index))
        model = self.model
        identity, expression = draw_identity(model, rng), draw_expression(model, rng)
        albedo = self.tones[int(rng.integers(len(self.tones)))]
        with torch.no_grad():
            vertices = model.vertices(
                torch.from_numpy(identity).float(), torch.from_numpy(expression).float()
            )
            neutral = (torch.from_numpy(identity).float() @ self.identity_at_points).reshape(-1, 3)
            if rng.random() < WARPED:
                warp = torch.from_numpy(self.painter.fields.warp(rng))
                vertices, neutral = vertices + warp, neutral + self.points.gather(model, warp)
            points = self.points.gather(model, vertices).double().numpy()
            turn, distance = self.turn(rng), draw_distance(rng)
            ray = np.array([*off_axis(rng, distance), 1.0])
            middle = self.middle.double().numpy()
            translation = ray * distance - turn @ middle
            photo = _project(points @ turn.T + translation)
            crop = draw_crop(photo[:68], rng)
            rim = self.rim.seen(
                _project(vertices[self.rim.vertices].double().numpy() @ turn.T + translation), turn
            )
            image, lighting, occluder = self._picture(vertices, albedo, turn, translation, crop, photo, rng)
        local = in_crop(crop, ray)
        marked = crop.apply(photo[:68])
        marked[JAW] += rng.uniform(*SLIDES) * (crop.apply(rim) - marked[JAW])
        return Sample(
            image=image,
            landmarks=draw_landmarks(marked, rng),
            marked=marked,
            points=crop.apply(photo),
            identity=identity,
            neutral=neutral.numpy(),
            expression=expression,
            albedo=albedo,
            lighting=lighting.reshape(-1),
            rotation=local @ turn,
            centre=crop.apply(FOCAL_PX * ray[:2]),
            principal=crop.apply(np.zeros(2)),
            size_px_per_mm=crop.scale * FOCAL_PX / distance,
            distance_mm=distance,
            occluder=occluder,
        )

    def _picture(
        self, vertices: torch.Tensor, albedo: Float[np.ndarray, "albedo"], turn: Float[np.ndarray, "3 3"],
        translation: Float[np.ndarray, "3"], crop: Crop, photo: Float[np.ndarray, "points 2"], rng: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "9 3"], str]:  # fmt: skip
        lamps, sky = draw_light(rng)
        hair, tone = draw_hair(rng)
        even = self.model.albedo(torch.from_numpy(albedo).float()).numpy()
        colors = np.clip(even.T * self.painter.fields.blotches(rng), 0.01, 0.95)
        regions = self.model.topology.regions
        if "mouth_inside" in regions:
            colors[:, regions["mouth_inside"]] *= float(np.exp(rng.uniform(*np.log(MOUTH))))
        if "teeth" in regions:
            colors[:, regions["teeth"]] = rng.uniform(*TEETH) * np.array(ENAMEL)[:, None]
        upright = np.eye(3)
        upright[:2, :2] = crop.turn
        view = View(upright @ turn, upright @ translation, FOCAL_PX * crop.scale, crop.apply(np.zeros(2)))
        gloss = (
            (0.0, 1.0) if rng.random() < 0.3 else (float(rng.uniform(0.02, 0.4)), float(rng.uniform(5, 60)))
        )
        head = self.painter.paint(vertices.numpy(), colors, view, SIZE_PX, lamps, sky, gloss, hair)
        marks = crop.apply(photo[:68])
        level = draw_exposure(head, rng)
        picture = behind_head(background(SIZE_PX, rng), marks, tone if hair is not None else None, rng)
        picture = mouth(picture, marks, 1 - head.cover, rng)
        lit = head.color * level
        if hair is not None:
            lit *= np.exp(0.35 * head.hair * grain(SIZE_PX, 5, rng))
        picture = lit + (1 - head.cover) * picture
        eyes = float(np.linalg.norm(marks[36] - marks[45]))
        if rng.random() < BROWED and eyes > BOTH_BROWS_SEEN * np.linalg.norm(marks[27] - marks[8]):
            picture = brows(picture, marks, tone, eyes, rng)
        occluder = str(rng.choice(list(OCCLUDERS), p=list(OCCLUDERS.values())))
        skin = np.median(colors[:, self.model.topology.region("face")[::11]], 1) * level
        picture = occlude(picture, marks, occluder, skin, tone, rng)
        return finish(picture, rng), level * harmonics_of(lamps, sky), occluder


def draw_exposure(head: LitHead, rng: np.random.Generator) -> float:
    """The gain that gives the head the mean luminance a photographer would meter."""
    inside = head.cover > 0.9
    mean = float(head.color.mean(0)[inside].mean()) if inside.any() else 0.2
    return float(np.exp(rng.uniform(np.log(0.09), np.log(0.5)))) / max(mean, 1e-3)


def draw_crop(landmarks: Float[np.ndarray, "68 2"], rng: np.random.Generator) -> Crop:
    """The crop of the true landmarks, displaced as much as a detector's box would, or as little as good landmarks."""
    true = crop_of_landmarks(landmarks)
    assert true is not None
    rough = rng.random() < 0.4
    shift, stretch, lean = (0.07, 0.12, 9.0) if rough else (0.02, 0.04, 3.0)
    centre = np.array(true.centre) + rng.normal(size=2) * shift * true.side
    side = true.side * float(np.exp(np.clip(rng.normal(), -2, 2) * stretch))
    roll = true.roll + math.radians(float(np.clip(rng.normal(), -2.5, 2.5)) * lean)
    return Crop((float(centre[0]), float(centre[1])), side, roll)


def in_crop(crop: Crop, ray: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rotates camera axes so that z runs along the ray to the face and the crop's columns run along x."""
    z = ray / np.linalg.norm(ray)
    x = np.array([*(crop.turn[0]), 0.0])
    x = x - z * (x @ z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def draw_landmarks(true: Float[np.ndarray, "68 2"], rng: np.random.Generator) -> Float[np.ndarray, "68 2"]:
    """What a detector gives: noisy, at times wrong in one part, at times five points or none (NaN)."""
    found = np.full((68, 2), np.nan)
    kind = rng.random()
    if kind < 0.35:
        return found
    eyes = max(np.linalg.norm(true[36] - true[45]), 0.35 * np.linalg.norm(true[27] - true[8]))
    noise = np.empty((68, 2))
    for numbers, sigma in LANDMARK_SIGMA:
        # Half of a detector's error is one error of a whole part.
        noise[list(numbers)] = (rng.normal(size=(len(numbers), 2)) + rng.normal(size=2)) * 0.7 * sigma * eyes
    noise += rng.normal(size=2) * 0.01 * eyes
    if rng.random() < 0.12:
        first = int(rng.integers(0, 60))
        noise[first : first + int(rng.integers(5, 40))] += rng.normal(size=2) * 0.15 * eyes
    noisy = true + noise * rng.choice([0.5, 1.0, 1.5])
    if kind < 0.45:
        few = [36, 39, 42, 45, 33]
        found[few] = noisy[few]
        return found
    return np.asarray(noisy)


def draw_hair(rng: np.random.Generator) -> tuple[Hair | None, Float[np.ndarray, "3"]]:
    """Hair (or none) and its colour, which brows and strands share."""
    light = rng.beta(0.7, 2.0)
    tone = np.array([0.02, 0.014, 0.01]) * (1 - light) + np.array([0.45, 0.3, 0.16]) * light
    if rng.random() < 0.15:
        tone = np.full(3, rng.uniform(0.1, 0.7))
    if rng.random() < 0.18:
        return None, tone
    thickness = float(np.exp(rng.uniform(np.log(1.0), np.log(28.0))))
    return Hair(float(rng.uniform(34, 62)), float(rng.uniform(0, 7)), thickness, tone), tone


def harmonics_of(lamps: list[Lamp], sky: Sky) -> Float[np.ndarray, "9 3"]:
    """The light as the fit knows it."""
    total = Lighting.ambient(0.0).coefficients.double()
    for lamp in lamps:
        unit = Lighting.directional(torch.from_numpy(lamp.direction), 1.0, 0.0).coefficients.double()
        total = total + unit[:, :1] * torch.from_numpy(lamp.color)
    found = np.array(total.numpy())
    found[0] += Lighting.ambient(1.0).coefficients[0, 0].item() * sky.level
    # Irradiance gradient . normal is band 1 with Lambert's 2/3 taken out; order y, z, x.
    band = math.sqrt(3 / (4 * math.pi)) * 2 / 3
    found[1:4] += sky.gradient[[1, 2, 0]] / band
    return found


def finish(picture: Colors, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """What a camera and the web do: blur, tone curve, low resolution, noise, grey, JPEG."""
    encoded = np.clip(picture, 0, 1.2) ** (1 / (2.2 * rng.uniform(0.85, 1.15)))
    contrast = rng.uniform(0.85, 1.15)
    encoded = (encoded - 0.45) * contrast + 0.45
    noise = rng.normal(size=picture.shape).astype(np.float32)
    encoded += noise * (rng.uniform(0, 0.05) if rng.random() < 0.5 else 0.005)
    image = image_of(np.clip(encoded, 0, 1))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.3))))
    if rng.random() < 0.08:
        small = int(rng.integers(48, 100))
        image = image.resize((small, small), Image.Resampling.BILINEAR).resize(
            (SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC
        )
    if rng.random() < 0.06:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.35:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(35, 90)))
        image = Image.open(buffer)
    return np.array(image)


def _project(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
    return np.asarray(FOCAL_PX * points[:, :2] / points[:, 2:])
