"""One offline page about a fit: pictures to wipe between, a head to turn and to move, the numbers in tables."""

from __future__ import annotations

import base64
import json
import os
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import facefit
from facefit.atomic import write_atomically
from facefit.fitting.result import FitResult, Status
from facefit.fitting.verdict import BAD_LANDMARKS
from facefit.on_cpu import on_cpu
from facefit.overlay import layers
from facefit.report_numbers import (
    camera_table,
    coefficient_charts,
    doubt_table,
    key_figures,
    model_table,
    stage_table,
)
from facefit.report_pictures import LAYERS, compare, head_views, jpeg_url, light_ball
from facefit.report_scene import viewer_scene
from facefit.result_json import SCALE_STATEMENT
from facefit.texture import Texture, bake_texture


def report(result: FitResult, path: str | os.PathLike[str]) -> None:
    """Write the page about one fit as an HTML file that works offline; complete or not there at all."""
    write_atomically(Path(path), report_html(result).encode())


def report_html(result: FitResult, texture: Texture | None = None) -> str:
    """The page as one string: no reference leaves it, and it works from a disk without a network."""
    result = on_cpu(result)
    texture = bake_texture(result) if texture is None else texture
    directory, block = viewer_scene(result, texture)
    data = {
        "scene": directory,
        "block": base64.b64encode(block).decode(),
        "skin": jpeg_url(texture.srgb, quality=88),
        "lit": jpeg_url(texture.lit, quality=88),
        "captions": {key: caption for key, (_, caption) in LAYERS.items()},
    }
    camera = result.scene.pose.camera_from_model
    return Template(_asset("report_page.html")).substitute(
        title=escape(_name(result)),
        css=_asset("report_page.css"),
        js=_asset("report_viewer.js") + _asset("report_page.js"),
        # In a script element "</script>" would end it, wherever it stands.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        grade=result.verdict.grade,
        verdict=escape(typeset(verdict(result))),
        warnings=_warnings(result),
        figures=key_figures(result),
        compare=compare(result, layers(result)),
        views=jpeg_url(head_views(result, texture), quality=82),
        camera=camera_table(result),
        doubt=doubt_table(result),
        light=light_ball(result.scene.lighting, camera),
        coefficients=coefficient_charts(result),
        stages=stage_table(result),
        model=model_table(result),
        scale=escape(SCALE_STATEMENT),
        version=escape(facefit.__version__),
    )


def verdict(result: FitResult) -> str:
    """What stands beside the grade: what speaks against the fit, how well it sits, and an end out of the ordinary."""
    reasons = "; ".join(result.verdict.reasons) or "nothing speaks against this fit"
    told = [f"{reasons[0].upper()}{reasons[1:]}."]
    # Of points far off the verdict has told already.
    if result.landmark_error <= BAD_LANDMARKS:
        share = f"{100 * result.landmark_error:.1f} % of the eye distance"
        told.append(f"The fitted points lie {share} from the detected ones.")
    if result.status not in (Status.CONVERGED, Status.STEPS_USED, Status.NO_DESCENT):
        told.append(result.status.value)
    return " ".join(told)


def typeset(text: str) -> str:
    """A sentence of a terminal as a page has it: plus-minus signs, and no line broken between number and unit."""
    return re.sub(r"(\d) (%|mm|px|degrees)", "\\1\N{NO-BREAK SPACE}\\2", text.replace("+-", "±"))


def _warnings(result: FitResult) -> str:
    if not result.warnings:
        return ""
    items = "".join(f"<li>{escape(typeset(warning))}</li>" for warning in result.warnings)
    return f'<ul class="warnings" role="note">{items}</ul>'


def _name(result: FitResult) -> str:
    """The photograph's file name as text; bytes that are none become question marks."""
    path = result.observation.path
    return "A photograph" if path is None else path.name.encode("utf-8", "replace").decode()


def _asset(name: str) -> str:
    return (files("facefit") / name).read_text("utf-8")
