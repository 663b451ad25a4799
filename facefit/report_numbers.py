"""The numbers of a fit as fragments of HTML: key figures, tables, charts. All text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from facefit.fitting.result import FitResult, StageReport
from facefit.fitting.uncertainty import SCALE_SIGMA

_FOCAL = {
    "default": "assumed",
    "exif": "from the camera's EXIF",
    "given": "as given",
    "optimised": "found by the fit",
}

_NOT_COMMERCIAL = "not for commercial use"

_LANDMARKS = {
    "dlib": f"by dlib's file – {_NOT_COMMERCIAL}",
    "facefit": "by facefit's own network – free, also commercially",
    "given": "as given",
}

_ALLOWED = {
    "free": "free, also commercially",
    "non-commercial": _NOT_COMMERCIAL,
    "academic": "academic use only, by agreement",
}

# The charts of coefficients: units of width, of height, and per standard deviation.
_WIDE, _HIGH, _DEVIATION = 400, 80, 13


def key_figures(result: FitResult) -> str:
    """The six figures that one looks for first."""
    yaw, pitch, _ = result.scene.pose.yaw_pitch_roll_deg()
    camera = result.scene.camera
    entries = [
        ("landmark error", number(100 * result.landmark_error, "%", 1), "of the outer eye distance"),
        ("colour error", number(255 * result.photometric_rms, "", 1), "grey levels, RMS over the face"),
        ("pixels used", number(100 * result.pixels_used, "%", 0), "of the visible face"),
        ("head turned", turned_in_words(yaw, pitch), "from the camera, by the subject's own left and right"),
        ("field of view", f"{camera.field_of_view_deg:.0f}°", _FOCAL[camera.focal_source]),
        ("fitting time", number(result.seconds, "s", 2), ""),
    ]
    return "".join(
        f"<div><dt>{escape(label)}</dt><dd><b>{escape(value)}</b><span>{escape(note)}</span></dd></div>"
        for label, value, note in entries
    )


def turned_in_words(yaw: float, pitch: float) -> str:
    """Where the face looks, in whole degrees: 17° right, 3° down."""
    turns = ((round(yaw), "left", "right"), (round(pitch), "up", "down"))
    words = [f"{abs(angle)}° {plus if angle > 0 else minus}" for angle, plus, minus in turns if angle]
    return ", ".join(words) or "0°"


def camera_table(result: FitResult) -> str:
    camera, pose = result.scene.camera, result.scene.pose
    yaw, pitch, roll = pose.yaw_pitch_roll_deg()
    x, y, z = (float(v) for v in pose.translation_mm)
    cx, cy = (float(v) for v in camera.principal_point)
    spans = f"{camera.field_of_view_deg:.1f}° over the longer side"
    return table(
        [
            ("Head turned", f"{yaw:+.1f}° yaw, {pitch:+.1f}° pitch, {roll:+.1f}° roll"),
            ("Head at", f"{x:+.0f}, {y:+.0f}, {z:.0f} mm (right, down, forward of the camera)"),
            ("Focal length", f"{float(camera.focal_px):.0f} px"),
            ("Field of view", f"{spans}, {_FOCAL[camera.focal_source]}"),
            ("Principal point", f"{cx:.1f}, {cy:.1f} px"),
            ("Photograph", f"{camera.width} × {camera.height} px"),
        ]
    )


def doubt_table(result: FitResult) -> str:
    """How far the parts of the face may be off."""
    verdict = result.verdict
    rows = [("Expected error of the shape", number(verdict.expected_mm, "mm", 1))]
    rows += [(name.capitalize(), f"± {sigma:.1f} mm") for name, sigma in result.part_sigma_mm.items()]
    return table([*rows, ("Size of the head", f"± {100 * SCALE_SIGMA:.0f} %, a prior")])


def model_table(result: FitResult) -> str:
    model, offsets = result.model, result.scene.offsets
    moved = None if offsets is None else float(offsets.square().sum(1).mean().sqrt())
    modes = f"{model.n_identity} identity, {model.n_expression} expression, {model.n_albedo} albedo"
    return table(
        [
            ("Face model", model.source.name),
            ("Licence", f"{model.source.licence} – {_ALLOWED[model.source.licence_class]}"),
            ("Source", model.source.citation),
            ("Landmarks", _LANDMARKS[result.observation.landmarks_by]),
            ("File (SHA-256)", model.source.sha256),
            ("Mesh", f"{model.n_vertices:,} vertices, {len(model.topology.triangles):,} triangles"),
            ("Modes", modes),
            ("Vertex offsets", "none" if moved is None else f"{moved:.2f} mm RMS"),
        ]
    )


def stage_table(result: FitResult) -> str:
    labels = ("Stage", "Cost by term", "Steps", "Time", "Ended")
    head = "".join(f'<th scope="col">{label}</th>' for label in labels)
    rows = "".join(_stage_row(stage) for stage in result.stages)
    return f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def coefficient_charts(result: FitResult) -> str:
    """Bars of the identity and albedo coefficients; dotted lines at two standard deviations."""
    blocks = (("Identity", result.scene.identity), ("Albedo", result.scene.albedo))
    return "".join(_chart(label, [float(v) for v in values]) for label, values in blocks if len(values))


def table(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f'<tr><th scope="row">{escape(a)}</th><td>{escape(b) or "–"}</td></tr>' for a, b in rows)
    return f"<table><tbody>{''.join(cells)}</tbody></table>"


def number(value: float, unit: str = "", digits: int | None = None) -> str:
    """A figure as a person reads it; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    # A cost that differs from none by rounding only.
    if digits is None and abs(value) < 1e-9:
        value = 0.0
    text = f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    return f"{text} {unit}".strip()


def _stage_row(stage: StageReport) -> str:
    terms = "<br>".join(
        f"{escape(term)} {number(stage.cost_before.get(term, math.nan))} → <b>{number(cost)}</b>"
        for term, cost in stage.cost_after.items()
    )
    time = f"{1000 * stage.seconds:.0f} ms"
    cells = (escape(stage.name), terms, str(stage.steps), time, escape(stage.status.value))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _chart(label: str, values: list[float]) -> str:
    step, middle = _WIDE / len(values), _HIGH / 2
    bars = []
    for i, value in enumerate(values):
        height = _DEVIATION * min(abs(value), 3)
        top = middle - height if value > 0 else middle
        bars.append(
            f'<rect x="{i * step:.2f}" width="{max(step - 1, 0.5):.2f}" y="{top:.2f}" height="{height:.2f}">'
            f"<title>{label.lower()} {i}: {value:+.2f}</title></rect>"
        )
    rms = math.sqrt(sum(v * v for v in values) / len(values))
    caption = f"{len(values)} coefficients, RMS {rms:.2f} standard deviations"
    low, high = middle - 2 * _DEVIATION, middle + 2 * _DEVIATION
    return (
        f"<figure><figcaption>{label} <span>{caption}</span></figcaption>"
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" preserveAspectRatio="none" '
        f'aria-label="{label}: {caption}">'
        f'<path d="M0 {low}H{_WIDE}M0 {high}H{_WIDE}" class="sigma"/>'
        f'<path d="M0 {middle}H{_WIDE}" class="zero"/>{"".join(bars)}</svg></figure>'
    )
