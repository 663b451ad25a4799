"""The NoW protocol: equal to the published evaluation on a generated case, and its invariances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facefit.benchmarks.alignment import distances_and_jacobian, refine
from facefit.benchmarks.golden import PUBLISHED, golden_prediction, golden_scan
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Similarity, Surface
from facefit.benchmarks.now import Dataset, Image, Prediction, crop_ball, measure
from facefit.errors import UnreadableInput

pytest.importorskip(
    "open3d",
    exc_type=ImportError,
    reason="distances need open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
)


def test_crop_of_the_golden_scan_is_the_published_one() -> None:
    centre, radius = crop_ball(golden_scan().landmarks)
    np.testing.assert_allclose(centre, [0, 0.2, 81.870095], atol=1e-6)
    assert radius == pytest.approx(99.270775, abs=1e-6)
    assert len(golden_scan().scored) == 8591


def test_non_metrical_error_equals_the_published_evaluation() -> None:
    found = measure(golden_prediction(), golden_scan(), "non-metrical", unit="m")
    d = found.distances
    assert np.median(found.landmarks_only) == pytest.approx(0.800750, abs=1e-4)
    assert np.mean(found.landmarks_only) == pytest.approx(0.866277, abs=1e-4)
    assert (np.median(d), d.mean(), d.std(), d.max()) == pytest.approx(PUBLISHED["non-metrical"], abs=1e-5)
    # 9.30e3 at the start, then these; the count of steps is part of the protocol because it stops early.
    assert found.sum_of_squares == pytest.approx(
        [3.71e3, 3.52e3, 3.07e3, 2.23e3, 1.75e3, 1.75e3, 1.75e3], rel=5e-3
    )


def test_metrical_error_equals_the_published_evaluation() -> None:
    d = measure(golden_prediction(), golden_scan(), "metrical", unit="m").distances
    assert (np.median(d), d.mean(), d.std(), d.max()) == pytest.approx(PUBLISHED["metrical"], abs=1e-5)


def test_non_metrical_error_ignores_pose_and_unit_of_the_prediction() -> None:
    move = Similarity(37.0, Rotation.from_rotvec([0.5, 2.0, -0.3]).as_matrix(), np.array([5.0, -2.0, 9.0]))
    first = golden_prediction()
    second = Prediction(
        SurfaceMesh(move.apply(first.mesh.vertices), first.mesh.triangles), move.apply(first.landmarks)
    )
    a, b = (measure(p, golden_scan()).distances for p in (first, second))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_scan_measured_against_itself_has_no_error() -> None:
    scan = golden_scan()
    assert measure(Prediction(scan.mesh, scan.landmarks), scan, "metrical").distances.max() < 1e-9


def test_derivative_of_the_distances_equals_a_central_difference() -> None:
    scan = golden_scan()
    points = scan.scored[::37] + [0.0, 0.0, 1.5]
    surface = Surface(scan.mesh)
    x = np.array([1.02, 0.03, -0.05, 0.02, 1.0, -2.0, 0.5])
    _, jacobian = distances_and_jacobian(surface, points, x)
    # epsilon: the cube root of the rounding of a distance of 1e2 in double, 1e-14, is a few 1e-5.
    step = 2e-5 * np.eye(7)
    numeric = np.column_stack(
        [
            distances_and_jacobian(surface, points, x + h)[0]
            - distances_and_jacobian(surface, points, x - h)[0]
            for h in step
        ]
    )
    # A point whose closest triangle changes within the step has a kink; nine in ten must agree everywhere.
    agree = np.isclose(numeric / 4e-5, jacobian, atol=1e-3).all(1)
    assert agree.mean() > 0.9


def test_refinement_undoes_a_similarity() -> None:
    scan = golden_scan()
    move = Similarity(1.05, Rotation.from_rotvec([0.05, -0.04, 0.08]).as_matrix(), np.array([3.0, 2.0, -4.0]))
    points = move.apply(scan.mesh.vertices)[scan.crop(1.0)]
    assert refine(Surface(scan.mesh), points, scale=True, tolerance=1e-9).distances.max() < 0.01


def test_a_missing_image_list_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="imagepathsvalidation.txt.*--data must name"):
        Dataset(tmp_path).images()


def test_boxes_are_read_without_running_foreign_code(tmp_path: Path) -> None:
    image = Image("S1", "selfie", "a.jpg")
    folder = tmp_path / "detected_face" / "S1" / "selfie"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.array({"left": 1, "top": np.int64(2), "right": 30.5, "bottom": 40}, object))
    assert Dataset(tmp_path).box(image) == (1.0, 2.0, 30.5, 40.0)
    np.save(folder / "a.npy", np.array({"left": Path("x")}, object))
    with pytest.raises(UnreadableInput, match="only numbers are read"):
        Dataset(tmp_path).box(image)
