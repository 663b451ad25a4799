"""Whether a fit knows how good it is: its intervals against the true surface, its verdict against the true error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facefit.benchmarks.metrics import Similarity
from facefit.benchmarks.now import Scan
from facefit.benchmarks.run import Row

# Half the width of a normal distribution's 90 % interval, in standard deviations.
NINETY = 1.6449
# A vertex further from the scan than this lies where the scan has a hole or ends.
MISSING_MM = 8.0


def promise(result: Any) -> Row:
    """The grade and the error that a fit expects of itself."""
    verdict = getattr(result, "verdict", None)
    return {} if verdict is None else {"verdict": verdict.grade, "expected mm": verdict.expected_mm}


def trust(result: Any, onto_scan: Similarity, scan: Scan) -> Row:
    """Distances along the normal from the face's vertices to the nearest point of the scan, beside the fit's own
    standard deviations in that direction; and the verdict.

    `interval factor` is how many times wider the 90 % intervals would have to be to hold 90 %.
    """
    from scipy.spatial import cKDTree

    from facefit.mesh import vertex_normals

    row = promise(result)
    if not row:
        return row
    sigma = result.vertex_sigma_mm()
    if sigma is None:
        return row
    model = result.model
    neutral = result.scene.neutral_shape(model)
    face = np.asarray(model.topology.region("face"), np.int64)
    normals = vertex_normals(neutral, model.triangles).double().numpy()[face]
    placed = onto_scan.apply(neutral.double().numpy()[face])
    distance, nearest = cKDTree(scan.mesh.vertices).query(placed)
    along = ((scan.mesh.vertices[nearest] - placed) * (normals @ onto_scan.rotation.T)).sum(1)
    there = np.asarray(distance) < MISSING_MM
    if not there.any():
        return row
    doubt = np.sqrt((normals**2 * sigma[face].astype(np.float64) ** 2).sum(1))
    score = np.abs(along[there]) / np.maximum(doubt[there], 1e-9)
    return row | {
        "surface RMS mm": float(np.sqrt((along[there] ** 2).mean())),
        "surface inside 90 %": 100 * float((score <= NINETY).mean()),
        "interval factor": float(np.quantile(score, 0.9)) / NINETY,
    }


def verdict_agreement(rows: Sequence[Row], error: str) -> float | None:
    """Spearman's rank correlation of the expected with the true error; None with fewer than three images."""
    from scipy.stats import spearmanr

    known = [
        (row["expected mm"], row[error])
        for row in rows
        if row.get("error") is None and row.get("expected mm") is not None and row.get(error) is not None
    ]
    finite = np.array([pair for pair in known if np.isfinite(pair).all()]).reshape(-1, 2)
    return float(spearmanr(finite[:, 0], finite[:, 1]).statistic) if len(finite) > 2 else None
