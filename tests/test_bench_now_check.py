"""Known mistakes in predictions are named, and a good prediction is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facefit.benchmarks.golden import golden_prediction, golden_scan
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.now import Prediction, measure
from facefit.benchmarks.now_check import expression_left_in, traps

pytest.importorskip(
    "open3d",
    exc_type=ImportError,
    reason="distances need open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
)


def seen(prediction: Prediction, unit: str = "m") -> dict[str, str]:
    scan = golden_scan()
    return traps(prediction, scan, measure(prediction, scan, unit=unit), unit)


def test_a_good_prediction_raises_no_suspicion() -> None:
    assert seen(golden_prediction()) == {}


def test_landmarks_in_another_order_are_put_right() -> None:
    good = golden_prediction()
    found = seen(replace(good, landmarks=good.landmarks[[0, 1, 2, 3, 5, 4, 6]]))
    assert list(found) == ["landmark order"]
    assert "nose base is given as number 5" in found["landmark order"]


def test_points_that_are_no_face_are_said_to_be_none() -> None:
    points = np.random.default_rng(1).normal(size=(7, 3))
    assert "in any order" in seen(replace(golden_prediction(), landmarks=points))["landmark order"]


def test_a_mirrored_mesh_is_told_from_exchanged_sides() -> None:
    good = golden_prediction()
    flip = np.array([-1.0, 1, 1])
    mesh = SurfaceMesh(good.mesh.vertices * flip, good.mesh.triangles)
    assert "mesh is mirrored" in seen(Prediction(mesh, good.landmarks * flip))["mirrored"]
    swapped = replace(good, landmarks=good.landmarks[[3, 2, 1, 0, 4, 6, 5]])
    assert "exchanged" in seen(swapped)["mirrored"]


def test_a_wrong_unit_is_named_with_the_right_one() -> None:
    assert "the file is in m, not in mm" in seen(golden_prediction(), "mm")["unit"]


@pytest.mark.parametrize(("radius", "suspicious"), [(70, True), (85, True), (115, False)])
def test_a_crop_inside_the_scored_region_is_noticed(radius: float, suspicious: bool) -> None:
    good = golden_prediction()
    keep = np.linalg.norm(good.mesh.vertices - good.landmarks[4], axis=1) * 1000 <= radius
    number = np.cumsum(keep) - 1
    triangles = number[good.mesh.triangles[keep[good.mesh.triangles].all(1)]]
    cropped = Prediction(SurfaceMesh(good.mesh.vertices[keep], triangles), good.landmarks)
    assert ("cropped mesh" in seen(cropped)) == suspicious


def test_a_mouth_that_moves_with_the_photograph_is_an_expression() -> None:
    good = golden_prediction()
    gap = np.linalg.norm(good.mesh.vertices - good.landmarks[5:7].mean(0), axis=1) * 1000
    lowered = good.mesh.vertices - np.outer(5e-3 * np.exp(-((gap / 30) ** 2)), [0, 1, 0])
    opened = Prediction(SurfaceMesh(lowered, good.mesh.triangles), good.landmarks)
    shapes = {"calm": good, "calm too": good, "loud": opened}
    assert "expression was left in" in (expression_left_in(shapes, ["calm", "calm too"], ["loud"]) or "")
    assert expression_left_in({**shapes, "loud": good}, ["calm", "calm too"], ["loud"]) is None
