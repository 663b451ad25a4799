"""The pictures of the report as fragments of HTML: the wipe with its layers and landmarks, the ball in the
light.
"""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from facefit.face_weight import face_vertices
from facefit.fitting.result import FitResult
from facefit.glb import encode_jpeg
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting
from facefit.overlay import Layers
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import eight_bits, linear_to_srgb
from facefit.texture import Texture

# The colour behind the head.
_BACKDROP = np.array([223, 219, 211], np.uint8)

# Layer -> its name on the button and what it shows.
LAYERS = {
    "overlay": ("Overlay", "The fitted face, drawn over the photograph."),
    "albedo": (
        "Albedo",
        "The skin without the light. How light the one, how strong the other, a photograph hardly tells.",
    ),
    "shading": ("Shading", "The light alone, on a grey surface."),
    "error": ("Error", "Difference in colour: black is none, pale yellow a quarter of the range or more."),
}


def compare(result: FitResult, shown: Layers) -> str:
    """The wipe: the photograph below, one of the layers above it, the landmarks as an SVG on top."""
    height, width = shown.photo.shape[:2]
    size = f'width="{width}" height="{height}"'
    images = [f'<img class="base" src="{jpeg_url(shown.photo)}" alt="The photograph" {size}>']
    buttons = []
    for key, (label, caption) in LAYERS.items():
        source = jpeg_url(getattr(shown, key))
        kind = f'class="layer" data-layer="{key}"'
        images.append(f'<img {kind} src="{source}" alt="{escape(caption)}" {size}>')
        checked = " checked" if key == "overlay" else ""
        radio = f'<input type="radio" name="layer" value="{key}"{checked}>'
        buttons.append(f"<label>{radio}<span>{label}</span></label>")
    return (
        f'<div class="wipe" style="aspect-ratio:{width}/{height}">{"".join(images)}'
        f"{_landmarks(result, shown)}"
        '<i class="bar"></i><input type="range" id="wipe" min="0" max="100" value="50" step="0.5" '
        'aria-label="Wipe between the photograph and the fit"></div>'
        '<div class="row"><div class="segments" role="radiogroup" aria-label="What to compare">'
        f"{''.join(buttons)}</div>"
        '<label class="check"><input type="checkbox" id="points"> Landmarks</label></div>'
    )


def head_views(result: FitResult, texture: Texture, size: int = 320) -> UInt8[np.ndarray, "height width 3"]:
    """The head in the photograph's light, for readers without WebGL: front, neutral, and from either side."""
    scene, model = result.scene, result.model
    posed, neutral = scene.shape(model), scene.neutral_shape(model)
    views = [_view(model, texture, shape, turn, size) for shape, turn in
             ((posed, 0.0), (neutral, 0.0), (posed, 0.7), (posed, -0.7))]  # fmt: skip
    return np.concatenate([np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)], 0)


def light_ball(lighting: Lighting, camera_from_model: Float[Tensor, "3 3"], size: int = 192) -> str:
    """A white ball in the fitted light, seen from the photograph's camera."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = (x * x + y * y).sqrt()
    toward_viewer = -(1 - radius.clamp(max=1) ** 2).sqrt()
    normals = torch.stack([x, y, toward_viewer], -1).reshape(-1, 3) @ camera_from_model
    light = lighting.irradiance(normals)
    color = linear_to_srgb(0.75 * light / light.amax().clamp(min=1e-4)).clamp(0, 1).reshape(size, size, 3)
    alpha = ((1 - radius) * size / 2 + 0.5).clamp(0, 1)
    picture = eight_bits(torch.cat([color, alpha[..., None]], -1))
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    source = _url("png", stream.getvalue())
    return f'<img src="{source}" width="96" height="96" alt="A white ball in the light of the photograph">'


def jpeg_url(image: UInt8[np.ndarray, "height width 3"], quality: int = 85) -> str:
    return _url("jpeg", encode_jpeg(image, quality))


def _landmarks(result: FitResult, shown: Layers) -> str:
    box, unit = shown.box, max(shown.box.width, shown.box.height) / 300
    marks = []
    for kind, points in (("found", result.observation.landmarks), ("fitted", result.landmarks_fitted)):
        known = [] if points is None else points[np.isfinite(points).all(1)]
        for x, y in known:
            place = f'cx="{x - box.left:.1f}" cy="{y - box.top:.1f}"'
            marks.append(f'<circle class="{kind}" {place} r="{unit:.2f}"/>')
    return (
        f'<svg class="points" viewBox="0 0 {box.width} {box.height}" aria-hidden="true" '
        f'style="--stroke:{unit / 2:.2f}px" hidden>{"".join(marks)}</svg>'
    )


def _view(
    model: LinearFaceModel, texture: Texture, vertices: Float[Tensor, "vertices 3"], turn: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A frontal view of the head turned about the vertical, through a narrow lens, its texture unshaded."""
    face = vertices[face_vertices(model)]
    middle = (face.amax(0) + face.amin(0)) / 2
    middle[2] = (vertices[:, 2].amax() + vertices[:, 2].amin()) / 2
    pose = Pose(torch.tensor([0.0, turn, 0.0]), torch.zeros(3))
    reach = 5.0 * float((face.amax(0) - face.amin(0)).amax())
    points = (vertices - middle) @ pose.camera_from_model.T + torch.tensor([0.0, 0.0, reach])
    camera = Camera.from_field_of_view(size, size, 18.0)
    seen = rasterize(camera.project(points), points[:, 2], model.triangles, size, size)
    corners = texture.uv[texture.uv_triangles[seen.triangle.clamp(min=0).numpy()]]
    uv = (seen.barycentric.numpy()[..., None] * corners).sum(2)
    last = len(texture.lit) - 1
    column = (uv[..., 0] * (last + 1)).astype(int).clip(0, last)
    row = ((1 - uv[..., 1]) * (last + 1)).astype(int).clip(0, last)
    return np.where(seen.covered.numpy()[..., None], texture.lit[row, column], _BACKDROP)


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
