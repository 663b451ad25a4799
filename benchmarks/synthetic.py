"""`facefit bench synthetic`: pictures with known truth, and everything that can be known about a fit of them.

True-correspondence error (vertex by vertex, where the picture was drawn with the fitted model), NoW error,
landmarks, pose and focal length, recovery of the parameters, agreement with the picture, and whether 90 %
intervals hold 90 %; by yaw, skin tone and occlusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from facefit.benchmarks.agreement import face_agreement
from facefit.benchmarks.estimate import (
    FaceEstimate,
    as_prediction,
    estimate,
    mean_face,
    model_facts,
    model_label,
    model_named,
)
from facefit.benchmarks.metrics import (
    Points,
    angle_between_deg,
    correspondence_error,
    landmark_error,
    procrustes,
)
from facefit.benchmarks.now import Scan, measure
from facefit.benchmarks.pictures import Drawn, draw_scene, photograph
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import median_interval, pooled
from facefit.benchmarks.trust import promise, verdict_agreement
from facefit.errors import FacefitError
from facefit.models.skin import typology_angle_deg

YAWS = (("yaw 0-15", 0.0, 15.0), ("yaw 15-30", 15.0, 30.0), ("yaw 30-60", 30.0, 90.0))
# Individual typology angle: light, medium and dark skin; the borders of Del Bino and Bernerd, British Journal
# of Dermatology 2013, with their six classes taken in pairs.
TONES = (("light skin", 41.0, 181.0), ("medium skin", 10.0, 41.0), ("dark skin", -181.0, 10.0))
# Half the width of a normal distribution's 90 % interval, in standard deviations.
NINETY = 1.6449


@dataclass(frozen=True)
class SyntheticWork:
    """Picture number N (the key): drawn with one model, fitted with another or the same."""

    draw: str
    model: str
    method: str
    out: Path
    landmarks: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        rng = np.random.default_rng(int(key))
        drawn_model = model_named(self.draw)
        drawn = photograph(draw_scene(drawn_model, rng), drawn_model, rng)
        path = self.out / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.jpeg)
        yaw, pitch, _ = drawn.scene.pose.yaw_pitch_roll_deg()
        row: Row = {"occluder": drawn.occluder, "true yaw": yaw, "true pitch": pitch}
        row["tone"] = tone(drawn_model, drawn)
        row["noise"], row["jpeg"] = drawn.noise, drawn.quality
        given: np.ndarray | str | None = "facefit" if self.landmarks == "facefit" else None
        if self.landmarks == "truth":
            given = true_pixels(drawn.scene, drawn_model)
        try:
            found = estimate(path, self.model, self.method, landmarks=given)
        except FacefitError as error:
            # What the picture is stays in the row: which groups fail is a result.
            return row | {"error": str(error), "error_type": type(error).__name__}, {}
        figures, arrays = self.measured(found, drawn, drawn_model)
        return row | figures | {"fit_seconds": found.seconds, "status": found.status}, arrays

    def measured(self, found: FaceEstimate, drawn: Drawn, drawn_model: Any) -> tuple[Row, Arrays]:
        truth = as_prediction(drawn_model, drawn.scene.neutral_shape(drawn_model))
        scan = Scan(truth.mesh, truth.landmarks)
        now = measure(found.prediction, scan, threads=1)
        mean = measure(mean_face(self.model).prediction, scan, threads=1)
        row: Row = {"NoW mm": float(np.median(now.distances))}
        arrays = {"NoW": now.distances.astype(np.float32), "mean NoW": mean.distances.astype(np.float32)}
        if self.draw == self.model:
            inside = scan.crop()
            vertices = truth.mesh.vertices
            error = correspondence_error(found.prediction.mesh.vertices, vertices, inside)
            lazy = correspondence_error(mean_face(self.model).prediction.mesh.vertices, vertices, inside)
            row |= {"true mm": float(np.median(error)), "mean face true mm": float(np.median(lazy))}
            arrays |= {"true": error.astype(np.float32), "mean true": lazy.astype(np.float32)}
            if found.result is not None:
                row |= recovered(found.result, drawn.scene, drawn_model) | interval_share(
                    found.result, vertices, inside
                )
        if found.camera_from_model is not None:
            row |= promise(found.result) | camera_and_landmarks(
                found, drawn, drawn_model, now.transform.rotation
            )
            row |= face_agreement(found.result, drawn.free)
        return row, arrays


def true_pixels(scene: Any, model: Any) -> Float[np.ndarray, "68 2"]:
    pixels = np.full((68, 2), np.nan)
    points = scene.camera.project(scene.pose.apply(model.landmark_points(scene.shape(model))))
    pixels[np.asarray(model.topology.landmarks.numbers)] = points.double().numpy()
    return pixels


def tone(model: Any, drawn: Drawn) -> float:
    """Individual typology angle of the mean skin albedo, degrees; larger is lighter."""
    albedo = model.albedo(drawn.scene.albedo)
    skin = albedo[torch.from_numpy(np.asarray(model.topology.region("face"), np.int64))].mean(0).clamp(0, 1)
    return float(typology_angle_deg(skin.double().numpy()))


def recovered(result: Any, truth: Any, model: Any) -> Row:
    """Correlation of the coefficients with the true ones, and the albedo's error over the skin.

    Coefficients of modes that are not orthogonal may differ while the surfaces agree: read with the
    millimetres.
    """
    row: Row = {}
    for name in ("identity", "expression", "albedo"):
        mine, true = getattr(result.scene, name).double().numpy(), getattr(truth, name).double().numpy()
        n = min(len(mine), len(true))
        if n > 2 and np.ptp(mine[:n]) > 0 and np.ptp(true[:n]) > 0:
            row[f"{name} correlation"] = float(np.corrcoef(mine[:n], true[:n])[0, 1])
    skin = np.asarray(model.topology.region("face"), np.int64)
    gap = (result.model.albedo(result.scene.albedo) - model.albedo(truth.albedo)).double().numpy()[skin]
    return row | {"albedo RMS": float(np.sqrt((gap**2).mean()))}


def interval_share(result: Any, truth: Points, inside: np.ndarray) -> Row:
    """How many of the face's vertices lie in their 90 % interval, where a result has `vertex_sigma_mm`.

    That is the standard deviation along each axis of the model frame, (vertices,) or (vertices, 3); a
    calibrated fit has 90 % of the coordinates within 1.645 of them, once the pose is taken out.
    """
    sigma = getattr(result, "vertex_sigma_mm", None)
    sigma = sigma() if callable(sigma) else sigma
    if sigma is None:
        return {}
    spread = np.asarray(sigma, np.float64)
    spread = np.broadcast_to(spread[:, None] if spread.ndim == 1 else spread, truth.shape)
    mine = result.scene.neutral_shape(result.model).double().numpy()
    fitted = procrustes(mine[inside], truth[inside], scale=False)
    gap = np.abs(fitted.apply(mine[inside]) - truth[inside])
    return {"inside 90 %": 100 * float((gap <= NINETY * spread[inside]).mean())}


def camera_and_landmarks(found: FaceEstimate, drawn: Drawn, model: Any, onto_truth: np.ndarray) -> Row:
    """Landmarks in per cent of the outer-eye distance, pose of the aligned heads, focal length."""
    assert found.camera_from_model is not None
    truth = true_pixels(drawn.scene, model)
    both = [n for n in found.landmarks_px if np.isfinite(truth[n]).all()]
    mine = np.stack([found.landmarks_px[n] for n in both])
    eyes = float(np.linalg.norm(truth[36] - truth[45]))
    carried = found.camera_from_model @ onto_truth.T
    row: Row = {"landmarks %": landmark_error(mine, truth[both], eyes)}
    row["pose deg"] = angle_between_deg(carried, drawn.scene.pose.camera_from_model.double().numpy())
    if found.focal_px is not None:
        row["focal %"] = 100 * (found.focal_px / float(drawn.scene.camera.focal_px) - 1)
    return row


COLUMNS = {
    "group": "pictures", "images": "n", "failed": "failed", "true mm": "true mm",
    "mean face true mm": "mean face", "interval": "95 % of true mm", "NoW mm": "NoW mm",
    "mean face NoW mm": "mean face NoW", "landmarks %": "landmarks %", "pose deg": "pose °",
    "focal %": "focal %", "identity correlation": "identity r", "albedo RMS": "albedo RMS", "PSNR dB": "PSNR",
    "SSIM": "SSIM", "inside 90 %": "in 90 % interval", "fit_seconds": "s",
}  # fmt: skip
MEDIANS = (
    "landmarks %", "pose deg", "identity correlation", "expression correlation", "albedo RMS", "PSNR dB",
    "SSIM", "inside 90 %", "fit_seconds",
)  # fmt: skip


def evaluate_synthetic(
    out: Path,
    *,
    model: str,
    draw: str | None = None,
    method: str = "standard",
    landmarks: str = "detected",
    count: int = 50,
    jobs: int = 1,
) -> Report:
    draw = draw or model
    settings = {
        "benchmark": "synthetic",
        "draw": model_label(draw),
        **model_facts(model),
        "method": method,
        "landmarks": landmarks,
    }
    run = Run(out, settings)
    keys = [f"{seed:05d}" for seed in range(count)]
    work = SyntheticWork(draw, model, method, out, landmarks)
    rows = run_items(run, keys, work, jobs=jobs, label=f"synthetic, {method}")
    arrays = {row["item"]: run.arrays(row["item"]) for row in rows if row["error"] is None}
    table = [group_line(name, group, arrays) for name, group in groups(rows).items()]
    same = (
        "the same model draws and fits (flattering)" if draw == model else f"drawn with {model_label(draw)}"
    )
    curves = {
        title: [parts[name] for parts in arrays.values()]
        for name, title in (("NoW", method), ("mean NoW", "mean face"))
    }
    extra = {"Spearman of the verdict's expected error": {"NoW mm": verdict_agreement(rows, "NoW mm")}}
    report = Report(f"Synthetic pictures, mm; {same}.", settings, rows, table, COLUMNS, curves, extra)
    report.write(out)
    return report


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All pictures; by yaw; by skin tone; with and without an occluder. A failed fit stays in its groups."""
    found = {"all": list(rows)}
    for name, low, high in YAWS:
        found[name] = [row for row in rows if "true yaw" in row and low <= abs(row["true yaw"]) < high]
    for name, low, high in TONES:
        found[name] = [row for row in rows if "tone" in row and low <= row["tone"] < high]
    found["unoccluded"] = [row for row in rows if row.get("occluder") == "none"]
    found["occluded"] = [row for row in rows if row.get("occluder") not in (None, "none")]
    return found


def group_line(name: str, rows: Sequence[Row], arrays: Mapping[str, Arrays]) -> Row:
    good = [row for row in rows if row["error"] is None]
    line: Row = {"group": name, "images": len(good), "failed": len(rows) - len(good)}
    titles = {
        "true": "true mm",
        "mean true": "mean face true mm",
        "NoW": "NoW mm",
        "mean NoW": "mean face NoW mm",
    }
    for array, title in titles.items():
        parts = [arrays[row["item"]][array] for row in good if array in arrays[row["item"]]]
        line[title] = pooled(parts)["median"]
        if array == "true" and parts:
            line["interval"] = median_interval({r["item"]: [arrays[r["item"]]["true"]] for r in good})
    for title in MEDIANS:
        values = [row[title] for row in good if row.get(title) is not None]
        line[title] = float(np.median(values)) if values else None
    focal = [abs(row["focal %"]) for row in good if row.get("focal %") is not None]
    line["focal %"] = float(np.median(focal)) if focal else None
    return line
