"""Known mistakes in predictions are named; a folder of predictions is scored, its gaps counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facefit.benchmarks.estimate import write_prediction
from facefit.benchmarks.golden import PUBLISHED, golden_prediction, golden_scan
from facefit.benchmarks.meshfiles import SurfaceMesh, write_ply
from facefit.benchmarks.now import Dataset, Prediction, measure
from facefit.benchmarks.now_check import expression_left_in, landmark_order, traps
from facefit.benchmarks.now_run import evaluate

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
    assert "in any order" in (landmark_order(points, golden_scan().landmarks) or "")


def test_a_mirrored_mesh_is_told_from_exchanged_sides() -> None:
    good = golden_prediction()
    flip = np.array([-1.0, 1, 1])
    mesh = SurfaceMesh(good.mesh.vertices * flip, good.mesh.triangles)
    assert "mesh is mirrored" in seen(Prediction(mesh, good.landmarks * flip))["mirrored"]
    swapped = replace(good, landmarks=good.landmarks[[3, 2, 1, 0, 4, 6, 5]])
    assert "exchanged" in seen(swapped)["mirrored"]


def test_a_wrong_unit_is_named_with_the_right_one() -> None:
    assert "the file is in m, not in mm" in seen(golden_prediction(), "mm")["unit"]


@pytest.mark.slow
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


def now_dataset(root: Path) -> Dataset:
    """Three subjects whose scan is the golden one, two images each, in NoW's layout."""
    scan = golden_scan()
    points = "\n".join('<point x="{}" y="{}" z="{}"/>'.format(*p) for p in scan.landmarks)
    lines = []
    for subject in ("S1", "S2", "S3"):
        write_ply(root / "scans" / subject / "scan.ply", scan.mesh)
        folder = root / "scans_lmks_onlypp" / subject
        folder.mkdir(parents=True)
        (folder / "scan.pp").write_text(f"<PickedPoints>\n{points}\n</PickedPoints>\n")
        lines += [f"{subject}/{challenge}/a.jpg" for challenge in ("multiview_neutral", "selfie")]
    (root / "imagepathsvalidation.txt").write_text("\n".join(lines) + "\n")
    return Dataset(root)


@pytest.mark.slow
def test_a_folder_of_predictions_is_scored_by_challenge_and_what_is_missing_is_counted(
    tmp_path: Path,
) -> None:
    dataset, folder = now_dataset(tmp_path / "now"), tmp_path / "theirs"
    good = golden_prediction()
    for image in dataset.images():
        write_prediction(folder / image.key, good)
    (folder / "S1" / "selfie" / "a.npy").unlink()
    broken = SurfaceMesh(good.mesh.vertices.copy(), good.mesh.triangles)
    broken.vertices[7] = np.nan
    write_ply(folder / "S2" / "selfie" / "a.ply", broken)
    report = evaluate(dataset, folder, tmp_path / "out", name="theirs", unit="m")
    assert report.coverage == "4/6" and not report.extra["complete"]
    assert "S1/selfie/a: no landmark file" in report.text.replace(f"{folder}/", "")
    assert "1 of 6561 vertices are NaN" in report.text
    whole = {(row["variant"], row["challenge"]): row for row in report.table}
    for variant, published in PUBLISHED.items():
        row = whole[variant, "all"]
        # The scan went through single precision.
        assert (row["median"], row["mean"], row["std"]) == pytest.approx(published[:3], abs=1e-4)
    assert whole["metrical", "selfie"]["missing"] == 2 and whole["metrical", "selfie"]["images"] == 1
    for name in ("report.json", "rows.csv", "report.md", "cumulative.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100


def test_a_scan_that_does_not_parse_fails_its_own_images_only(tmp_path: Path) -> None:
    dataset, folder = now_dataset(tmp_path / "now"), tmp_path / "theirs"
    for image in dataset.images():
        write_prediction(folder / image.key, golden_prediction())
    (tmp_path / "now" / "scans" / "S3" / "scan.ply").write_text("not a mesh")
    report = evaluate(dataset, folder, tmp_path / "out", name="theirs", unit="m")
    assert report.coverage == "4/6"
    assert all("not a readable PLY mesh" in failure["error"] for failure in report.failures)


def test_a_changed_prediction_is_measured_again(tmp_path: Path) -> None:
    dataset, folder = now_dataset(tmp_path / "now"), tmp_path / "theirs"
    good = golden_prediction()
    flat = SurfaceMesh(good.mesh.vertices * [1, 1, 0.98], good.mesh.triangles)
    medians = []
    for prediction in (good, Prediction(flat, good.landmarks)):
        write_prediction(folder / dataset.images()[0].key, prediction)
        report = evaluate(dataset, folder, tmp_path / "out", name="theirs", unit="m", limit=1)
        medians.append(report.table[0]["median"])
    assert medians[0] == pytest.approx(PUBLISHED["non-metrical"][0], abs=1e-4) != medians[1]
