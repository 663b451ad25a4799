"""ICP of the benchmarks: laws of a registration, and agreement with the least-squares optimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facefit.benchmarks import icp
from facefit.benchmarks.alignment import refine
from facefit.benchmarks.golden import relief_mesh
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Points, Similarity, Surface
from facefit.errors import FacefitError

pytest.importorskip(
    "open3d",
    exc_type=ImportError,
    reason="distances need open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
)

SHAPE = (100.0, 120.0, 70.0, 22.0)
OTHER = (104.0, 118.0, 66.0, 26.0)
TURN = Rotation.from_rotvec([0.03, -0.02, 0.03]).as_matrix()


def moved(mesh: SurfaceMesh, scale: float) -> SurfaceMesh:
    by = Similarity(scale, TURN, np.array([2.0, -1.0, 2.0]))
    return SurfaceMesh(by.apply(mesh.vertices), mesh.triangles)


def scan(noise: float = 0.0) -> Points:
    vertices = relief_mesh(41, 80, 90, *SHAPE).vertices
    return np.asarray(vertices + np.random.default_rng(0).normal(0, noise, vertices.shape))


def rms(mesh: SurfaceMesh, motion: Similarity, points: Points) -> float:
    placed = SurfaceMesh(motion.apply(mesh.vertices), mesh.triangles)
    return float(np.sqrt((Surface(placed, threads=1).distance(points) ** 2).mean()))


def test_a_moved_and_scaled_copy_comes_back() -> None:
    face = moved(relief_mesh(81, 110, 130, *SHAPE), 1.03)
    motion = icp.isotropic(face, scan())
    assert rms(face, motion, scan()) < 0.03
    assert motion.scale == pytest.approx(1 / 1.03, abs=1e-3)
    np.testing.assert_allclose(motion.rotation @ TURN, np.eye(3), atol=5e-3)


def test_a_moved_copy_comes_back_without_a_scale() -> None:
    face = moved(relief_mesh(81, 110, 130, *SHAPE), 1.0)
    motion = icp.rigid(face, scan())
    assert rms(face, motion, scan()) < 0.03 and motion.scale == pytest.approx(1.0, abs=1e-9)


def test_on_a_noisy_scan_of_another_face_icp_reaches_the_least_squares_optimum() -> None:
    face, points = moved(relief_mesh(61, 110, 130, *OTHER), 1.02), scan(noise=0.3)
    surface = Surface(face, threads=1)
    for align, scale in ((icp.isotropic, True), (icp.rigid, False)):
        best = refine(surface, points, scale=scale, tolerance=1e-6)
        optimum = float(np.sqrt((best.distances**2).mean()))
        assert rms(face, align(face, points), points) == pytest.approx(optimum, rel=0.01)


def test_points_that_collapse_are_refused() -> None:
    with pytest.raises(FacefitError, match="shrank"):
        icp.paired(scan(), np.zeros_like(scan()))
