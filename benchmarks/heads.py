"""Path-traced heads with exact ground truth, in NoW's layout with a manifest of cameras and landmarks.

For every image: NoW error (non-metrical and metrical), landmark error, error of pose and focal length,
seconds; per kind of image and pooled, the mean face beside it. Model heads, smooth: not comparable with
published NoW figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from facefit.benchmarks.estimate import FaceEstimate, estimate, mean_face
from facefit.benchmarks.meshfiles import write_ply
from facefit.benchmarks.metrics import Similarity, angle_between_deg, landmark_error, outer_eye_distance
from facefit.benchmarks.now import VARIANTS, Dataset, Image, Measurement, measure
from facefit.benchmarks.run import Arrays, Row, Run, provenance, run_items, write_json
from facefit.benchmarks.statistics import markdown, median_interval, plot_cumulative, pooled, write_csv
from facefit.errors import FacefitError, UnreadableInput

KINDS = {
    "multiview_neutral": "frontal",
    "selfie": "selfie",
    "multiview_expressions": "expression",
    "multiview_occlusions": "occlusion",
}


@lru_cache(maxsize=2)
def manifest(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Image key -> the manifest's record of it; empty where a folder has no manifest."""
    path = root / "manifest.json"
    try:
        subjects = json.loads(path.read_text(encoding="utf-8"))["subjects"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableInput(f"{path}: not a manifest of heads ({error})") from error
    return {
        "/".join(image["file"].rsplit(".", 1)[0].split("/")[-3:]): {**image, "topology": s.get("topology")}
        for s in subjects
        for image in s["images"]
    }


@dataclass(frozen=True)
class HeadsWork:
    """Predict and measure one image; an instance is what worker processes receive."""

    data: Path
    model: str
    method: str
    out: Path
    landmarks: str = "detected"

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        dataset = Dataset(self.data)
        image = next(i for i in dataset.images() if i.key == key)
        truth = manifest(self.data).get(key, {})
        given = None
        if self.landmarks == "truth":
            given = np.array(truth["landmarks68_px"], np.float64)
        found = estimate(dataset.photograph(image), self.model, self.method, landmarks=given)
        write_prediction(self.out / "predictions" / key, found)
        row, arrays = measure_head(found, dataset, image, truth)
        return {**row, "fit_seconds": found.seconds, "status": found.status}, arrays


def write_prediction(stem: Path, found: FaceEstimate) -> None:
    """STEM.ply and STEM.npy, the neutral face and its seven landmarks, in the mesh's own frame, mm."""
    write_ply(stem.with_name(stem.name + ".ply"), found.prediction.mesh)
    np.save(stem.with_name(stem.name + ".npy"), found.prediction.landmarks)


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
    return {**row, **camera_errors(found, measured["metrical"].transform, truth)}, arrays


@lru_cache(maxsize=2)
def _scan(dataset: Dataset, subject: str) -> Any:
    return dataset.scan(subject)


def camera_errors(found: FaceEstimate, onto_scan: Similarity, truth: Mapping[str, Any]) -> Row:
    """Landmarks in per cent of the outer-eye distance, pose in degrees, focal and distance in per cent.

    A model's own "upright" is a convention, so poses are compared after bringing the predicted head onto the
    scan: what remains is how far the scan, carried along, is turned from where it was. The truth's jaw points
    are points of the mesh, not of the silhouette.
    """
    if found.camera_from_model is None or found.translation_mm is None or not truth:
        return {}
    pixels = np.array(truth["landmarks68_px"], np.float64)
    row: Row = {}
    groups = {"landmarks68 %": range(68), "landmarks51 %": range(17, 68), "jaw17 %": range(17)}
    for name, numbers in groups.items():
        if all(n in found.landmarks_px for n in numbers):
            mine = np.stack([found.landmarks_px[n] for n in numbers])
            row[name] = landmark_error(mine, pixels[list(numbers)], outer_eye_distance(pixels))
    rotation, translation = np.array(truth["R"]), np.array(truth["t"])
    # scan -> model -> camera, to be compared with scan -> camera.
    carried = onto_scan.inverse.then(Similarity(1.0, found.camera_from_model, found.translation_mm))
    head = np.zeros((1, 3))
    distance, mine_distance = np.linalg.norm(translation), np.linalg.norm(carried.apply(head))
    turn = angles_deg(rotation.T @ carried.rotation)
    row |= {
        "pose deg": angle_between_deg(carried.rotation, rotation),
        **{f"{name} deg": value for name, value in zip(("pitch", "yaw", "roll"), turn, strict=True)},
        "distance %": 100 * (float(mine_distance) / float(distance) - 1),
        "true yaw deg": truth.get("yaw_deg"),
    }
    if found.focal_px is not None:
        row["focal %"] = 100 * (found.focal_px / float(truth["K"][0][0]) - 1)
    return row


def angles_deg(rotation: np.ndarray) -> tuple[float, float, float]:
    """A small rotation about x (pitch), y (yaw), z (roll), R = Rz Ry Rx."""
    return (
        math.degrees(math.atan2(rotation[2, 1], rotation[2, 2])),
        math.degrees(math.asin(max(-1.0, min(1.0, -rotation[2, 0])))),
        math.degrees(math.atan2(rotation[1, 0], rotation[0, 0])),
    )


COLUMNS = {
    "method": "method", "kind": "images of", "images": "n", "failed": "failed", "median": "median",
    "interval": "95 % of median", "mean": "mean", "std": "std", "metrical median": "metrical median",
    "landmarks51 %": "landmarks %", "jaw17 %": "jaw %", "pose deg": "pose °", "focal %": "focal %",
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
) -> Row:
    """Run, and write OUT/predictions, report.json, rows.csv, report.md and cumulative.png."""
    if landmarks not in ("detected", "truth"):
        raise FacefitError(f"landmarks are 'detected' or 'truth', not {landmarks!r}")
    images = [image for image in Dataset(data).images() if only is None or only in image.key][:limit]
    settings = {
        "benchmark": "heads",
        "data": data.name,
        "model": model,
        "method": method,
        "landmarks": landmarks,
    }
    run = Run(out, settings)
    baseline = mean_face_distances(run, MeanFaceWork(data, model), images, jobs)
    work = HeadsWork(data, model, method, out, landmarks)
    rows = run_items(run, [i.key for i in images], work, jobs=jobs, label=f"heads, {method}")
    for row, image in zip(rows, images, strict=True):
        row |= {"subject": image.subject, "kind": KINDS.get(image.challenge, image.challenge)}
    distances = {row["item"]: run.arrays(row["item"]) for row in rows if row["error"] is None}
    table = [
        *summaries(f"{model} mean face", _mean_rows(rows, baseline), baseline),
        *(summaries(method, rows, distances) if method != "mean" else []),
    ]
    failures = [{"item": row["item"], "error": row["error"]} for row in rows if row["error"] is not None]
    report = {
        "settings": settings, "provenance": provenance(), 
        "coverage": f"{len(rows) - len(failures)}/{len(rows)}",
        "failures": failures, "table": table, "rows": rows,
        "with the mean face where the fit failed": pooled(
            [
                distances.get(key, baseline[key])["non-metrical"]
                for key in (row["item"] for row in rows)
                if key in distances or key in baseline
            ]
        ),
    }  # fmt: skip
    write_json(out / "report.json", report)
    write_csv(out / "rows.csv", rows)
    text = f"Coverage {report['coverage']}; mm, NoW protocol, vertices pooled.\n\n" + markdown(table, COLUMNS)
    text += "".join(f"\nfailed: {f['item']}: {f['error']}" for f in failures)
    (out / "report.md").write_text(text, encoding="utf-8")
    curves = {
        f"{model} mean face": [a["non-metrical"] for a in baseline.values()],
        method: [a["non-metrical"] for a in distances.values()],
    }
    plot_cumulative(out / "cumulative.png", curves)
    return report | {"text": text}


def _mean_rows(rows: Sequence[Row], baseline: Mapping[str, Arrays]) -> list[Row]:
    return [
        {k: row[k] for k in ("item", "subject", "kind")}
        | {"error": None if row["item"] in baseline else "no scan"}
        for row in rows
    ]


@dataclass(frozen=True)
class MeanFaceWork:
    """The model's mean face on one subject: the line every method is read against."""

    data: Path
    model: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        scan, face = Dataset(self.data).scan(key.removeprefix("mean face/")), mean_face(self.model).prediction
        return {}, {v: measure(face, scan, v, threads=1).distances.astype(np.float32) for v in VARIANTS}


def mean_face_distances(
    run: Run, work: MeanFaceWork, images: Sequence[Image], jobs: int
) -> dict[str, Arrays]:
    """Image key -> distances of the mean face, measured once per subject; images of broken scans are left out."""
    keys = {image.subject: f"mean face/{image.subject}" for image in images}
    rows = run_items(run, list(keys.values()), work, jobs=jobs, label="mean face")
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
    for name in ("landmarks68 %", "landmarks51 %", "jaw17 %", "pose deg", "fit_seconds"):
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
