"""Path-traced heads with exact ground truth, in NoW's layout with a manifest of cameras and landmarks.

For every image: NoW error (non-metrical and metrical), landmark error, error of pose and focal length,
seconds; per kind of image and pooled, the mean face beside it. Model heads, smooth: not comparable with
published NoW figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from facefit.benchmarks.agreement import face_agreement
from facefit.benchmarks.estimate import (
    FaceEstimate,
    estimate,
    estimate_together,
    mean_face,
    model_facts,
    model_label,
    write_prediction,
)
from facefit.benchmarks.heads_truth import (
    camera_errors,
    correspondences,
    landmark_errors,
    manifest,
    true_landmarks,
)
from facefit.benchmarks.meshfiles import read_mesh
from facefit.benchmarks.model_space import SpaceWork
from facefit.benchmarks.now import VARIANTS, Dataset, Image, Measurement, Scan, measure
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import median_interval, pooled
from facefit.benchmarks.trust import trust, verdict_agreement
from facefit.errors import FacefitError

KINDS = {
    "multiview_neutral": "frontal",
    "selfie": "selfie",
    "multiview_expressions": "expression",
    "multiview_occlusions": "occlusion",
}


@dataclass(frozen=True)
class HeadsWork:
    """Predict and measure one image; an instance is what worker processes receive."""

    data: Path
    model: str
    method: str
    out: Path
    landmarks: str = "detected"
    together: bool = False

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        dataset = Dataset(self.data)
        image = next(i for i in dataset.images() if i.key == key)
        truth = manifest(self.data).get(key, {})
        given: np.ndarray | str | None = "facefit" if self.landmarks == "facefit" else None
        if self.landmarks == "truth":
            given = true_landmarks(truth, _scan(dataset, image.subject))
        if self.together:
            fits = fitted_together(self.data, self.model, self.method, image.subject)
            if key not in fits:
                raise FacefitError(f"{key}: left out of the fit of its head's images")
            found = fits[key]
        else:
            found = estimate(dataset.photograph(image), self.model, self.method, landmarks=given)
        write_prediction(self.out / "predictions" / key, found.prediction)
        row, arrays = measure_head(found, dataset, image, truth)
        return {**row, "fit_seconds": found.seconds, "status": found.status}, arrays


@lru_cache(maxsize=1)
def fitted_together(data: Path, model: str, method: str, subject: str) -> Mapping[str, FaceEstimate]:
    """Image key -> its estimate, all images of a subject fitted as one person; `seconds` is a photograph's share."""
    dataset = Dataset(data)
    images = [image for image in dataset.images() if image.subject == subject]
    return estimate_together({i.key: dataset.photograph(i) for i in images}, model, method)


def measure_head(
    found: FaceEstimate, dataset: Dataset, image: Image, truth: Mapping[str, Any]
) -> tuple[Row, Arrays]:
    scan = _scan(dataset, image.subject)
    row: Row = {"subject": image.subject, "challenge": image.challenge, "kind": KINDS.get(image.challenge)}
    arrays: Arrays = {}
    measured: dict[str, Measurement] = {}
    for variant in VARIANTS:
        measured[variant] = measure(found.prediction, scan, variant, threads=1)
        row |= {
            f"{variant} {k}": v for k, v in pooled([measured[variant].distances]).items() if k != "images"
        }
        arrays[variant] = measured[variant].distances.astype(np.float32)
    row["scale"] = measured["non-metrical"].transform.scale
    if truth and found.camera_from_model is not None:
        row |= face_agreement(found.result)
        row |= trust(found.result, measured["non-metrical"].transform, scan)
        row |= landmark_errors(found, true_landmarks(truth, scan))
        row |= camera_errors(found, measured["metrical"].transform, truth)
    return row, arrays


@lru_cache(maxsize=2)
def _scan(dataset: Dataset, subject: str) -> Scan:
    return dataset.scan(subject)


CORRESPONDENCE = ("true mm", "best surface mm")
MEDIANS = (
    "landmarks68 %", "landmarks51 %", "jaw17 %", "pose deg", "PSNR dB", "SSIM", "surface inside 90 %",
    "fit_seconds", *CORRESPONDENCE
)  # fmt: skip
COLUMNS = {
    "method": "method", "kind": "images of", "images": "n", "failed": "failed", "median": "median",
    "interval": "95 % of median", "mean": "mean", "std": "std", "metrical median": "metrical median",
    "true mm": "true mm", "best surface mm": "to best surface",
    "landmarks51 %": "landmarks %", "jaw17 %": "jaw %", "pose deg": "pose °", "focal %": "focal %",
    "PSNR dB": "PSNR", "SSIM": "SSIM", "surface inside 90 %": "in 90 % interval",
    "fit_seconds": "s",
}  # fmt: skip


def evaluate_heads(
    data: Path,
    out: Path,
    *,
    model: str,
    method: str = "standard",
    landmarks: str = "detected",
    limit: int | None = None,
    jobs: int = 1,
    only: str | None = None,
    together: bool = False,
) -> Report:
    """Run, and write OUT/predictions, report.json, rows.csv, report.md and cumulative.png.

    `together`: the images of a head are fitted as photographs of one person.
    """
    if together and (landmarks != "detected" or method == "mean"):
        raise FacefitError(
            "images fitted together are fitted to detected landmarks, and not by the mean face"
        )
    if landmarks not in ("detected", "facefit", "truth"):
        raise FacefitError(f"landmarks are 'detected' (by dlib), 'facefit' or 'truth', not {landmarks!r}")
    images = chosen(Dataset(data), only)[:limit]
    settings = {
        "benchmark": "heads",
        "data": data.name,
        **model_facts(model),
        "method": method,
        "landmarks": landmarks,
        **({"together": True} if together else {}),
    }
    run = Run(out, settings)
    scans = Run(out, {"data": data.name, **model_facts(model)}, ("models", "benchmarks"))
    subjects = subject_arrays(scans, SpaceWork(data, model), images, jobs)
    work = HeadsWork(data, model, method, out, landmarks, together)
    rows = run_items(run, [i.key for i in images], work, jobs=jobs, label=f"heads, {method}")
    for row, image in zip(rows, images, strict=True):
        row |= {"subject": image.subject, "kind": KINDS.get(image.challenge, image.challenge)}
    good = [row for row in rows if row["error"] is None]
    distances = {row["item"]: run.arrays(row["item"]) for row in good}
    for row in good:
        mesh = read_mesh(out / "predictions" / f"{row['item']}.ply")
        row |= correspondences(mesh.vertices, subjects[row["item"]])
    mean_name = f"{model_label(model)} mean face"
    mean = mean_face(model).prediction.mesh.vertices
    mean_rows = [
        {"item": key, "subject": key.split("/")[0], "kind": KINDS.get(key.split("/")[1]), "error": None}
        | correspondences(mean, arrays)
        for key, arrays in subjects.items()
    ]
    table = [
        *summaries(mean_name, mean_rows, subjects),
        *(summaries(method, rows, distances) if method != "mean" else []),
    ]
    curves = {
        name: [arrays["non-metrical"] for arrays in of.values()]
        for name, of in ((mean_name, subjects), (method, distances))
    }
    filled = [distances.get(key, arrays)["non-metrical"] for key, arrays in subjects.items()]
    extra = {
        "with the mean face where the fit failed": pooled(filled),
        "Spearman of the verdict's expected error": {
            name: verdict_agreement(rows, name) for name in ("non-metrical median", "surface RMS mm")
        },
    }
    headline = "Path-traced heads, NoW protocol, mm, vertices pooled."
    report = Report(headline, settings, rows, table, COLUMNS, curves, extra)
    report.write(out)
    return report


def chosen(dataset: Dataset, only: str | None) -> list[Image]:
    """The data set's images, or those whose key holds `only`."""
    images = dataset.images()
    found = [image for image in images if only is None or only in image.key]
    if not found:
        raise FacefitError(
            f"no image's SUBJECT/CHALLENGE/NAME contains {only!r}; the first is {images[0].key}"
        )
    return found


def subject_arrays(run: Run, work: SpaceWork, images: Sequence[Image], jobs: int) -> dict[str, Arrays]:
    """Image key -> what is the same for all images of a subject: the mean face's distances, the model's best
    surface on the scan. Images of subjects whose scan cannot be read are left out."""
    keys = {image.subject: f"subjects/{image.subject}" for image in images}
    rows = run_items(run, list(keys.values()), work, jobs=jobs, label="scans")
    good = {row["item"]: run.arrays(row["item"]) for row in rows if row["error"] is None}
    return {i.key: good[keys[i.subject]] for i in images if keys[i.subject] in good}


def summaries(method: str, rows: Sequence[Row], distances: Mapping[str, Arrays]) -> list[Row]:
    """One line for all images and one per kind of image."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    groups = [("all", rows), *((kind, [r for r in rows if r["kind"] == kind]) for kind in kinds)]
    return [summary(method, kind, group, distances) for kind, group in groups]


def summary(method: str, kind: str, rows: Sequence[Row], distances: Mapping[str, Arrays]) -> Row:
    good = [row for row in rows if row["error"] is None]
    subjects: dict[str, list[np.ndarray]] = {}
    for row in good:
        subjects.setdefault(row["subject"], []).append(distances[row["item"]]["non-metrical"])
    line: Row = {"method": method, "kind": kind, "failed": len(rows) - len(good)}
    line |= pooled([distances[row["item"]]["non-metrical"] for row in good])
    line["interval"] = median_interval(subjects)
    metrical = pooled([distances[row["item"]]["metrical"] for row in good])
    line |= {f"metrical {k}": metrical[k] for k in ("median", "mean", "std")}
    for name in MEDIANS:
        values = [row[name] for row in good if row.get(name) is not None]
        line[name] = float(np.median(values)) if values else None
    for name in ("focal %", "distance %", "yaw deg", "pitch deg", "roll deg"):
        values = [abs(row[name]) for row in good if row.get(name) is not None]
        line[name] = float(np.median(values)) if values else None
    return line


def main() -> None:
    from facefit.benchmarks.cli import heads

    heads()


if __name__ == "__main__":
    main()
