"""What the fit explains, laid over the photograph: the overlay, and albedo, shading and error in register
with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from facefit.face_weight import face_vertices, face_weight
from facefit.fitting.result import FitResult
from facefit.models.camera import Camera
from facefit.on_cpu import on_cpu
from facefit.picture import Picture, render
from facefit.rendering.interpolate import interpolate
from facefit.rendering.shade import eight_bits, linear_to_srgb

# The rendered face is smooth; more pixels than these would be drawn for nothing.
LARGEST_RENDERING = 1400

# Smaller faces are rendered with up to twice the photograph's pixels and averaged: lids, lips and pupils are thin.
FINE_RENDERING = 700

# The face fades into the photograph over this length of skin.
FADE_MM = 15.0
# No fit looks at what lies behind the lips, and many models have nothing there.
BEHIND_LIPS = ("teeth", "mouth_inside")

# An error of this many sRGB levels (0-1) is drawn in the hottest colour.
ERROR_SCALE = 0.25

# Black - violet - orange - pale yellow, evenly rising in lightness; for the error.
_HEAT = (
    np.array([[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]])
    / 255.0
)


@dataclass(frozen=True)
class Box:
    """Columns [left, right) and rows [top, bottom) of the photograph."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Layers:
    """Pictures of one crop of the photograph in register, sRGB; outside the face the last three show it
    dimmed.
    """

    box: Box
    photo: UInt8[np.ndarray, "height width 3"]
    overlay: UInt8[np.ndarray, "height width 3"]
    albedo: UInt8[np.ndarray, "height width 3"]
    shading: UInt8[np.ndarray, "height width 3"]
    error: UInt8[np.ndarray, "height width 3"]


def overlay(result: FitResult) -> UInt8[np.ndarray, "height width 3"]:
    """The photograph at its own size with the rendered face over it, its edge feathered."""
    result = on_cpu(result)
    box = face_box(result, margin=0.05)
    longest = max(box.width, box.height)
    finer = min(2.0, max(1.0, FINE_RENDERING / longest))
    picture, alpha = _rendered(result, box, min(finer, LARGEST_RENDERING / longest))
    blended = np.array(result.observation.image)
    part = blended[box.top : box.bottom, box.left : box.right]
    face = _resized(eight_bits(picture.color * alpha[..., None]), box.width, box.height)
    behind = 255 - _resized(eight_bits(alpha), box.width, box.height).astype(np.uint16)[..., None]
    part[:] = np.minimum(face + (part * behind + 127) // 255, 255)
    return blended


def layers(result: FitResult, longest: int = 900, margin: float = 0.45) -> Layers:
    """The five pictures of the report, the face with some surroundings, at most `longest` pixels a side."""
    result = on_cpu(result)
    box = face_box(result, margin)
    zoom = min(1.0, longest / max(box.width, box.height))
    picture, alpha = _rendered(result, box, zoom)
    height, width = alpha.shape
    photo = _resized(result.observation.image[box.top : box.bottom, box.left : box.right], width, height)
    seen = torch.from_numpy(photo / 255.0).float()
    grey = (0.35 * seen.mean(-1, keepdim=True) + 0.03).expand(-1, -1, 3)
    level = picture.irradiance[alpha > 0.5].mean().clamp(min=1e-3) if bool((alpha > 0.5).any()) else 1.0
    distance = (picture.color - seen).abs().mean(-1) / ERROR_SCALE

    def over(color: Float[Tensor, "height width 3"], below: Float[Tensor, "height width 3"]) -> np.ndarray:
        return eight_bits(torch.lerp(below, color.clamp(0, 1), alpha[..., None]))

    return Layers(
        box=box,
        photo=photo,
        overlay=over(picture.color, seen),
        albedo=over(linear_to_srgb(picture.albedo), grey),
        shading=over(linear_to_srgb(0.4 * picture.irradiance / level), grey),
        error=over(_heat(distance), grey),
    )


def face_box(result: FitResult, margin: float) -> Box:
    """The face in the photograph, widened by `margin` of its larger side, within the frame."""
    scene, model = result.scene, result.model
    with torch.no_grad():
        points = scene.pose.apply(scene.shape(model))
        points = points[face_vertices(model)]
        pixels = scene.camera.project(points[points[:, 2] > 1]).numpy()
    width, height = scene.camera.width, scene.camera.height
    if not len(pixels):
        return Box(0, 0, width, height)
    extra = margin * float((pixels.max(0) - pixels.min(0)).max())
    left, top = (pixels.min(0) - extra).clip(0, [width - 1, height - 1]).astype(int)
    right, bottom = np.ceil(pixels.max(0) + extra).clip([left + 1, top + 1], [width, height]).astype(int)
    return Box(int(left), int(top), int(right), int(bottom))


def crop_camera(camera: Camera, box: Box) -> Camera:
    """The camera that sees only a box of the photograph."""
    corner = torch.tensor([box.left, box.top]).to(camera.principal_point)
    return replace(
        camera, principal_point=camera.principal_point - corner, width=box.width, height=box.height
    )


def _rendered(result: FitResult, box: Box, zoom: float) -> tuple[Picture, Float[Tensor, "height width"]]:
    """The face in a box of the photograph, and the weight with which to lay it over.

    The weight fades along the surface towards the face's outline, and over a few pixels where the face hides what
    lies behind it. Between the lips the photograph shows through.
    """
    scene, model = result.scene, result.model
    width, height = max(1, round(box.width * zoom)), max(1, round(box.height * zoom))
    with torch.no_grad():
        picture = render(replace(scene, camera=crop_camera(scene.camera, box)), model, width, height)
        weight = face_weight(model, FADE_MM).clone()
        for name in BEHIND_LIPS:
            if name in model.topology.regions:
                weight[model.topology.regions[name]] = 0
        alpha = interpolate(picture.fragments, weight[:, None], model.triangles)[..., 0]
    blurred, radius = (alpha > 0).float()[None, None], max(1, max(width, height) // 150)
    for _ in range(2):
        blurred = avg_pool2d(blurred, (2 * radius + 1, 1), 1, (radius, 0))
        blurred = avg_pool2d(blurred, (1, 2 * radius + 1), 1, (0, radius))
    return picture, torch.minimum(alpha, (2 * blurred[0, 0] - 1).clamp(min=0))


def _heat(value: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    position = value.clamp(0, 1).numpy() * (len(_HEAT) - 1)
    below = np.minimum(position.astype(int), len(_HEAT) - 2)
    part = (position - below)[..., None]
    return torch.from_numpy((1 - part) * _HEAT[below] + part * _HEAT[below + 1]).float()


def _resized(image: UInt8[np.ndarray, "*shape"], width: int, height: int) -> UInt8[np.ndarray, "*shape"]:
    if image.shape[:2] == (height, width):
        return image
    shrinking = image.shape[0] > height
    method = Image.Resampling.BOX if shrinking else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), method))
