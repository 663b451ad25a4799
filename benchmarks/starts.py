"""`facefit bench init`: what a start is worth, before the fit and after it.

Two starts on the same pictures: the landmark start (the mean face, posed in closed form) and the network's guess.
Before the fit: distance of the projected face from the truth in per cent of the outer-eye distance (the 51 inner
landmarks; where pictures are drawn with the model, all vertices of the face too), and the shape error of the neutral
face. After it: the same again, steps and seconds. With `--data` the path-traced heads, else pictures drawn here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.estimate import as_prediction, mean_face, model_facts, model_label, model_named
from facefit.benchmarks.heads_truth import manifest, true_landmarks
from facefit.benchmarks.metrics import outer_eye_distance
from facefit.benchmarks.now import Dataset, Scan, measure
from facefit.benchmarks.pictures import draw_scene, photograph
from facefit.benchmarks.recipes import recipe
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.errors import FacefitError

STARTS = ("landmarks", "network")
YAWS = (("yaw 0-20", 0.0, 20.0), ("yaw 20-40", 20.0, 40.0), ("yaw over 40", 40.0, 180.0))
# Root of the sum of squares of the true expression's coefficients, in standard deviations.
EXPRESSIONS = (("neutral", 0.0, 0.1), ("some expression", 0.1, 2.5), ("strong expression", 2.5, np.inf))
Pixels = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Truth:
    """A picture's file, where points of the face are in it, and the neutral scan."""

    path: Path
    scan: Scan
    eyes_px: float
    landmarks: Pixels
    vertices: Pixels | None
    facts: Row


@dataclass(frozen=True)
class StartWork:
    """One picture from both starts; an instance is what worker processes receive."""

    data: Path | None
    model: str
    method: str
    out: Path

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        import facefit as ff

        model = model_named(self.model)
        truth = self.drawn(key) if self.data is None else self.head(key)
        row: Row = dict(truth.facts)
        mean = measure(mean_face(self.model).prediction, truth.scan, threads=1)
        row["mean face mm"] = float(np.median(mean.distances))
        try:
            photo = ff.Observation.from_file(truth.path)
        except FacefitError as error:
            return row | {"error": str(error), "error_type": type(error).__name__}, {}
        from facefit.fitting.linear import landmark_start

        for name, start in (
            ("landmarks", landmark_start(photo, model)),
            ("network", ff.initialize(photo, model)),
        ):
            row |= {f"{name} start {k}": v for k, v in self.figures(start, model, truth).items()}
            began = time.process_time()
            result = ff.fit(photo, model, start, recipe(self.method))
            row[f"{name} fit seconds"] = time.process_time() - began
            row |= {f"{name} fit {k}": v for k, v in self.figures(result.scene, model, truth).items()}
            row[f"{name} fit steps"] = sum(stage.steps for stage in result.stages)
            row[f"{name} fit failed"] = float(not result.status.ok)
        return row, {}

    def drawn(self, key: str) -> Truth:
        rng = np.random.default_rng(int(key))
        model = model_named(self.model)
        picture = photograph(draw_scene(model, rng), model, rng)
        path = self.out / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.jpeg)
        scene = picture.scene
        neutral = as_prediction(model, scene.neutral_shape(model))
        landmarks, vertices = projected(scene, model)
        facts = {"yaw": abs(scene.pose.yaw_pitch_roll_deg()[0]), "expression": float(scene.expression.norm())}
        eyes = float(np.linalg.norm(landmarks[36] - landmarks[45]))
        return Truth(path, Scan(neutral.mesh, neutral.landmarks), eyes, landmarks, vertices, facts)

    def head(self, key: str) -> Truth:
        assert self.data is not None
        dataset = Dataset(self.data)
        image = next(i for i in dataset.images() if i.key == key)
        scan = dataset.scan(image.subject)
        record = manifest(self.data).get(key, {})
        landmarks = true_landmarks(record, scan) if record else np.full((68, 2), np.nan)
        facts = {"yaw": abs(float(record.get("yaw_deg") or 0.0)), "subject": image.subject}
        return Truth(dataset.photograph(image), scan, outer_eye_distance(landmarks), landmarks, None, facts)

    def figures(self, scene: Any, model: Any, truth: Truth) -> Row:
        landmarks, vertices = projected(scene, model)
        shape = measure(as_prediction(model, scene.neutral_shape(model)), truth.scan, threads=1)
        row: Row = {
            "mm": float(np.median(shape.distances)),
            "landmarks %": apart(landmarks, truth.landmarks, truth.eyes_px, 17),
        }
        if truth.vertices is not None:
            row["vertices %"] = apart(vertices, truth.vertices, truth.eyes_px)
        return row


def projected(scene: Any, model: Any) -> tuple[Pixels, Pixels]:
    """Pixels of the 68 landmarks and of the face's vertices, expression included."""
    shape = scene.shape(model)
    face = np.asarray(model.topology.region("face"), np.int64)

    def pixels(points: Any) -> Pixels:
        return np.asarray(scene.camera.project(scene.pose.apply(points)).detach().double().numpy())

    return pixels(model.landmark_points(shape)), pixels(shape[face])


def apart(mine: Pixels, truth: Pixels, eyes_px: float, first: int = 0) -> float | None:
    """Mean distance from point number `first` on, in per cent of the outer-eye distance."""
    distance = np.linalg.norm(mine - truth, axis=1)[first:]
    known = distance[np.isfinite(distance)]
    return 100 * float(known.mean()) / eyes_px if len(known) else None


FIGURES = (
    "start landmarks %",
    "start vertices %",
    "start mm",
    "fit mm",
    "fit landmarks %",
    "fit steps",
    "fit seconds",
)
COLUMNS = {"group": "pictures", "images": "n", "undetected": "no face", "mean face mm": "mean face mm"} | {
    f"{start} {figure}": f"{start}: {figure}" for figure in (*FIGURES, "fit failed") for start in STARTS
}


def evaluate_starts(
    out: Path, *, model: str, data: Path | None, method: str, count: int, jobs: int
) -> Report:
    settings = {
        "benchmark": "init",
        "data": "synthetic" if data is None else data.name,
        **model_facts(model),
        "method": method,
    }
    keys = (
        [f"{seed:05d}" for seed in range(count)]
        if data is None
        else [i.key for i in Dataset(data).images()][:count]
    )
    rows = run_items(Run(out, settings), keys, StartWork(data, model, method, out), jobs=jobs, label="starts")
    table = [line(name, group) for name, group in groups(rows).items() if group]
    of = "pictures drawn with the model" if data is None else "path-traced heads"
    headline = f"Two starts of a fit with {model_label(model)} on {of}: medians; % of the outer-eye distance."
    report = Report(headline, settings, rows, table, COLUMNS, {})
    report.write(out)
    return report


def groups(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found = {"all": list(rows)}
    for key, bins in (("yaw", YAWS), ("expression", EXPRESSIONS)):
        for name, low, high in bins:
            found[name] = [row for row in rows if key in row and low <= row[key] < high]
    return found


def line(name: str, rows: Sequence[Row]) -> Row:
    good = [row for row in rows if row["error"] is None]
    found: Row = {"group": name, "images": len(good), "undetected": len(rows) - len(good)}
    for column in COLUMNS:
        values = [row[column] for row in good if row.get(column) is not None]
        if values and column not in found:
            found[column] = float(np.mean(values) if column.endswith("failed") else np.median(values))
    return found
