"""BU-3DFE (Yin et al., FG 2006): 100 subjects, seven expressions, one textured scan per photograph.

Deng et al. 2019 report a mean error in millimetres on it; their crop and alignment are not in any text found.
What is measured here is therefore named `bu3dfe-95mm`: the posed reconstruction (with its expression) against
the scan of the same photograph, scan cropped to 95 mm around the nose tip, ICP with a free scale, mean
distance of scan vertices to the surface. Compare with published figures only with that said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facefit.benchmarks import icp
from facefit.benchmarks.estimate import FaceEstimate, estimate, model_label
from facefit.benchmarks.meshfiles import SurfaceMesh, read_mesh
from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths
from facefit.benchmarks.report import Report, curves_of
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import mean_interval
from facefit.errors import UnreadableInput

CROP_MM = 95.0
EXPRESSIONS = {
    "NE": "neutral", "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness", "SA": "sadness",
    "SU": "surprise",
}  # fmt: skip


@dataclass(frozen=True)
class Bu3dfe:
    """F0001/F0001_AN01WH_F3D.wrl with F0001_AN01WH_F2D.bmp beside it; subjects F.... and M...."""

    root: Path

    def keys(self) -> list[str]:
        found = sorted(self.root.glob("[FM]????/*_F3D.wrl"))
        if not found:
            raise UnreadableInput(f"{self.root}: no [FM]????/*_F3D.wrl: is this the root of BU-3DFE?")
        return [f"{p.parent.name}/{p.name.removesuffix('_F3D.wrl')}" for p in found]

    def scan(self, key: str) -> SurfaceMesh:
        """In millimetres; the face looks along +z."""
        return read_mesh(self.root / f"{key}_F3D.wrl")

    def photograph(self, key: str) -> Path:
        for suffix in ("_F2D.bmp", "_F2D.jpg", "_F2D.png"):
            if (path := self.root / f"{key}{suffix}").exists():
                return path
        raise UnreadableInput(f"{self.root / key}_F2D.bmp: no such photograph")


def nose_tip(scan: SurfaceMesh) -> Points:
    """The foremost vertex of the middle third of a face that looks along +z."""
    x = scan.vertices[:, 0]
    low, high = np.percentile(x, [33, 67])
    middle = np.flatnonzero((x >= low) & (x <= high))
    return np.asarray(scan.vertices[middle[scan.vertices[middle, 2].argmax()]])


def posed_error(found: FaceEstimate, scan: SurfaceMesh) -> float:
    """Mean distance after alignment, mm. The start: nose tip on nose tip, both faces looking along +z."""
    assert found.posed is not None
    tip = nose_tip(scan)
    points = scan.vertices[lengths(scan.vertices - tip) <= CROP_MM]
    mine = nose_tip(SurfaceMesh(found.posed.mesh.vertices, found.posed.mesh.triangles))
    shifted = Similarity(1.0, np.eye(3), tip - mine).apply(found.posed.mesh.vertices)
    placed = SurfaceMesh(shifted, found.posed.mesh.triangles)
    motion = icp.isotropic(placed, points)
    return motion.scale * float(Surface(placed, threads=1).distance(motion.inverse.apply(points)).mean())


@dataclass(frozen=True)
class Bu3dfeWork:
    data: Bu3dfe
    model: str
    method: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        scan = self.data.scan(key)
        found = estimate(self.data.photograph(key), self.model, self.method)
        subject, name = key.split("/")
        expression = EXPRESSIONS.get(name.removeprefix(f"{subject}_")[:2], "unknown")
        row = {"subject": subject, "expression": expression, "error mm": posed_error(found, scan)}
        return row | {"fit_seconds": found.seconds, "status": found.status}, {}


COLUMNS = {
    "expression": "expression", "images": "images", "failed": "failed", "mean": "bu3dfe-95mm (mm)",
    "std": "±", "interval": "95 % of mean",
}  # fmt: skip


def evaluate_bu3dfe(
    data: Bu3dfe, out: Path, *, model: str, method: str = "standard", limit: int | None = None, jobs: int = 1
) -> Report:
    settings = {"benchmark": "BU-3DFE", "protocol": "bu3dfe-95mm", "method": method}
    settings["model"] = model_label(model)
    keys, work = data.keys()[:limit], Bu3dfeWork(data, model, method)
    rows = run_items(Run(out, settings), keys, work, jobs=jobs, label="BU-3DFE")
    table = []
    for expression in ("all", *EXPRESSIONS.values()):
        group = [row for row in rows if expression in ("all", row.get("expression"))]
        if not group:
            continue
        good = [row for row in group if row["error"] is None]
        values = [row["error mm"] for row in good]
        by_subject: dict[str, list[float]] = {}
        for row in good:
            by_subject.setdefault(row["subject"], []).append(row["error mm"])
        table.append(
            {
                "expression": expression,
                "images": len(good),
                "failed": len(group) - len(good),
                "mean": float(np.mean(values)) if values else None,
                "std": float(np.std(values)) if values else None,
                "interval": mean_interval(by_subject),
            }
        )
    headline = "BU-3DFE, posed faces, protocol bu3dfe-95mm."
    curves = curves_of(rows, ["error mm"])
    axes = ("Mean error of a scan [mm]", "Percentage of scans")
    report = Report(headline, settings, rows, table, COLUMNS, curves, axes=axes)
    report.write(out)
    return report
