"""`--ablate`: the path-traced heads fitted again and again, each time with one term, unknown or stage taken
away.

Differences are paired: the same images, the same subjects resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facefit.benchmarks.estimate import model_facts
from facefit.benchmarks.heads import CORRESPONDENCE, KINDS, HeadsWork, chosen, subject_arrays
from facefit.benchmarks.heads_truth import correspondences
from facefit.benchmarks.meshfiles import read_mesh
from facefit.benchmarks.model_space import SpaceWork
from facefit.benchmarks.now import Dataset
from facefit.benchmarks.recipes import WITHOUT, recipe, variants
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import mean_interval, pooled

COLUMNS = {
    "variant": "variant", "images": "n", "failed": "failed", "median": "median mm",
    "change": "change of median", "gain": "what it buys, mm", "interval": "95 %", "true mm": "true mm",
    "PSNR dB": "PSNR dB", "SSIM": "SSIM", "ms": "ms", "ms more": "its ms",
}  # fmt: skip


def evaluate_ablation(
    data: Path,
    out: Path,
    *,
    model: str,
    method: str = "standard",
    landmarks: str = "detected",
    limit: int | None = None,
    jobs: int = 1,
    only: str | None = None,
) -> Report:
    """Run the full recipe and every variant; "what it buys" is the rise of the error without it."""
    images = chosen(Dataset(data), only)[:limit]
    scans = Run(out, {"data": data.name, **model_facts(model)}, ("models", "benchmarks"))
    subjects = subject_arrays(scans, SpaceWork(data, model), images, jobs)
    names = [method, *(f"{method}{WITHOUT}{name}" for name in variants(recipe(method)))]
    settings = {"benchmark": "ablation", "data": data.name, **model_facts(model), "method": method}
    run = Run(out, settings | {"landmarks": landmarks})
    keys = {f"{slug(name)}/{image.key}": (name, image) for name in names for image in images}
    work = AblationWork(data, model, {slug(name): name for name in names}, out, landmarks)
    rows = run_items(run, list(keys), work, jobs=jobs, label="ablation")
    for row in rows:
        name, image = keys[row["item"]]
        row |= {
            "subject": image.subject,
            "kind": KINDS.get(image.challenge),
            "variant": name,
            "image": image.key,
        }
        if row["error"] is None:
            mesh = read_mesh(out / slug(name) / "predictions" / f"{image.key}.ply")
            row |= correspondences(mesh.vertices, subjects[image.key])
    full = {row["image"]: row for row in rows if row["error"] is None and row["variant"] == method}
    table = [line(run, name, [row for row in rows if row["variant"] == name], full) for name in names]
    for entry in table[1:]:
        entry["change"] = _minus(entry["median"], table[0]["median"])
        entry["ms more"] = _minus(table[0]["ms"], entry["ms"])
    curves = {
        name: [
            run.arrays(r["item"])["non-metrical"] for r in rows if r["variant"] == name and r["error"] is None
        ]
        for name in names
    }
    report = Report(f"Ablation of {method}, NoW protocol, mm.", settings, rows, table, COLUMNS, curves)
    report.write(out)
    return report


def slug(name: str) -> str:
    return name.replace(" ", "_")


@dataclass(frozen=True)
class AblationWork:
    """Item keys are VARIANT/SUBJECT/CHALLENGE/NAME."""

    data: Path
    model: str
    names: Mapping[str, str]
    out: Path
    landmarks: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        variant, _, image = key.partition("/")
        heads = HeadsWork(self.data, self.model, self.names[variant], self.out / variant, self.landmarks)
        return heads(image)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def line(run: Run, name: str, rows: Sequence[Row], full: Mapping[str, Row]) -> Row:
    good = [row for row in rows if row["error"] is None]
    found: Row = {"variant": name, "failed": len(rows) - len(good)}
    found |= pooled([run.arrays(row["item"])["non-metrical"] for row in good])
    for title in (*CORRESPONDENCE, "PSNR dB", "SSIM"):
        values = [row[title] for row in good if row.get(title) is not None]
        found[title] = float(np.median(values)) if values else None
    found["ms"] = 1000 * float(np.median([row["fit_seconds"] for row in good])) if good else None
    paired: dict[str, list[float]] = {}
    for row in good:
        if row["image"] in full and WITHOUT in name:
            gap = row["non-metrical median"] - full[row["image"]]["non-metrical median"]
            paired.setdefault(row["subject"], []).append(gap)
    if paired:
        found["gain"] = float(np.mean([np.mean(gaps) for gaps in paired.values()]))
        found["interval"] = mean_interval(paired)
    return found
