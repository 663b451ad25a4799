"""Florence MICC (Bagdanov et al. 2011: 53 subjects, two frontal scans each) in three incompatible protocols.

A figure without its protocol's name means nothing here; columns of different protocols are never comparable.

- `micc-deng`: scan cropped to 95 mm around the nose tip, ICP with a scale per mesh, RMSE per mesh,
  averaged (Deng et al. 2019, as its first author describes it; there is no public code).
- `micc-genova`: one scale for all meshes, rigid ICP, mean over the region both surfaces cover (Genova et al.
  2018; the evaluator was never published).
- `micc-ganfit`: similarity ICP on vertices, mean of both directions within 95 mm of landmark 30 (60 mm for
  subject 28), the better of the two scans (Gecer et al. 2019, public code; its scans are registered to a
  template first, ours are taken as they are).

Where the descriptions leave room: distances are to the closest point of the surface, from the scan's
vertices; the start is the seven NoW landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from facefit.benchmarks import icp
from facefit.benchmarks.estimate import as_prediction, estimate, model_label, model_named, write_prediction
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths, procrustes
from facefit.benchmarks.micc_data import NOSE_TIP, LabelledScan, MiccData
from facefit.benchmarks.now import Prediction
from facefit.benchmarks.now_check import rim_vertices
from facefit.benchmarks.report import Report, curves_of
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import mean_interval
from facefit.errors import UnreadableInput

Protocol = Literal["micc-deng", "micc-genova", "micc-ganfit"]
PROTOCOLS: tuple[Protocol, ...] = ("micc-deng", "micc-genova", "micc-ganfit")
SETTINGS = ("Cooperative", "Indoor", "Outdoor")

CROP_MM = 95.0
GANFIT_RADIUS_MM = {"subject_28": 60.0}
GANFIT_STANDSTILL_MM = 0.001


def micc_error(
    protocol: Protocol, prediction: Prediction, scan: LabelledScan, *, subject: str = "", scale: float = 1.0
) -> float:
    """One prediction (with its expression or not, as its method hands it in) against one scan, mm.

    `scale` is the global scale of micc-genova; the others fit their own.
    """
    start = procrustes(prediction.landmarks, scan.seven, scale=protocol != "micc-genova")
    if protocol == "micc-genova":
        scaled = SurfaceMesh(prediction.mesh.vertices * scale, prediction.mesh.triangles)
        prediction = Prediction(scaled, prediction.landmarks * scale)
        start = procrustes(prediction.landmarks, scan.seven, scale=False)
    placed = SurfaceMesh(start.apply(prediction.mesh.vertices), prediction.mesh.triangles)
    if protocol == "micc-ganfit":
        return _both_directions(placed, scan, GANFIT_RADIUS_MM.get(subject, CROP_MM))
    surface, points = Surface(placed, threads=1), scan.crop(CROP_MM)
    motion = icp.isotropic(placed, points) if protocol == "micc-deng" else icp.rigid(placed, points)
    closest, _ = surface.closest(motion.inverse.apply(points))
    distances = lengths(motion.apply(closest) - points)
    if protocol == "micc-deng":
        return float(np.sqrt((distances**2).mean()))
    return float(distances[_covered(placed, surface, motion, points)].mean())


def _covered(
    placed: SurfaceMesh, surface: Surface, motion: Similarity, points: Points
) -> Float[np.ndarray, "points"]:
    """Scan points whose closest point does not lie on the rim of the prediction: the region both cover."""
    rim = rim_vertices(placed.triangles, len(placed.vertices))
    closest, triangle = surface.closest(motion.inverse.apply(points))
    if not rim.any():
        return np.ones(len(points), bool)
    from scipy.spatial import cKDTree

    gap, _ = cKDTree(placed.vertices[rim]).query(closest)
    edge = float(np.median(lengths(surface.corners[:, 1] - surface.corners[:, 0])))
    return np.asarray(gap > edge)


def _both_directions(placed: SurfaceMesh, scan: LabelledScan, radius: float) -> float:
    """Similarity ICP of the prediction's vertices onto the scan; mean of the two directions' means."""
    target = Surface(scan.mesh, threads=1)
    moved, before = placed.vertices, np.inf
    while True:
        near = lengths(moved - scan.landmarks[NOSE_TIP]) <= radius
        closest, _ = target.closest(moved[near])
        error = float(lengths(closest - moved[near]).mean())
        if before - error <= GANFIT_STANDSTILL_MM:
            break
        before = error
        moved = icp.paired(moved[near], closest).apply(moved)
    back = Surface(SurfaceMesh(moved, placed.triangles), threads=1).distance(scan.crop(radius))
    return (error + float(back.mean())) / 2


@dataclass(frozen=True)
class MiccPredictWork:
    """One subject in one setting: the mean of the neutral shapes of its frames."""

    data: MiccData
    predictions: Path
    model: str
    method: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        subject, setting = key.split("/")
        predict_subject(self.data, subject, setting, self.model, self.method, self.predictions / key)
        return {}, {}


@dataclass(frozen=True)
class MiccWork:
    """One prediction in all protocols against the subject's scans."""

    data: MiccData
    predictions: Path
    scale: float

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        subject, setting = key.split("/")
        prediction, scans = Prediction.read(self.predictions / key), self.data.scans(subject)
        row: Row = {"subject": subject, "setting": setting}
        for protocol in PROTOCOLS:
            errors = [micc_error(protocol, prediction, s, subject=subject, scale=self.scale) for s in scans]
            row[protocol] = min(errors) if protocol == "micc-ganfit" else float(np.mean(errors))
        return row, {}


def predict_subject(data: MiccData, subject: str, setting: str, model: str, method: str, stem: Path) -> None:
    """The mean of the neutral shapes of all frames; frames without a face are left out."""
    import torch

    frames = data.frames(subject, setting)
    if not frames:
        raise UnreadableInput(f"{data.root / subject / 'Frames' / setting}: no frames were extracted there")
    shapes, reasons = [], []
    for frame in frames:
        try:
            found = estimate(frame, model, method)
        except Exception as error:
            reasons.append(f"{frame.name}: {error}")
            continue
        shapes.append(found.prediction.mesh.vertices)
    if not shapes:
        raise UnreadableInput(f"{subject}/{setting}: no frame could be fitted; {reasons[0]}")
    mean = torch.from_numpy(np.mean(shapes, 0)).float()
    write_prediction(stem, as_prediction(model_named(model), mean))


COLUMNS = {
    "setting": "setting", "subjects": "subjects", "missing": "missing",
    **{p: f"{p} (mm)" for p in PROTOCOLS}, **{f"{p} std": f"± {p}" for p in PROTOCOLS},
}  # fmt: skip


def evaluate_micc(
    data: MiccData,
    out: Path,
    *,
    model: str,
    method: str = "standard",
    predictions: Path | None = None,
    limit: int | None = None,
    jobs: int = 1,
    settings: Sequence[str] = SETTINGS,
) -> Report:
    """All three protocols side by side; predictions are SUBJECT/SETTING.ply (or .obj) with .npy landmarks."""
    folder = predictions or out / "predictions"
    keys = [f"{subject}/{setting}" for subject in data.subjects()[:limit] for setting in settings]
    why: dict[str, str | None] = {}
    if predictions is None:
        facts: Row = {"benchmark": "Florence MICC predict", "model": model_label(model), "method": method}
        predicting = MiccPredictWork(data, folder, model, method)
        predicted = run_items(
            Run(out / "predicted", facts), keys, predicting, jobs=jobs, label="MICC, predict"
        )
        why = {row["item"]: row["error"] for row in predicted}
    scale = global_scale(data, folder, keys)
    facts = {
        "benchmark": "Florence MICC",
        "predictions": predictions.name if predictions else f"{model_label(model)}, {method}",
        "micc-genova scale": scale,
    }
    rows = run_items(Run(out, facts), keys, MiccWork(data, folder, scale), jobs=jobs, label="MICC, measure")
    for row in rows:
        row["error"] = (row["error"] and why.get(row["item"])) or row["error"]
    table = []
    for setting in settings:
        group = [row for row in rows if row["item"].endswith("/" + setting)]
        good = [row for row in group if row["error"] is None]
        line: Row = {"setting": setting, "subjects": len(good), "missing": len(group) - len(good)}
        for protocol in PROTOCOLS:
            values = [row[protocol] for row in good]
            line[protocol] = float(np.mean(values)) if values else None
            line[f"{protocol} std"] = float(np.std(values)) if values else None
            line[f"{protocol} interval"] = mean_interval({row["subject"]: [row[protocol]] for row in good})
        table.append(line)
    headline = "Florence MICC, mm; the column's name is the protocol's."
    axes = ("Error of a mesh [mm]", "Percentage of meshes")
    report = Report(headline, facts, rows, table, COLUMNS, curves_of(rows, PROTOCOLS), axes=axes)
    report.write(out)
    return report


def global_scale(data: MiccData, predictions: Path, keys: Sequence[str]) -> float:
    """micc-genova's single scale: the median over all meshes of the scale seven landmarks want."""
    scales = []
    for key in keys:
        try:
            prediction, scan = Prediction.read(predictions / key), data.scans(key.split("/")[0])[0]
        except UnreadableInput:
            continue
        scales.append(procrustes(prediction.landmarks, scan.seven).scale)
    return float(np.median(scales)) if scales else 1.0
