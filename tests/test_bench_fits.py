"""Benchmarks of fits: truth measured against itself is no error; pictures come from their seed alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial.transform import Rotation
from toy import toy_model

from facefit.benchmarks.cli import bench
from facefit.benchmarks.estimate import FaceEstimate, as_prediction
from facefit.benchmarks.heads_truth import angles_deg, camera_errors, landmark_errors
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Similarity, angle_between_deg, procrustes
from facefit.benchmarks.model_space import project
from facefit.benchmarks.now import Prediction, Scan
from facefit.benchmarks.pictures import draw_scene, photograph
from facefit.benchmarks.recipes import recipe, variants
from facefit.benchmarks.recovery import evaluate_recovery
from facefit.benchmarks.synthetic import evaluate_synthetic, interval_share
from facefit.errors import FacefitError
from facefit.models.pack import save_model

pytest.importorskip(
    "open3d",
    exc_type=ImportError,
    reason="distances need open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
)


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_model(toy_model(), path)
    return str(path)


@pytest.fixture(scope="module")
def bench_data() -> Path:
    folder = Path(os.environ.get("FACEFIT_TEST_DATA", "")) / "bench"
    if not os.environ.get("FACEFIT_TEST_DATA") or not folder.is_dir():
        pytest.skip("FACEFIT_TEST_DATA names no folder with bench/: this needs heads with ground truth")
    return folder


def test_procrustes_finds_the_similarity_and_a_reflection_only_when_allowed() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(9, 3))
    truth = Similarity(1.7, Rotation.random(rng=rng).as_matrix(), rng.normal(size=3))
    found = procrustes(points, truth.apply(points))
    np.testing.assert_allclose(found.apply(points), truth.apply(points), atol=1e-12)
    np.testing.assert_allclose(found.inverse.apply(truth.apply(points)), points, atol=1e-12)
    mirrored = points * [-1, 1, 1]
    assert np.linalg.det(procrustes(points, mirrored).rotation) > 0
    assert np.abs(procrustes(points, mirrored, reflection=True).apply(points) - mirrored).max() < 1e-12


def test_a_camera_and_landmarks_that_are_right_have_no_error() -> None:
    rng = np.random.default_rng(1)
    turn = np.diag([1.0, -1, -1]) @ Rotation.from_rotvec([0.1, 0.4, -0.1]).as_matrix()
    pixels = rng.uniform(0, 500, (68, 2))
    truth = {
        "R": turn,
        "t": [3.0, 4.0, 600.0],
        "K": [[900.0, 0, 256], [0, 900, 256], [0, 0, 1]],
        "yaw_deg": 20.0,
    }
    # The model's own frame is turned and moved against the scan's; the errors must not see that.
    frame = Similarity(1.0, Rotation.from_rotvec([0.2, 0.1, 0.0]).as_matrix(), np.array([1.0, 2.0, 3.0]))
    camera = frame.then(Similarity(1.0, turn, np.array(truth["t"])))
    empty = Prediction(SurfaceMesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)), np.zeros((7, 3)))
    found = FaceEstimate(
        empty, landmarks_px=dict(enumerate(pixels)), camera_from_model=camera.rotation,
        translation_mm=camera.translation, focal_px=990.0,
    )  # fmt: skip
    row = camera_errors(found, frame, truth)
    assert [row[k] for k in ("pose deg", "pitch deg", "yaw deg", "roll deg", "distance %")] == pytest.approx(
        [0] * 5, abs=1e-6
    )
    assert row["focal %"] == pytest.approx(10)
    known = pixels.copy()
    known[63] = np.nan
    assert landmark_errors(found, known)["landmarks68 %"] == pytest.approx(0)


def test_small_turns_are_read_off_by_axis() -> None:
    turn = Rotation.from_euler("ZYX", [5, -7, 3], degrees=True).as_matrix()
    assert angles_deg(turn) == pytest.approx((3, -7, 5))
    assert angle_between_deg(turn, np.eye(3)) == pytest.approx(
        np.degrees(Rotation.from_matrix(turn).magnitude())
    )


def test_a_face_of_the_model_is_found_in_the_models_space() -> None:
    model = toy_model()
    identity = torch.from_numpy(np.random.default_rng(0).normal(size=model.n_identity)).float()
    truth = as_prediction(model, model.vertices(identity, torch.zeros(0)))
    move = Similarity(1.0, Rotation.from_rotvec([0.1, -0.1, 0.2]).as_matrix(), np.array([10.0, -5.0, 3.0]))
    mesh = SurfaceMesh(move.apply(truth.mesh.vertices), truth.mesh.triangles)
    scan = Scan(mesh, move.apply(truth.landmarks))
    found = project(model, scan, steps=60)
    inside = scan.crop()
    assert np.median(np.linalg.norm(found.placed - mesh.vertices, axis=1)[inside]) < 0.3


@pytest.mark.slow
def test_a_picture_is_its_seed() -> None:
    first, second, other = (
        photograph(draw_scene(toy_model(), rng), toy_model(), rng)
        for rng in map(np.random.default_rng, (4, 4, 5))
    )
    assert first.jpeg == second.jpeg != other.jpeg
    assert first.free.any()


@pytest.mark.slow
def test_synthetic_pictures_are_fitted_measured_and_grouped(toy_file: str, tmp_path: Path) -> None:
    report = evaluate_synthetic(tmp_path, model=toy_file, method="landmarks", landmarks="truth", count=2)
    assert report.coverage == "2/2", report.text
    every = report.table[0]
    # Exact landmarks tell more of a face than the mean does.
    assert every["true mm"] < every["mean face true mm"] and every["landmarks %"] < 3
    assert sum(row["images"] for row in report.table if row["group"].startswith("yaw")) == 2


@pytest.mark.slow
def test_a_face_comes_back_from_its_own_rendering(toy_file: str, tmp_path: Path) -> None:
    """The better the picture is believed, as a picture that the model can explain deserves, the nearer the face."""
    report = evaluate_recovery(tmp_path, model=toy_file, count=2)
    assert report.coverage == "2/2", report.text
    standard, believed, exact = (row["true mm"] for row in report.table)
    assert exact < 0.02 and exact < 0.2 * believed
    assert believed < standard < 0.5 * report.table[0]["mean face mm"]


def test_calibrated_intervals_hold_nine_in_ten() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 3)) * 50
    sigma = rng.uniform(0.2, 2, (4000, 3))
    mine = torch.from_numpy(truth + rng.normal(size=truth.shape) * sigma)
    scene = SimpleNamespace(neutral_shape=lambda _: mine)
    result = SimpleNamespace(vertex_sigma_mm=sigma, scene=scene, model=None)
    share = interval_share(result, truth, np.ones(4000, bool))["inside 90 %"]
    # Three standard deviations of a binomial share of 12 000.
    assert share == pytest.approx(90, abs=0.9)
    assert interval_share(SimpleNamespace(), truth, np.ones(4000, bool)) == {}


def test_every_variant_takes_one_thing_away() -> None:
    full = recipe("standard")
    found = variants(full)
    assert {"contour", "photometry", "free focal", "landmarks after the start"} <= set(found)
    assert all(stages and stages != full for stages in found.values())
    assert recipe("standard without photometry") == found["photometry"]
    with pytest.raises(FacefitError, match="nothing called 'magic'"):
        recipe("standard without magic")


@pytest.mark.slow
def test_heads_score_a_mean_face_and_leave_predictions(
    bench_data: Path, toy_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[Any] = ["heads", "--data", bench_data, "--model", toy_file, "--out", tmp_path]
    arguments += ["--stages", "mean", "--only", "H04"]
    done = CliRunner().invoke(bench, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0 and "Coverage 3/3" in done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert 1 < report["table"][0]["median"] < 20
    stem = tmp_path / "predictions" / "H04" / "selfie" / "H04_1"
    assert Prediction.read(stem).landmarks.shape == (7, 3)


def test_a_missing_folder_is_wrong_usage_and_a_wrong_one_says_what_is_missing(tmp_path: Path) -> None:
    absent = CliRunner().invoke(bench, ["now", "--data", str(tmp_path / "no"), "--out", str(tmp_path)])
    assert absent.exit_code == 2
    empty = ["heads", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(bench, empty)
    assert found.exit_code == 4 and "imagepathsvalidation.txt" in found.output


def test_a_choice_that_holds_no_image_is_wrong_usage_not_an_empty_table(
    tmp_path: Path,
) -> None:
    (tmp_path / "imagepathsvalidation.txt").write_text("A/selfie/a.jpg\n")
    arguments = ["heads", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    nobody = CliRunner().invoke(bench, [*arguments, "--only", "B"])
    assert nobody.exit_code != 0 and "the first is A/selfie/a" in nobody.output
    assert CliRunner().invoke(bench, [*arguments, "--limit", "0"]).exit_code == 2
