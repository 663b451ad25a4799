"""A lit head in crop pixels: skin under lamps and sky with cast shadows and gloss, hair on the scalp.

Richer than the light the fit knows (nine harmonics, no shadows), since photographs are. Light is computed per
vertex and blended over triangles: the mesh is as fine as the crop's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from facefit.kernels.drawn_head import halved_kernel, lamp_kernel, vertex_normals_kernel
from facefit.kernels.rasterize import barycentric_kernel, rasterize_kernel
from facefit.kernels.visibility import pose_kernel
from facefit.learned_init.draws import Lamp, Sky
from facefit.learned_init.fields import Fields
from facefit.models.face_model import LinearFaceModel

SHADOW_PX, SHADOW_BIAS_MM = 112, 4.0
OCCLUSION_DIRECTIONS = 48
# The share of the sky that teeth and tongue see between parted lips.
MOUTH_SEES = 0.5
# Gloss is of full strength from this albedo on: black hair does not shine white.
MATT_ALBEDO = 0.02
# The hairline is where this mixture of up and back, from the brows, reaches about 45 mm.
SCALP_UP, SCALP_BACK = 0.8, 0.6

Vertices = Float[np.ndarray, "vertices 3"]


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

    color: Float[np.ndarray, "3 size size"]
    hair: Float[np.ndarray, "size size"]
    cover: Float[np.ndarray, "size size"]


@dataclass(frozen=True)
class View:
    """A crop's camera: its axes upright in the crop, so that a focal length and a centre give the crop's pixels."""

    camera_from_model: Float[np.ndarray, "3 3"]
    translation_mm: Float[np.ndarray, "3"]
    focal_px: float
    centre_px: Float[np.ndarray, "2"]

    @property
    def eye(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands, in the model's frame."""
        return np.asarray(-self.camera_from_model.T @ self.translation_mm)


class HeadPainter:
    """What is computed once per model: ambient occlusion, the scalp's coordinate, random fields."""

    def __init__(self, model: LinearFaceModel) -> None:
        self.triangles = np.ascontiguousarray(model.topology.triangles, np.int32)
        mean = model.mean.numpy()
        brow = model.landmark_points(model.mean)[17:27].mean(0).numpy()
        self.scalp = (mean[:, 1] - brow[1]) * SCALP_UP - (mean[:, 2] - brow[2]) * SCALP_BACK
        for part in ("eyeballs", "mouth_inside", "teeth"):
            if part in model.topology.regions:
                self.scalp[np.asarray(model.topology.regions[part], np.int64)] = -np.inf
        self.fields = Fields(mean, model.topology.mirror)
        self.occlusion = self._ambient_occlusion(mean)
        for part in ("teeth", "mouth_inside"):
            # The mean face has its mouth closed; where these are seen, it is open.
            if part in model.topology.regions:
                inside = np.asarray(model.topology.regions[part], np.int64)
                self.occlusion[inside] = np.maximum(self.occlusion[inside], MOUTH_SEES)

    def paint(
        self,
        vertices: Vertices,
        albedo: Float[np.ndarray, "3 vertices"],
        view: View,
        size: int,
        lamps: list[Lamp],
        sky: Sky,
        gloss: tuple[float, float],
        hair: Hair | None,
    ) -> LitHead:
        """A picture of `size` x `size`, drawn twice as fine; `gloss` is strength and exponent."""
        normals = self._normals(vertices)
        haired = np.zeros(len(vertices), np.float32)
        if hair is not None:
            fields = self.fields.smooth
            ragged = hair.ragged_mm * (fields[3] + 0.4 * fields[12])
            depth = ((self.scalp - hair.start_mm + ragged) / 6.0).clip(0, 1)
            thick = hair.thickness_mm * depth * (1 + 0.3 * fields[5] + 0.15 * fields[18]).clip(0.1)
            haired = (depth * 2).clip(0, 1)
            vertices = vertices + thick[:, None] * normals
            strands = 1 + 0.35 * fields[20] + 0.2 * fields[10]
            tint = np.multiply.outer(hair.color.astype(np.float32), strands).clip(0.004)
            albedo = albedo + haired * (tint - albedo)
        light = self._light(vertices, normals, albedo, haired, view, lamps, sky, gloss)
        maps = self._drawn(vertices, np.concatenate([light, haired[None]]), view, size)
        return LitHead(maps[:3], maps[3], maps[4])

    def _drawn(
        self, vertices: Vertices, attributes: Float[np.ndarray, "4 vertices"], view: View, size: int
    ) -> Float[np.ndarray, "5 size size"]:
        """The attributes at the pixels, and what is covered of each."""
        pixels, inverse_depth = np.empty((len(vertices), 2)), np.empty(len(vertices))
        centre, camera_points = 2 * view.centre_px, np.empty((len(vertices), 3))
        pose_kernel(
            vertices, view.camera_from_model, view.translation_mm, 2 * view.focal_px, centre, camera_points,
            pixels, inverse_depth,
        )  # fmt: skip
        nearest, ids = _empty_buffers(2 * size)
        rasterize_kernel(pixels, inverse_depth, self.triangles, True, nearest, ids)
        barycentric, depth = np.empty((*ids.shape, 3), np.float32), np.empty(ids.shape, np.float32)
        barycentric_kernel(pixels, inverse_depth, self.triangles, ids, barycentric, depth)
        maps = np.empty((5, size, size), np.float32)
        halved_kernel(ids, barycentric, self.triangles, attributes.T.copy(), maps)
        return maps

    def _light(
        self,
        vertices: Vertices,
        normals: Vertices,
        albedo: Float[np.ndarray, "3 vertices"],
        haired: Float[np.ndarray, "vertices"],
        view: View,
        lamps: list[Lamp],
        sky: Sky,
        gloss: tuple[float, float],
    ) -> Float[np.ndarray, "3 vertices"]:
        """What the vertices send to the camera; the first lamp casts shadows."""
        arriving = sky.gradient.T.astype(np.float32) @ normals.T + sky.level.astype(np.float32)[:, None]
        light: Float[np.ndarray, "3 vertices"] = albedo * arriving.clip(0) * self.occlusion
        strength, exponent = gloss
        glossy = strength * (1 - 0.7 * haired)
        seen = self._lit_by(vertices, lamps[0].direction)
        for lamp in lamps:
            lamp_kernel(
                vertices, normals, albedo, seen, glossy, exponent, MATT_ALBEDO, view.eye, lamp.direction,
                lamp.color, light,
            )  # fmt: skip
            seen = np.ones_like(seen)
        return light

    def _normals(self, vertices: Vertices) -> Vertices:
        normals = np.empty_like(vertices)
        vertex_normals_kernel(vertices, self.triangles, normals)
        return normals

    def _lit_by(self, vertices: Vertices, direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "vertices"]:
        """0 in the cast shadow of a distant lamp, 1 in its light."""
        first = np.cross(direction, [0.31, 0.83, -0.46])
        first /= np.linalg.norm(first)
        axes = np.stack([first, np.cross(first, direction), direction]).astype(np.float32)
        flat, depth = axes[:2] @ vertices.T, 1000.0 - axes[2] @ vertices.T
        low, high = flat.min(1, keepdims=True), flat.max(1, keepdims=True)
        pixels = (flat - low) / (high - low).max() * (SHADOW_PX - 2) + 1
        nearest, ids = _empty_buffers(SHADOW_PX)
        places, inverse_depth = pixels.T.astype(np.float64, order="C"), 1 / depth.astype(np.float64)
        rasterize_kernel(places, inverse_depth, self.triangles, False, nearest, ids)
        column, row = pixels.astype(np.int64)
        return np.asarray((depth - SHADOW_BIAS_MM) * nearest[row, column] < 1, np.float32)

    def _ambient_occlusion(self, mean: Vertices) -> Float[np.ndarray, "vertices"]:
        """The cosine-weighted share of the sky that each vertex of the mean face sees."""
        normals = self._normals(mean)
        number = np.arange(OCCLUSION_DIRECTIONS) + 0.5
        # A spiral from pole to pole: even over the sphere.
        polar, turn = np.arccos(1 - 2 * number / OCCLUSION_DIRECTIONS), np.pi * (1 + 5**0.5) * number
        directions = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], 1)
        seen, total = np.zeros(len(mean), np.float32), np.zeros(len(mean), np.float32)
        for direction in directions.astype(np.float32):
            cosine = (normals @ direction).clip(0)
            seen += cosine * self._lit_by(mean, direction)
            total += cosine
        return np.asarray(0.15 + 0.85 * seen / total.clip(1e-6))


def _empty_buffers(size: int) -> tuple[Float[np.ndarray, "size size"], Int[np.ndarray, "size size"]]:
    """A z-buffer and its triangles, to be filled."""
    return np.empty((size, size)), np.empty((size, size), np.int32)
