"""MICC, AFLW2000-3D, BU-3DFE, REALY on small fixtures in their layouts: laws of the measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from facefit.benchmarks import aflw2000, bu3dfe, micc, realy
from facefit.benchmarks.estimate import FaceEstimate, write_prediction
from facefit.benchmarks.golden import NOW_LANDMARKS, relief_landmarks, relief_mesh
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Similarity, Surface
from facefit.benchmarks.micc_data import MiccData
from facefit.benchmarks.nonrigid_icp import deform
from facefit.benchmarks.now import IBUG_OF_NOW, Prediction

pytest.importorskip(
    "open3d",
    exc_type=ImportError,
    reason="distances need open3d: pip install 'facefit[bench]', apt-get install libusb-1.0-0",
)

SHAPE = (100.0, 120.0, 70.0, 22.0)
SEVEN = relief_landmarks(NOW_LANDMARKS, *SHAPE)
MOVE = Similarity(1.0, Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), np.array([5.0, 9.0, 40.0]))


def face(n: int = 61) -> SurfaceMesh:
    return relief_mesh(n, 100, 120, *SHAPE)


def landmarks68() -> np.ndarray:
    """Seven true points, the nose tip, and the rest anywhere on the face."""
    at = np.random.default_rng(0).uniform(-60, 60, (68, 2))
    at[30] = 0, -5
    at[list(IBUG_OF_NOW)] = NOW_LANDMARKS
    return relief_landmarks(at, *SHAPE)


def write_obj(path: Path, mesh: SurfaceMesh) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*v) for v in mesh.vertices]
    lines += ["f {} {} {}".format(*(t + 1)) for t in mesh.triangles]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def micc_data(tmp_path: Path) -> MiccData:
    for subject in ("subject_01", "subject_02"):
        for scan in ("frontal1", "frontal2"):
            folder = tmp_path / "micc" / subject / "Model" / scan / "obj"
            write_obj(folder / "scan.obj", face())
            points = {"groups": {"LJSON": {"landmarks": {"points": landmarks68().tolist()}}}}
            (folder / "scan.ljson").write_text(json.dumps(points))
    return MiccData(tmp_path / "micc")


def test_micc_protocols_ignore_a_rigid_motion_and_two_of_them_a_scale(micc_data: MiccData) -> None:
    scan = micc_data.scans("subject_01")[0]
    moved = Prediction(SurfaceMesh(MOVE.apply(face().vertices), face().triangles), MOVE.apply(SEVEN))
    large = Prediction(SurfaceMesh(1.1 * moved.mesh.vertices, face().triangles), 1.1 * moved.landmarks)
    for protocol in micc.PROTOCOLS:
        assert micc.micc_error(protocol, moved, scan) < 0.01
        error = micc.micc_error(protocol, large, scan)
        assert error > 0.1 if protocol == "micc-genova" else error < 0.01
    assert micc.micc_error("micc-genova", large, scan, scale=1 / 1.1) < 0.01


def test_micc_counts_missing_predictions_and_names_each_protocol(micc_data: MiccData, tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    write_prediction(folder / "subject_01" / "Cooperative", Prediction(face(), SEVEN))
    report = micc.evaluate_micc(micc_data, tmp_path / "out", model="none", predictions=folder)
    line = next(row for row in report.table if row["setting"] == "Cooperative")
    assert (line["subjects"], line["missing"]) == (1, 1)
    assert "micc-deng (mm)" in report.text and report.coverage == "1/6"
    assert "subject_02/Cooperative: no mesh" in report.text.replace(str(folder) + "/", "")
    assert (tmp_path / "out" / "cumulative.png").stat().st_size > 100


@pytest.mark.parametrize("fault", ["scan", "nan", "landmarks"])
def test_micc_names_what_is_wrong_with_one_subject_and_measures_the_others(
    micc_data: MiccData, tmp_path: Path, fault: str
) -> None:
    folder, scan = tmp_path / "predictions", micc_data.root / "subject_01" / "Model" / "frontal1" / "obj"
    for subject in micc_data.subjects():
        write_prediction(folder / subject / "Indoor", Prediction(face(), SEVEN))
    if fault == "landmarks":
        (scan / "scan.ljson").unlink()
        said = "scan.obj: no landmarks"
    else:
        (scan / "scan.obj").write_text("v 0 0 nan\n" if fault == "nan" else "v one two three\n")
        said = "vertices are NaN" if fault == "nan" else "not a readable OBJ mesh"
    report = micc.evaluate_micc(
        micc_data, tmp_path / "out", model="none", predictions=folder, settings=["Indoor"]
    )
    assert report.coverage == "1/2" and report.table[0]["missing"] == 1
    assert [f["item"] for f in report.failures] == ["subject_01/Indoor"]
    assert said in report.failures[0]["error"]


def angles_to_label(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """R = Rx Ry Rz of transposed elementary rotations, then to a camera with y down, z away."""
    r = Rotation.from_euler("XYZ", [-pitch, -yaw, -roll], degrees=True).as_matrix()
    return np.asarray(np.diag([1.0, -1.0, -1.0]) @ r)


@pytest.mark.parametrize("angles", [(0, 0, 0), (10, -35, 5), (-20, 80, -15)])
def test_pose_angles_invert_the_data_sets_convention(angles: tuple[float, float, float]) -> None:
    assert aflw2000.pose_angles(angles_to_label(*angles)) == pytest.approx(angles, abs=1e-9)


def test_aflw2000_bins_by_yaw_and_counts_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    yaws = {"image00002": 10, "image00004": -45, "image00006": 75, "image00008": 20}
    labels = {}
    for name, yaw in yaws.items():
        points = rng.uniform(100, 300, (3, 68))
        pose = np.radians([[5.0, yaw, -3.0, 0, 0, 0, 1e-4]])
        savemat(tmp_path / f"{name}.mat", {"pt3d_68": points, "Pose_Para": pose})
        (tmp_path / f"{name}.jpg").touch()
        labels[name] = points
    (tmp_path / "image00008.jpg").unlink()

    def fake(photograph: Path, model: str, method: str) -> FaceEstimate:
        points = labels[photograph.stem]
        box = np.sqrt(np.prod(np.ptp(points[:2], axis=1)))
        off = 0.03 * box if photograph.stem == "image00004" else 0.0
        pixels = points[:2].T - 0.5 + [off, 0]
        depth = 600 - points[2] * 600 / 1000
        empty = Prediction(face(5), SEVEN)
        return FaceEstimate(
            empty, landmarks_px=dict(enumerate(pixels)), posed=empty, focal_px=1000.0,
            camera_from_model=angles_to_label(5, yaws[photograph.stem], -3), translation_mm=np.zeros(3),
            landmark_depth_mm=dict(enumerate(depth.tolist())),
        )  # fmt: skip

    monkeypatch.setattr(aflw2000, "estimate", fake)
    data = aflw2000.Aflw2000(tmp_path)
    report = aflw2000.evaluate_aflw2000(data, tmp_path / "out", model="toy")
    nme = report.table[0]
    assert (nme["0-30"], nme["30-60"], nme["60-90"]) == pytest.approx((0, 3, 0), abs=1e-6)
    assert nme["mean"] == pytest.approx(1.0) and nme["failed"] == 1
    pose = report.extra["head pose MAE (deg)"]
    assert pose["images"] == 3 and pose["mean"] == pytest.approx(0, abs=1e-6)
    assert report.extra["landmark accuracy at 8 % NME"] == 100.0


def test_bu3dfe_measures_the_posed_face_whatever_its_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = face(41)
    folder = tmp_path / "F0001"
    folder.mkdir()
    points = ", ".join("{:.6f} {:.6f} {:.6f}".format(*v) for v in mesh.vertices)
    index = ", ".join("{}, {}, {}, -1".format(*t) for t in mesh.triangles)
    text = f"#VRML V2.0 utf8\nCoordinate {{ point [ {points} ] }}\ncoordIndex [ {index} ]\n"
    for name in ("F0001_NE00WH", "F0001_HA02WH"):
        (folder / f"{name}_F3D.wrl").write_text(text)
    (folder / "F0001_NE00WH_F2D.bmp").touch()
    posed = Prediction(SurfaceMesh(1.05 * mesh.vertices + [3, 2, 1], mesh.triangles), SEVEN)
    monkeypatch.setattr(bu3dfe, "estimate", lambda *_: FaceEstimate(posed, posed=posed))
    report = bu3dfe.evaluate_bu3dfe(bu3dfe.Bu3dfe(tmp_path), tmp_path / "out", model="toy")
    assert report.table[0]["mean"] < 0.02 and report.table[0]["failed"] == 1
    assert "bu3dfe-95mm" in report.text and "F0001_HA02WH_F2D.bmp: no such photograph" in report.text


def test_nonrigid_icp_finds_a_smooth_deformation() -> None:
    source, target = face(21), relief_mesh(41, 100, 120, 104, 118, 66, 26)
    surface = Surface(target)
    before = surface.distance(source.vertices).mean()
    moved = deform(source, surface, [50.0, 20.0, 5.0, 1.0])
    inner = np.linalg.norm(source.vertices[:, :2], axis=1) < 80
    assert surface.distance(moved)[inner].mean() < 0.1 * before


def test_realy_of_the_scan_itself_is_nothing_and_a_swollen_nose_is_the_noses_error(tmp_path: Path) -> None:
    mesh = face(41)
    keypoints = np.zeros((85, 3), np.int64)
    rng = np.random.default_rng(0)
    inner = np.flatnonzero(np.linalg.norm(mesh.vertices[:, :2], axis=1) < 80)
    keypoints[:] = rng.choice(inner, 85)[:, None]
    for number, point in zip(IBUG_OF_NOW, SEVEN, strict=True):
        keypoints[number] = np.linalg.norm(mesh.vertices - point, axis=1).argmin()
    table = realy.KeypointTable(keypoints, np.tile([1.0, 0.0, 0.0], (85, 1)))
    centres = {"nose": (0, -5), "mouth": (0, -40), "forehead": (0, 60), "cheek": (50, -10)}
    data, predictions = tmp_path / "data", tmp_path / "predictions"
    (data / "REALY_keypoints").mkdir(parents=True)
    np.savetxt(data / "REALY_keypoints" / "1.txt", table.on(mesh.vertices))
    (data / "metrical_scale.txt").write_text("1 2.0\n")
    for name, centre in centres.items():
        keep = np.linalg.norm(mesh.vertices[:, :2] - centre, axis=1) < 25
        number = np.cumsum(keep) - 1
        part = SurfaceMesh(mesh.vertices[keep], number[mesh.triangles[keep[mesh.triangles].all(1)]])
        write_obj(data / "REALY_scan_region" / f"1_{name}.obj", part)
        points = np.where(keep[keypoints[:, 0], None], table.on(mesh.vertices), np.nan)
        np.savetxt(data / "REALY_scan_region" / f"1_{name}.txt", points)
    swollen = mesh.vertices.copy()
    gap = np.linalg.norm(swollen[:, :2] - centres["nose"], axis=1)
    swollen[:, 2] += 4 * np.exp(-((gap / 12) ** 2))
    errors = {}
    for name, vertices in (("same", mesh.vertices), ("swollen", swollen)):
        write_obj(predictions / name / "1.obj", SurfaceMesh(vertices, mesh.triangles))
        np.savetxt(predictions / name / "keypoints.txt", np.hstack([table.vertices, table.weights]))
        report = realy.evaluate_realy(data, predictions / name, tmp_path / f"out_{name}")
        assert report.coverage == "1/1", report.text
        errors[name] = {row["region"]: row["mean"] for row in report.table}
    assert errors["same"]["all"] < 0.05
    assert errors["swollen"]["nose"] > 0.5 > 2 * errors["swollen"]["forehead"]
