"""REALY (Chai et al., ECCV 2022): 100 scans, error by region (nose, mouth, forehead, cheek), mm.

The prediction is brought near by seven keypoints, then rigidly onto each scan region, then the region is
deformed onto the prediction; the error is how far the deformation had to move the scan's vertices, times the
subject's scale. "all" is the mean of the four regions. Re-implemented from the description and not verified
against the official evaluation, whose data need an agreement; a figure is called `realy (re-implemented)`.

Layout: REALY_scan_region/ID_REGION.obj with ID_REGION.txt (keypoints of that region, x y z per line, NaN for
those of other regions), REALY_keypoints/ID.txt (85 keypoints of the whole scan), metrical_scale.txt (ID
scale). Predictions: ID.obj or .ply, and keypoints.txt, 85 lines `vertex vertex vertex weight weight weight`,
one table per topology.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facefit.benchmarks.meshfiles import SurfaceMesh, read_mesh
from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths, procrustes
from facefit.benchmarks.nonrigid_icp import deform
from facefit.benchmarks.now import IBUG_OF_NOW
from facefit.benchmarks.report import Report, curves_of
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import mean_interval
from facefit.errors import UnreadableInput

REGIONS = ("nose", "mouth", "forehead", "cheek")
STIFFNESS = tuple(50.0 * np.exp(-0.5 * k) for k in range(8))
RIGID_STEPS, RIGID_STANDSTILL = 100, 1e-6


@dataclass(frozen=True)
class Region:
    """A part of a scan in the scan's own unit; `keypoints` (85) are NaN where they lie elsewhere."""

    mesh: SurfaceMesh
    keypoints: Float[np.ndarray, "85 3"]


@dataclass(frozen=True)
class KeypointTable:
    """Where the 85 keypoints lie on a topology."""

    vertices: Int[np.ndarray, "85 3"]
    weights: Float[np.ndarray, "85 3"]

    def on(self, vertices: Points) -> Float[np.ndarray, "85 3"]:
        return np.asarray((self.weights[:, :, None] * vertices[self.vertices]).sum(1))

    @staticmethod
    def read(path: Path) -> KeypointTable:
        values = numbers(path, 6)
        if len(values) != 85:
            raise UnreadableInput(f"{path}: {len(values)} keypoints, REALY has 85")
        return KeypointTable(values[:, :3].astype(np.int64), values[:, 3:])


def numbers(path: Path, columns: int) -> Float[np.ndarray, "rows columns"]:
    try:
        return np.loadtxt(path, ndmin=2, dtype=np.float64).reshape(-1, columns)
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"{path}: not a table of {columns} columns ({error})") from error


def region_error(prediction: SurfaceMesh, table: KeypointTable, whole: Points, region: Region) -> float:
    """Mean distance between the region's vertices and where the deformation finds them on the prediction."""
    mine = table.on(prediction.vertices)
    seven = list(IBUG_OF_NOW)
    near = start(mine[seven], whole[seven])
    vertices, keypoints = near.apply(prediction.vertices), near.apply(mine)
    motion = rigid(vertices, prediction.triangles, keypoints, region)
    placed = Surface(SurfaceMesh(motion.apply(vertices), prediction.triangles), threads=1)
    known = np.isfinite(region.keypoints).all(1)
    anchors, targets = None, None
    if known.any():
        from scipy.spatial import cKDTree

        anchors = np.asarray(cKDTree(region.mesh.vertices).query(region.keypoints[known])[1])
        targets = motion.apply(keypoints)[known]
    moved = deform(region.mesh, placed, STIFFNESS, anchors=anchors, anchor_targets=targets)
    found, _ = placed.closest(moved)
    return float(lengths(found - region.mesh.vertices).mean())


def start(predicted: Points, truth: Points) -> Similarity:
    """Rotation by SVD, scale as the ratio of summed absolute coordinates (not Umeyama's)."""
    turned = procrustes(predicted, truth, scale=False)
    a = (predicted - predicted.mean(0)) @ turned.rotation.T
    b = truth - truth.mean(0)
    scale = float(np.abs(b).sum() / np.abs(a).sum())
    return Similarity(scale, turned.rotation, truth.mean(0) - scale * turned.rotation @ predicted.mean(0))


def rigid(
    vertices: Points, triangles: Int[np.ndarray, "t 3"], keypoints: Points, region: Region
) -> Similarity:
    """Prediction to region without a scale: closest points of the region's vertices, and its keypoints
    repeated so that together they weigh as much as the vertices."""
    known = np.isfinite(region.keypoints).all(1)
    surface = Surface(SurfaceMesh(vertices, triangles), threads=1)
    repeat = max(1, len(region.mesh.vertices) // max(1, int(known.sum())))
    motion, before = Similarity(1.0, np.eye(3), np.zeros(3)), np.inf
    for _ in range(RIGID_STEPS):
        rest, _ = surface.closest(motion.inverse.apply(region.mesh.vertices))
        source = np.concatenate([rest, np.repeat(keypoints[known], repeat, 0)])
        target = np.concatenate([region.mesh.vertices, np.repeat(region.keypoints[known], repeat, 0)])
        motion = procrustes(source, target, scale=False)
        error = float((lengths(motion.apply(source) - target) ** 2).mean())
        if abs(before - error) < RIGID_STANDSTILL:
            break
        before = error
    return motion


@dataclass(frozen=True)
class RealyWork:
    data: Path
    predictions: Path

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        mesh = next((p for s in (".obj", ".ply") if (p := self.predictions / (key + s)).exists()), None)
        if mesh is None:
            raise UnreadableInput(f"{self.predictions / key}: no .obj or .ply")
        prediction, table = read_mesh(mesh), KeypointTable.read(self.predictions / "keypoints.txt")
        whole = numbers(self.data / "REALY_keypoints" / f"{key}.txt", 3)
        row, scale = Row(), metrical_scale(self.data)[key]
        for name in REGIONS:
            stem = self.data / "REALY_scan_region" / f"{key}_{name}"
            part = Region(read_mesh(stem.with_suffix(".obj")), numbers(stem.with_suffix(".txt"), 3))
            row[name] = region_error(prediction, table, whole, part) * scale
        return row | {"all": float(np.mean([row[name] for name in REGIONS]))}, {}


def metrical_scale(data: Path) -> dict[str, float]:
    """Subject -> millimetres per unit of its scan."""
    path = data / "metrical_scale.txt"
    try:
        pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {name: float(scale) for name, scale in pairs}
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"{path}: lines `ID scale` are expected ({error})") from error


COLUMNS = {
    "region": "region", "scans": "scans", "missing": "missing", "mean": "realy (re-implemented), mm",
    "std": "±", "interval": "95 % of mean",
}  # fmt: skip


def evaluate_realy(
    data: Path, predictions: Path, out: Path, *, limit: int | None = None, jobs: int = 1
) -> Report:
    settings = {"benchmark": "REALY", "predictions": predictions.name}
    keys = list(metrical_scale(data))[:limit]
    rows = run_items(Run(out, settings), keys, RealyWork(data, predictions), jobs=jobs, label="REALY")
    good = [row for row in rows if row["error"] is None]
    table = [
        {
            "region": region,
            "scans": len(good),
            "missing": len(rows) - len(good),
            "mean": float(np.mean([row[region] for row in good])) if good else None,
            # The sample standard deviation, as published.
            "std": float(np.std([row[region] for row in good], ddof=1)) if len(good) > 1 else None,
            "interval": mean_interval({row["item"]: [row[region]] for row in good}),
        }
        for region in (*REGIONS, "all")
    ]
    curves = curves_of(rows, (*REGIONS, "all"))
    axes = ("Mean error of a scan [mm]", "Percentage of scans")
    report = Report("REALY, re-implemented, mm.", settings, rows, table, COLUMNS, curves, axes=axes)
    report.write(out)
    return report
