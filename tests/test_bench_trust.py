"""Intervals and verdicts against the truth: what the figures must be where the truth is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from test_recipe import TRUTH
from toy import toy_model

from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Similarity
from facefit.benchmarks.now import Scan
from facefit.benchmarks.trust import NINETY, trust, verdict_agreement
from facefit.mesh import vertex_normals


@pytest.mark.parametrize("off_mm", [0.1, 0.3])
def test_the_interval_factor_is_the_error_over_the_interval(off_mm: float) -> None:
    """A scan that lies everywhere the same distance outside the fit, whose every axis is doubted by 0.1 mm."""
    model = toy_model()
    neutral = TRUTH.neutral_shape(model)
    normals = vertex_normals(neutral, model.triangles).double().numpy()
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    placed = Similarity(1.0, turn, np.array([3.0, 4, 5]))
    truth = placed.apply(neutral.double().numpy() + off_mm * normals)
    scan = Scan(SurfaceMesh(truth, np.asarray(model.topology.triangles, np.int64)), np.zeros((7, 3)))
    result = SimpleNamespace(
        verdict=SimpleNamespace(grade="good", expected_mm=0.2),
        vertex_sigma_mm=lambda: np.full((model.n_vertices, 3), 0.1),
        scene=TRUTH,
        model=model,
    )
    row = trust(result, placed, scan)
    assert row["interval factor"] == pytest.approx(off_mm / 0.1 / NINETY, rel=0.02)
    assert row["surface RMS mm"] == pytest.approx(off_mm, rel=0.02)
    assert (row["surface inside 90 %"] > 99) == (off_mm < 0.1 * NINETY)


def test_a_verdict_that_orders_fits_as_the_truth_does_agrees_fully() -> None:
    rows = [{"error": None, "expected mm": x, "true": x**3} for x in (0.5, 1.0, 1.5, 2.0)]
    assert verdict_agreement([*rows, {"error": "no face"}], "true") == pytest.approx(1)
    turned = [{**row, "true": -row["true"]} for row in rows]
    assert verdict_agreement(turned, "true") == pytest.approx(-1)
    assert verdict_agreement(rows[:2], "true") is None
