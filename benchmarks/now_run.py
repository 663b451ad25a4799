"""`facefit bench now`: predict over the image list, evaluate a folder of predictions, name mistakes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.estimate import estimate, mean_face, model_facts, model_label, write_prediction
from facefit.benchmarks.now import CHALLENGES, VARIANTS, Dataset, Image, Prediction, Scan, Variant, measure
from facefit.benchmarks.now_check import expression_left_in, traps
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import median_interval, pooled
from facefit.errors import FacefitError, NoFaceFound

# Around the data set's box: the scale its authors' own methods crop with.
BOX_SCALE = 1.6


@dataclass(frozen=True)
class PredictWork:
    """One photograph to PREDICTIONS/SUBJECT/CHALLENGE/NAME.ply and .npy: the neutral face, whole mesh, mm."""

    dataset: Dataset
    model: str
    method: str
    predictions: Path

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        image = image_named(self.dataset, key)
        path = self.dataset.photograph(image)
        landmarks = None
        if self.method != "mean" and (box := self.dataset.box(image)) is not None:
            landmarks = landmarks_in_box(path, box)
        found = estimate(path, self.model, self.method, landmarks=landmarks)
        write_prediction(self.predictions / key, found.prediction)
        return {"fit_seconds": found.seconds, "status": found.status}, {}


@dataclass(frozen=True)
class EvaluateWork:
    """One prediction against its subject's scan, in both variants, and what looks like a mistake."""

    dataset: Dataset
    predictions: Path
    unit: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        image = image_named(self.dataset, key)
        prediction = Prediction.read(self.predictions / key)
        scan = subject_scan(self.dataset, image.subject)
        row: Row = {}
        arrays: Arrays = {}
        for variant in VARIANTS:
            measured = measure(prediction, scan, variant, unit=self.unit, threads=1)
            figures = pooled([measured.distances])
            row |= {f"{variant} {name}": figures[name] for name in ("median", "mean", "std")}
            row[f"{variant} sum of squares"] = measured.sum_of_squares[-1:]
            arrays[variant] = measured.distances.astype(np.float32)
            if variant == "non-metrical":
                row["traps"] = traps(prediction, scan, measured, self.unit)
        return row, arrays


@dataclass(frozen=True)
class MeanFaceWork:
    """The model's mean face against one subject's scan."""

    dataset: Dataset
    model: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        scan, face = self.dataset.scan(key.rsplit("/", 1)[-1]), mean_face(self.model).prediction
        return {}, {v: measure(face, scan, v, threads=1).distances.astype(np.float32) for v in VARIANTS}


def image_named(dataset: Dataset, key: str) -> Image:
    return _by_key(dataset)[key]


@lru_cache(maxsize=2)
def _by_key(dataset: Dataset) -> Mapping[str, Image]:
    return {image.key: image for image in dataset.images()}


@lru_cache(maxsize=2)
def subject_scan(dataset: Dataset, subject: str) -> Scan:
    return dataset.scan(subject)


def landmarks_in_box(path: Path, box: tuple[float, float, float, float]) -> Float[np.ndarray, "68 2"] | None:
    """Landmarks of the face in the data set's box; None leaves it to detection on the whole photograph."""
    from facefit.detection import DlibDetector
    from facefit.observation import read_photograph

    pixels = read_photograph(path).pixels
    left, top, right, bottom = box
    half = BOX_SCALE * max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    columns = max(0, int(x - half)), min(pixels.shape[1], int(x + half) + 1)
    rows = max(0, int(y - half)), min(pixels.shape[0], int(y + half) + 1)
    crop = pixels[rows[0] : rows[1], columns[0] : columns[1]]
    if min(crop.shape[:2]) < 16:
        return None
    try:
        face = DlibDetector().detect(np.ascontiguousarray(crop))[0]
    except NoFaceFound:
        return None
    return np.asarray(face.landmarks + [columns[0], rows[0]])


def predict(
    dataset: Dataset, out: Path, *, model: str, method: str, limit: int | None = None, jobs: int = 1
) -> list[Row]:
    """Predictions for the image list into OUT/predictions; rows of what failed carry the reason."""
    keys = [image.key for image in dataset.images()][:limit]
    settings = {"benchmark": "now predict", "data": dataset.root.name, "method": method} | model_facts(model)
    work = PredictWork(dataset, model, method, out / "predictions")
    run = Run(out / "predicted", settings)
    return run_items(run, keys, work, jobs=jobs, label=f"predict, {method}")


COLUMNS = {
    "prediction": "prediction", "variant": "variant", "challenge": "challenge", "images": "images",
    "missing": "missing", "median": "median", "interval": "95 % of median", "mean": "mean", "std": "std",
}  # fmt: skip


def evaluate(
    dataset: Dataset,
    predictions: Path,
    out: Path,
    *,
    name: str,
    unit: str = "mm",
    mean_model: str | None = None,
    predicted: Sequence[Row] = (),
    limit: int | None = None,
    jobs: int = 1,
) -> Report:
    """NoW's figures for a folder of predictions, anybody's; missing ones are left out and counted."""
    images = dataset.images()[:limit]
    settings = {
        "benchmark": f"NoW, {dataset.image_set} set",
        "data": dataset.root.name,
        "predictions": name,
        "unit": unit,
        "mean face": None if mean_model is None else model_label(mean_model),
        "files": predictions_state(predictions, images),
    }
    run = Run(out, settings, ("models", "benchmarks"))
    rows = run_items(
        run,
        [i.key for i in images],
        EvaluateWork(dataset, predictions, unit),
        jobs=jobs,
        label=f"evaluate {name}",
    )
    why = {row["item"]: row for row in predicted}
    for row, image in zip(rows, images, strict=True):
        row |= {"subject": image.subject, "challenge": image.challenge}
        made = why.get(row["item"], {})
        row |= {k: made[k] for k in ("fit_seconds", "status") if k in made}
        if row["error"] and made.get("error"):
            row["error"] = made["error"]
    distances = {row["item"]: run.arrays(row["item"]) for row in rows if row["error"] is None}
    table = figures(name, rows, distances)
    if mean_model is not None:
        table = [
            *figures(
                f"{model_label(mean_model)} mean face", *_mean_face(run, dataset, images, mean_model, jobs)
            ),
            *table,
        ]
    found = expressions(predictions, rows)
    warnings = trap_counts(rows) | ({"expression": found} if found else {})
    report = Report(
        f"NoW, {dataset.image_set} set, mm, vertices pooled over images.",
        settings,
        rows,
        table,
        COLUMNS,
        {f"{name}, {v}": [d[v] for d in distances.values()] for v in VARIANTS},
        {"traps": warnings, "complete": len(distances) == len(rows)},
    )
    report.write(out)
    return report


def predictions_state(predictions: Path, images: Sequence[Image]) -> str:
    """A hash over name, size and time of the prediction files, so that a changed folder is measured anew."""
    import hashlib

    digest = hashlib.sha256()
    for image in images:
        for suffix in (".obj", ".ply", ".npy", ".txt"):
            path = predictions / image.subject / image.challenge / (image.name + suffix)
            if path.exists():
                state = path.stat()
                digest.update(f"{image.key}{suffix} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _mean_face(
    run: Run, dataset: Dataset, images: Sequence[Image], model: str, jobs: int
) -> tuple[list[Row], dict[str, Arrays]]:
    keys = {image.subject: f"mean face/{image.subject}" for image in images}
    done = run_items(run, list(keys.values()), MeanFaceWork(dataset, model), jobs=jobs, label="mean face")
    error = {row["item"]: row["error"] for row in done}
    rows: list[Row] = [
        {"item": i.key, "subject": i.subject, "challenge": i.challenge, "error": error[keys[i.subject]]}
        for i in images
    ]
    return rows, {r["item"]: run.arrays(keys[r["subject"]]) for r in rows if r["error"] is None}


def figures(name: str, rows: Sequence[Row], distances: Mapping[str, Arrays]) -> list[Row]:
    """Per variant: all images together, then one challenge after the other."""
    present = {row["challenge"] for row in rows}
    challenges = [None, *(c for c in CHALLENGES if c in present)]
    return [_figure(name, v, challenge, rows, distances) for v in VARIANTS for challenge in challenges]


def _figure(
    name: str, variant: Variant, challenge: str | None, rows: Sequence[Row], distances: Mapping[str, Arrays]
) -> Row:
    group = [row for row in rows if challenge is None or row["challenge"] == challenge]
    by_subject: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in group:
        if row["error"] is None:
            by_subject[row["subject"]].append(distances[row["item"]][variant])
    together = [d for subject in by_subject.values() for d in subject]
    line: Row = {"prediction": name, "variant": variant, "challenge": challenge or "all"}
    line |= {**pooled(together), "missing": len(group) - len(together)}
    return line | {"interval": median_interval(by_subject)}


def trap_counts(rows: Sequence[Row]) -> Row:
    """Trap -> how many predictions show it, and the sentence of the first."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        for trap, sentence in (row.get("traps") or {}).items():
            found[trap].append((row["item"], sentence))
    return {
        trap: f"{len(where)} predictions, e.g. {where[0][0]}: {where[0][1]}" for trap, where in found.items()
    }


def expressions(predictions: Path, rows: Sequence[Row]) -> str | None:
    """The first subject whose predictions change their mouth with the photograph."""
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["error"] is None:
            by_subject[row["subject"]].append(row)
    for subject, group in by_subject.items():
        calm = [r["item"] for r in group if r["challenge"] == "multiview_neutral"][:4]
        loud = [r["item"] for r in group if r["challenge"] == "multiview_expressions"][:6]
        read = {}
        for key in (*calm, *loud):
            try:
                read[key] = Prediction.read(predictions / key)
            except FacefitError:
                continue
        seen = expression_left_in(read, [k for k in calm if k in read], [k for k in loud if k in read])
        if seen:
            return f"{subject}: {seen}"
    return None
