"""One offline page about a fit: pictures to wipe between, a head to turn and to move, every number in a
table.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

import facefit
from facefit.atomic import write_atomically
from facefit.fitting.result import FitResult
from facefit.glb import encode_jpeg
from facefit.models.lighting import Lighting
from facefit.overlay import Layers, head_views, layers
from facefit.rendering.shade import linear_to_srgb
from facefit.report_scene import viewer_scene
from facefit.result_json import SCALE_STATEMENT
from facefit.texture import Texture, bake_texture

# Mean landmark error over the outer eye distance, up to which a fit is called good and fair.
GOOD, FAIR = 0.035, 0.06

_LAYERS = {
    "overlay": ("Overlay", "The fitted face, drawn over the photograph."),
    "albedo": ("Albedo", "The colour of the skin without any light."),
    "shading": ("Shading", "The light alone, on a grey surface."),
    "error": (
        "Error",
        "Difference in colour: black is none, pale yellow a quarter of the full range or more.",
    ),
}


def report(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write the page; complete or not there at all."""
    write_atomically(Path(path), report_html(result).encode())


def report_html(result: FitResult, texture: Texture | None = None) -> str:
    """The page as one string: no reference leaves it, and it works from a disk without a network."""
    texture = bake_texture(result) if texture is None else texture
    directory, block = viewer_scene(result, texture)
    shown = layers(result)
    name = "a photograph" if result.observation.path is None else _printable(result.observation.path.name)
    here = files("facefit")
    asset = {kind: (here / f"report_page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")}
    viewer = (here / "report_viewer.js").read_text("utf-8")
    data = {
        "scene": directory,
        "block": base64.b64encode(block).decode(),
        "texture": _data_url(texture.srgb, quality=88),
        "captions": {key: caption for key, (_, caption) in _LAYERS.items()},
    }
    return Template(asset["html"]).substitute(
        title=escape(name),
        css=asset["css"],
        js=viewer + asset["js"],
        # "</script>" in a name must not end the element.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        verdict=escape(_verdict(result)),
        warnings=_warnings(result),
        figures=_figures(result),
        compare=_compare(result, shown),
        views=_data_url(head_views(result), quality=82),
        camera=_camera_table(result),
        light=_light(result),
        coefficients=_coefficients(result),
        stages=_stages(result),
        model=_model_table(result),
        scale=escape(SCALE_STATEMENT),
        version=escape(facefit.__version__),
    )


def _verdict(result: FitResult) -> str:
    error = result.landmark_error
    if not math.isfinite(error):
        return result.status.value
    grade = "good" if error <= GOOD else "fair" if error <= FAIR else "poor"
    points = f"The fitted points lie {100 * error:.1f} % of the eye distance from the detected ones"
    return f"{result.status.value} {points}, which is {grade}."


def _warnings(result: FitResult) -> str:
    if not result.warnings:
        return ""
    return (
        '<ul class="warnings" role="note">'
        + "".join(f"<li>{escape(w)}</li>" for w in result.warnings)
        + "</ul>"
    )


def _figures(result: FitResult) -> str:
    yaw, pitch, _ = result.scene.pose.yaw_pitch_roll_deg()
    camera = result.scene.camera
    entries = [
        (_number(100 * result.landmark_error, "%", 1), "landmark error", "of the outer eye distance"),
        (_number(255 * result.photometric_rms, "", 1), "colour error", "grey levels, RMS over the face"),
        (_number(100 * result.pixels_used, "%", 0), "pixels explained", "of the visible face"),
        (f"{yaw:+.0f}°, {pitch:+.0f}°", "head turn, pitch", "to the subject's left, up"),
        (f"{camera.field_of_view_deg:.0f}°", "field of view", _FOCAL[camera.focal_source]),
        (_number(result.seconds, "s", 2), "fitting time", ""),
    ]
    return "".join(
        f"<div><dt>{escape(label)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for value, label, note in entries
    )


_FOCAL = {
    "default": "assumed",
    "exif": "from the camera's EXIF",
    "given": "as given",
    "optimised": "found by the fit",
}


def _compare(result: FitResult, shown: Layers) -> str:
    """The wipe: the photograph below, one of the layers above it, the landmarks as an SVG on top."""
    height, width = shown.photo.shape[:2]
    images = [
        f'<img class="base" src="{_data_url(shown.photo)}" alt="The photograph" width="{width}" height="{height}">'
    ]
    radios = []
    for key, (label, caption) in _LAYERS.items():
        picture = _data_url(getattr(shown, key))
        images.append(f'<img class="layer" data-layer="{key}" src="{picture}" alt="{escape(caption)}">')
        checked = " checked" if key == "overlay" else ""
        radios.append(
            f'<label><input type="radio" name="layer" value="{key}"{checked}><span>{label}</span></label>'
        )
    return (
        f'<div class="wipe" style="aspect-ratio:{width}/{height}">{"".join(images)}{_landmark_svg(result, shown)}'
        '<i class="bar"></i><input type="range" id="wipe" min="0" max="100" value="50" step="0.5" '
        'aria-label="Wipe between the photograph and the fit"></div>'
        f'<div class="row"><div class="segments" role="radiogroup" aria-label="What to compare">{"".join(radios)}</div>'
        '<label class="check"><input type="checkbox" id="points"> Landmarks</label></div>'
    )


def _landmark_svg(result: FitResult, shown: Layers) -> str:
    box, unit = shown.box, max(shown.box.width, shown.box.height) / 300
    marks = []
    for kind, points in (("found", result.observation.landmarks), ("fitted", result.landmarks_fitted)):
        for x, y in points[np.isfinite(points).all(1)] if points is not None else ():
            marks.append(
                f'<circle class="{kind}" cx="{x - box.left:.1f}" cy="{y - box.top:.1f}" r="{unit:.2f}"/>'
            )
    return (
        f'<svg class="points" viewBox="0 0 {box.width} {box.height}" aria-hidden="true" '
        f'style="--stroke:{unit / 2:.2f}px" hidden>{"".join(marks)}</svg>'
    )


def _camera_table(result: FitResult) -> str:
    scene = result.scene
    yaw, pitch, roll = scene.pose.yaw_pitch_roll_deg()
    x, y, z = (float(v) for v in scene.pose.translation_mm)
    cx, cy = (float(v) for v in scene.camera.principal_point)
    return _table(
        [
            ("Head turned", f"{yaw:+.1f}° yaw, {pitch:+.1f}° pitch, {roll:+.1f}° roll"),
            ("Head at", f"{x:+.0f}, {y:+.0f}, {z:.0f} mm (right, down, forward of the camera)"),
            ("Focal length", f"{float(scene.camera.focal_px):.0f} px"),
            ("Field of view", f"{scene.camera.field_of_view_deg:.1f}° over the longer side, {_FOCAL[scene.camera.focal_source]}"),
            ("Principal point", f"{cx:.1f}, {cy:.1f} px"),
            ("Photograph", f"{scene.camera.width} × {scene.camera.height} px"),
        ]
    )  # fmt: skip


def _model_table(result: FitResult) -> str:
    model = result.model
    allowed = {
        "free": "free, also commercially",
        "non-commercial": "not for commercial use",
        "academic": "academic use only, by agreement",
    }
    offsets = result.scene.offsets
    return _table(
        [
            ("Face model", model.source.name),
            ("Licence", f"{model.source.licence} – {allowed[model.source.licence_class]}"),
            ("Source", model.source.citation),
            ("File (SHA-256)", model.source.sha256),
            ("Mesh", f"{model.n_vertices:,} vertices, {len(model.topology.triangles):,} triangles"),
            ("Modes", f"{model.n_identity} identity, {model.n_expression} expression, {model.n_albedo} albedo"),
            ("Vertex offsets", "none" if offsets is None else f"{float(offsets.square().sum(1).mean().sqrt()):.2f} mm RMS"),
        ]
    )  # fmt: skip


def _stages(result: FitResult) -> str:
    rows = []
    for stage in result.stages:
        terms = "<br>".join(
            f"{escape(term)} {_number(stage.cost_before.get(term, math.nan))} → <b>{_number(cost)}</b>"
            for term, cost in stage.cost_after.items()
        )
        cells = [
            escape(stage.name),
            terms,
            str(stage.steps),
            f"{1000 * stage.seconds:.0f} ms",
            escape(stage.status.value),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f'<th scope="col">{label}</th>' for label in ("Stage", "Cost by term", "Steps", "Time", "Ended")
    )
    return f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _coefficients(result: FitResult) -> str:
    """Bars of the identity and albedo coefficients; the dotted lines are two standard deviations."""
    charts = []
    for label, values in (("Identity", result.scene.identity), ("Albedo", result.scene.albedo)):
        numbers = [float(v) for v in values.detach()]
        if not numbers:
            continue
        step = 400 / len(numbers)
        bars = "".join(
            f'<rect x="{i * step:.2f}" width="{max(step - 1, 0.5):.2f}" y="{40 - 13 * max(min(v, 3), 0):.2f}" '
            f'height="{13 * min(abs(v), 3):.2f}"><title>{label.lower()} {i}: {v:+.2f}</title></rect>'
            for i, v in enumerate(numbers)
        )
        rms = math.sqrt(sum(v * v for v in numbers) / len(numbers))
        charts.append(
            f"<figure><figcaption>{label} <span>{len(numbers)} coefficients, RMS {rms:.2f} standard deviations</span>"
            f'</figcaption><svg viewBox="0 0 400 80" role="img" preserveAspectRatio="none" aria-label="{label} coefficients">'
            f'<path d="M0 14H400M0 66H400" class="sigma"/><path d="M0 40H400" class="zero"/>{bars}</svg></figure>'
        )
    return "".join(charts)


def _light(result: FitResult) -> str:
    """A white ball in the fitted light, seen from the photograph's camera."""
    ball = _light_ball(result.scene.lighting, result.scene.pose.camera_from_model.detach())
    return f'<img class="ball" src="{_png_url(ball)}" width="96" height="96" alt="A white ball in the light of the photograph">'


def _light_ball(
    lighting: Lighting, camera_from_model: Float[torch.Tensor, "3 3"], size: int = 192
) -> np.ndarray:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius = (x * x + y * y).sqrt()
    z = -(1 - radius.clamp(max=1) ** 2).sqrt()
    normals = torch.stack([x, y, z], -1).reshape(-1, 3) @ camera_from_model.cpu().float()
    irradiance = (
        Lighting(lighting.coefficients.detach().cpu().float()).irradiance(normals).reshape(size, size, 3)
    )
    color = linear_to_srgb(0.75 * irradiance / irradiance.amax().clamp(min=1e-4))
    alpha = ((1 - radius) * size / 2 + 0.5).clamp(0, 1)
    return (torch.cat([color.clamp(0, 1), alpha[..., None]], -1) * 255 + 0.5).to(torch.uint8).numpy()


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value)) or "–"}</td></tr>'
        for name, value in rows
    )
    return f"<table><tbody>{''.join(cells)}</tbody></table>"


def _number(value: float, unit: str = "", digits: int | None = None) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    return f"{text} {unit}".strip()


def _printable(text: str) -> str:
    """A file name as text; bytes that are none become replacement marks."""
    return text.encode("utf-8", "replace").decode()


def _data_url(image: np.ndarray, quality: int = 85) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, quality)).decode()


def _png_url(image: np.ndarray) -> str:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
