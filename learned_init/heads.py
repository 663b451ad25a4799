"""A lit head in crop pixels: skin under lamps and sky with cast shadows and gloss, hair on the scalp.

Richer than the light the fit knows (nine harmonics, no shadows), since photographs are. Light is computed per
vertex and blended over triangles: the mesh is as fine as the crop's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.learned_init.draws import Lamp, Sky
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.rendering.interpolate import interpolate
from facefit.rendering.rasterize import rasterize

SHADOW_PX, SHADOW_BIAS_MM = 112, 4.0
OCCLUSION_DIRECTIONS = 48
# Smooth random fields over the head, by wavelength in mm: blotches, freckles, uneven beard.
FIELD_WAVELENGTHS_MM = (60.0, 25.0, 10.0)
FIELDS_EACH = 8
# Heads outside the model: deviation of a stretch along each axis; for the first two sets of fields the largest
# amplitude; the share of it that differs between the sides.
STRETCH = 0.035
WARP_MM = ((0, 3.0), (FIELDS_EACH, 0.7))
UNLIKE = 0.3
# The hairline is where this mixture of up and back, from the brows, reaches about 45 mm.
SCALP_UP, SCALP_BACK = 0.8, 0.6


@dataclass(frozen=True)
class Hair:
    """Hair as a thickened, coloured scalp: from `start_mm` along the scalp's coordinate, `ragged_mm` uneven."""

    start_mm: float
    ragged_mm: float
    thickness_mm: float
    color: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class LitHead:
    """Linear RGB, premultiplied by `cover`; `hair` is its share of hair."""

    color: Float[Tensor, "size size 3"]
    cover: Float[Tensor, "size size"]
    hair: Float[Tensor, "size size"]


class HeadPainter:
    """What is computed once per model: ambient occlusion, the scalp's coordinate, random fields."""

    def __init__(self, model: LinearFaceModel) -> None:
        self.model = model
        self.triangles = model.triangles.int()
        mean = model.mean
        marks = model.landmark_points(mean)
        brow = marks[17:27].mean(0)
        self.scalp = (mean[:, 1] - brow[1]) * SCALP_UP - (mean[:, 2] - brow[2]) * SCALP_BACK
        inside = [
            model.topology.regions[n]
            for n in ("eyeballs", "mouth_inside", "teeth")
            if n in model.topology.regions
        ]
        for part in inside:
            self.scalp[torch.from_numpy(np.asarray(part, np.int64))] = -torch.inf
        self.fields = _fields(mean)
        self.warps = _warps(self.fields, model.topology.mirror)
        self.occlusion = self._ambient_occlusion(mean)

    def paint(
        self,
        vertices: Float[Tensor, "vertices 3"],
        albedo: Float[Tensor, "vertices 3"],
        camera_from_model: Float[np.ndarray, "3 3"],
        translation_mm: Float[np.ndarray, "3"],
        crop_from_ray: Float[np.ndarray, "2 3"],
        size: int,
        lamps: list[Lamp],
        sky: Sky,
        gloss: tuple[float, float],
        hair: Hair | None,
    ) -> LitHead:
        """`crop_from_ray` takes (x/z, y/z, 1) to pixels of a picture of `size` x `size`, drawn twice as fine."""
        haired = torch.zeros(len(vertices))
        normals = vertex_normals(vertices, self.model.triangles)
        if hair is not None:
            ragged = hair.ragged_mm * self.fields[:, 3] + 0.4 * hair.ragged_mm * self.fields[:, 12]
            depth = ((self.scalp - hair.start_mm + ragged) / 6.0).clamp(0, 1)
            thick = (
                hair.thickness_mm
                * depth
                * (1 + 0.3 * self.fields[:, 5] + 0.15 * self.fields[:, 18]).clamp(min=0.1)
            )
            haired = (depth * 2).clamp(0, 1)
            vertices = vertices + thick[:, None] * normals
            tint = torch.from_numpy(hair.color).float() * (
                1 + 0.35 * self.fields[:, 20:21] + 0.2 * self.fields[:, 10:11]
            )
            albedo = albedo + haired[:, None] * (tint.clamp(min=0.004) - albedo)
        camera = (
            vertices @ torch.from_numpy(camera_from_model.T).float()
            + torch.from_numpy(translation_mm).float()
        )
        lit = albedo * self._diffuse(
            vertices, normals, lamps, sky, gloss, haired, camera_from_model, translation_mm, albedo
        )
        z = camera[:, 2]
        rays = torch.cat([camera[:, :2] / z[:, None], torch.ones(len(z), 1)], 1)
        pixels = rays @ torch.from_numpy(2 * crop_from_ray.T).float()
        fragments = rasterize(pixels, z, self.triangles, 2 * size, 2 * size)
        maps = interpolate(fragments, torch.cat([lit, haired[:, None]], 1), self.triangles)
        full = torch.cat([maps, fragments.covered[..., None].float()], -1)
        half = (full[::2, ::2] + full[1::2, ::2] + full[::2, 1::2] + full[1::2, 1::2]) / 4
        return LitHead(half[..., :3], half[..., 4], half[..., 3])

    def _diffuse(
        self,
        vertices: Float[Tensor, "vertices 3"],
        normals: Float[Tensor, "vertices 3"],
        lamps: list[Lamp],
        sky: Sky,
        gloss: tuple[float, float],
        haired: Float[Tensor, "vertices"],
        camera_from_model: Float[np.ndarray, "3 3"],
        translation_mm: Float[np.ndarray, "3"],
        albedo: Float[Tensor, "vertices 3"],
    ) -> Float[Tensor, "vertices 3"]:
        """Irradiance, and gloss divided by the albedo it is later multiplied with."""
        light = torch.from_numpy(sky.level).float() + normals @ torch.from_numpy(sky.gradient).float()
        light = light.clamp(min=0) * self.occlusion[:, None]
        eye = torch.from_numpy(-camera_from_model.T @ translation_mm).float()
        view = torch.nn.functional.normalize(eye - vertices, dim=1)
        strength, exponent = gloss
        for number, lamp in enumerate(lamps):
            direction = torch.from_numpy(lamp.direction).float()
            color = torch.from_numpy(lamp.color).float()
            cosine = (normals @ direction).clamp(min=0)
            if number == 0:
                cosine = cosine * self._lit_by(vertices, direction)
            light = light + cosine[:, None] * color
            if strength:
                half = torch.nn.functional.normalize(direction + view, dim=1)
                shine = (
                    strength
                    * ((normals * half).sum(1).clamp(min=0) ** exponent)
                    * (cosine > 0)
                    * (1 - 0.7 * haired)
                )
                light = light + shine[:, None] * color / albedo.clamp(min=0.02)
        return light

    def _lit_by(
        self, vertices: Float[Tensor, "vertices 3"], direction: Float[Tensor, "3"]
    ) -> Float[Tensor, "vertices"]:
        """0 in the cast shadow of a distant lamp, 1 in its light."""
        first = torch.linalg.cross(direction, torch.tensor([0.31, 0.83, -0.46]))
        first = first / first.norm()
        axes = torch.stack([first, torch.linalg.cross(first, direction)], 1)
        flat, depth = vertices @ axes, 1000.0 - vertices @ direction
        low, high = flat.amin(0), flat.amax(0)
        pixels = (flat - low) / (high - low).amax() * (SHADOW_PX - 2) + 1
        nearest = rasterize(pixels, depth, self.triangles, SHADOW_PX, SHADOW_PX, cull_back=False).depth
        at = pixels.long()
        seen = depth < nearest[at[:, 1], at[:, 0]] + SHADOW_BIAS_MM
        return seen.float()

    def _ambient_occlusion(self, mean: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices"]:
        """The cosine-weighted share of the sky that each vertex of the mean face sees."""
        normals = vertex_normals(mean, self.model.triangles)
        number = np.arange(OCCLUSION_DIRECTIONS) + 0.5
        # A spiral from pole to pole: even over the sphere.
        polar, turn = np.arccos(1 - 2 * number / OCCLUSION_DIRECTIONS), np.pi * (1 + 5**0.5) * number
        directions = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], 1)
        seen, total = torch.zeros(len(mean)), torch.zeros(len(mean))
        for direction in torch.from_numpy(directions).float():
            cosine = (normals @ direction).clamp(min=0)
            seen, total = seen + cosine * self._lit_by(mean, direction), total + cosine
        return 0.15 + 0.85 * seen / total.clamp(min=1e-6)


def _fields(mean: Float[Tensor, "vertices 3"]) -> Float[Tensor, "vertices fields"]:
    """Sums of random plane waves of one wavelength: smooth noise of unit variance over the head."""
    rng = np.random.default_rng(5)
    fields = []
    for wavelength in FIELD_WAVELENGTHS_MM:
        for _ in range(FIELDS_EACH):
            waves = rng.normal(size=(3, 12))
            waves *= 2 * np.pi / wavelength / np.linalg.norm(waves, axis=0)
            phase = mean.double().numpy() @ waves + rng.uniform(0, 2 * np.pi, 12)
            fields.append(np.sin(phase).sum(1) / np.sqrt(6))
    return torch.from_numpy(np.stack(fields, 1)).float()


def _warps(
    fields: Float[Tensor, "vertices fields"], mirror: Int[np.ndarray, "vertices"] | None
) -> dict[int, Float[Tensor, "vertices both"]]:
    """The fields of each of `WARP_MM`'s groups, by its first: what is alike on both sides, what is not."""
    found = {}
    for start, _ in WARP_MM:
        one = fields[:, start : start + FIELDS_EACH]
        other = one if mirror is None else one[torch.from_numpy(mirror.astype(np.int64))]
        found[start] = torch.cat([one + other, one - other], 1) / 2**0.5
    return found


def draw_warp(painter: HeadPainter, rng: np.random.Generator) -> Float[Tensor, "vertices 3"]:
    """A smooth displacement that no mode of the model says, mm: real heads lie outside every model's space.

    Stretched along each axis, and bent by the random fields; mostly alike on both sides, as faces are.
    """
    mean = painter.model.mean
    found = (mean - mean.mean(0)) * torch.from_numpy(rng.normal(size=3) * STRETCH).float()
    for start, largest in WARP_MM:
        weights = rng.normal(size=(2, FIELDS_EACH, 3)) * rng.uniform(0, largest) / FIELDS_EACH**0.5
        # A symmetric displacement is odd in x and even in y and z.
        alike, unlike = weights[0], UNLIKE * weights[1]
        even = np.concatenate([unlike[:, :1], alike[:, 1:]], 1)
        odd = np.concatenate([alike[:, :1], unlike[:, 1:]], 1)
        found += painter.warps[start] @ torch.from_numpy(np.concatenate([even, odd])).float()
    return found


def blotches(painter: HeadPainter, rng: np.random.Generator) -> Float[Tensor, "vertices 3"]:
    """A factor on the albedo: uneven pigment and redness."""
    weights = rng.normal(size=(painter.fields.shape[1], 2)) * rng.uniform(0, 0.02, (1, 2))
    pattern = painter.fields @ torch.from_numpy(weights).float()
    red = torch.tensor([0.3, -0.5, -0.4])
    return 1 + pattern[:, :1] + pattern[:, 1:] * red
