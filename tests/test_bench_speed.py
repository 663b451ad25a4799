"""Timing and comparators: what is timed is what was asked, and others see the same triangles."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.benchmarks import speed
from facefit.benchmarks.comparators import visibility
from facefit.benchmarks.timing import peak_memory_mb, spread, timed
from facefit.models.camera import Camera
from facefit.models.pack import save_model
from facefit.models.scene import Scene


def test_the_first_call_is_not_counted() -> None:
    calls: list[int] = []
    row = timed(lambda: calls.append(1), repeats=5)
    assert len(calls) == 6 and row["repeats"] == 5
    assert row["p10"] <= row["ms"] <= row["p90"]


def test_spread_is_of_the_samples() -> None:
    found = spread([float(k) for k in range(11)])
    assert (found["ms"], found["p10"], found["p90"]) == (5, 1, 9)


def test_memory_is_that_of_a_process_that_imported_torch() -> None:
    peak = peak_memory_mb()
    assert peak is None or 50 < peak < 100_000


def test_embree_sees_the_triangles_that_the_rasteriser_sees() -> None:
    pytest.importorskip(
        "open3d",
        exc_type=ImportError,
        reason="the comparator is open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
    )
    model = toy_model()
    with torch.no_grad():
        rows = visibility(Scene.neutral(model, Camera.from_field_of_view(512, 512)), model)
    agree = float(re.findall(r"same triangle in ([\d.]+) %", rows[-1]["note"])[0])
    # Pixel centres on a shared edge may go either way.
    assert agree > 99


@pytest.mark.slow
def test_speed_names_every_stage_of_the_recipe(
    tmp_path: Path, astronaut_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "FITS", 1)
    monkeypatch.setattr(speed, "timed", lambda call, **_: timed(call, repeats=1))
    save_model(toy_model(), tmp_path / "toy.safetensors")
    report = speed.evaluate_speed(
        tmp_path,
        model=str(tmp_path / "toy.safetensors"),
        method="landmarks",
        photo=astronaut_file,
        quick=True,
    )
    named = [row["what"] for row in report.table]
    assert {"read and detect", "start", "fit: pose", "fit: landmarks", "write all files"} <= set(named)
    assert all(np.isfinite(row["ms"]) for row in report.table if row["part"] == "stages")


@pytest.mark.slow
def test_training_pictures_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Counting:
        def __init__(self, model: object) -> None: ...

        def __call__(self, seed: int, index: int) -> None:
            drawn.append(index)
            time.sleep(0.01)

    monkeypatch.setattr("facefit.learned_init.synthetic.Synthesizer", Counting)
    row = speed.training_pictures(toy_model(), count=5)
    assert drawn == list(range(len(drawn))), "a picture drawn again would come from a cache"
    assert len(drawn) == 5 * (row["repeats"] + 1)
    assert row["ms"] >= 10 and row["per second"] <= 100
