"""The machinery of benchmarks: nothing is lost, nothing stale is taken up, failures have names; statistics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from facefit.benchmarks.meshfiles import SurfaceMesh, read_landmarks, read_mesh, read_picked_points, write_ply
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, plain, run_items, write_json
from facefit.benchmarks.statistics import median_interval, pooled
from facefit.benchmarks.tables import renew, save
from facefit.errors import UnreadableInput


@dataclass(frozen=True)
class Square:
    """Squares its key, counts its calls in a file, and fails at what it is told to."""

    log: Path
    bad: str = ""
    interrupt: str = ""

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        with self.log.open("a") as file:
            file.write(key + "\n")
        if key == self.interrupt:
            raise KeyboardInterrupt
        if key == self.bad:
            raise UnreadableInput(f"{key}: no such file")
        return {"square": int(key) ** 2}, {"numbers": np.arange(int(key))}


KEYS = ["1", "2", "3", "4"]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run, log = Run(tmp_path / "out", {"x": 1}), tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        run_items(run, KEYS, Square(log, interrupt="3"))
    rows = run_items(run, KEYS, Square(log))
    assert [row["square"] for row in rows] == [1, 4, 9, 16]
    assert log.read_text().split() == ["1", "2", "3", "3", "4"]
    assert len(run.arrays("4")["numbers"]) == 4


def test_a_failed_item_is_named_and_tried_again(tmp_path: Path) -> None:
    run, log = Run(tmp_path / "out", {}), tmp_path / "log"
    rows = run_items(run, KEYS, Square(log, bad="2"))
    assert [bool(row["error"]) for row in rows] == [False, True, False, False]
    assert rows[1]["error"] == "2: no such file"
    assert run_items(run, KEYS, Square(log))[1]["square"] == 4
    assert log.read_text().split() == [*KEYS, "2"]


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_items(Run(tmp_path / "out", {"x": 1}), ["1"], Square(log))
    run_items(Run(tmp_path / "out", {"x": 2}), ["1"], Square(log))
    assert log.read_text().split() == ["1", "1"]


def test_processes_give_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    rows = run_items(Run(tmp_path / "out", {}), KEYS, Square(tmp_path / "log", bad="3"), jobs=2)
    assert [row.get("square") for row in rows] == [1, 4, None, 16]
    assert rows[2]["error"] == "3: no such file"


def test_json_holds_no_nan(tmp_path: Path) -> None:
    value = {"a": np.float32("nan"), "b": np.arange(2), "c": Path("x"), "d": (True, np.int64(3))}
    write_json(tmp_path / "v.json", value)
    assert json.loads((tmp_path / "v.json").read_text()) == {"a": None, "b": [0, 1], "c": "x", "d": [True, 3]}
    assert plain(np.bool_(True)) is True


def test_pooling_weighs_vertices_not_images() -> None:
    assert pooled([np.zeros(9), np.ones(1)])["mean"] == pytest.approx(0.1)
    assert pooled([]) == {"images": 0, "median": None, "mean": None, "std": None}


def test_the_interval_of_the_median_covers_it_and_narrows_with_subjects() -> None:
    rng = np.random.default_rng(0)

    def interval(subjects: int) -> tuple[float, float]:
        data = {str(s): [np.abs(rng.normal(size=500)) + rng.normal() * 0.1 + 1] for s in range(subjects)}
        found = median_interval(data)
        assert found is not None
        return found

    few, many = interval(5), interval(60)
    truth = 1 + 0.6745
    assert many[0] < truth < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert median_interval({"a": [np.ones(3)], "b": [np.ones(3)]}) is None


def report(**row: object) -> Report:
    rows: list[Row] = [{"item": "a", "error": None, "v": 1.0}, {"item": "b", "error": "broken", "v": None}]
    return Report("Head.", {"benchmark": "x"}, rows, [{"v": 1.0, **row}], {"v": "value", "w": "other"})


def test_a_report_counts_and_names_what_failed(tmp_path: Path) -> None:
    report().write(tmp_path)
    assert "Coverage 1/2" in report().text and "- b: broken" in report().text
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["failures"] == [{"item": "b", "error": "broken"}] and value["provenance"]["python"]
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == "item,error,v"


def test_tables_of_a_document_are_made_from_results(tmp_path: Path) -> None:
    report().write(tmp_path / "out")
    save(tmp_path / "out", tmp_path / "results" / "toy.json")
    assert "rows" not in json.loads((tmp_path / "results" / "toy.json").read_text())
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- bench:toy -->\nold\n<!-- /bench -->\nafter\n")
    assert renew(document, tmp_path / "results") == ["toy"]
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| value |" in text and "other" not in text
    renew(document, tmp_path / "results")
    assert document.read_text() == text


TRIANGLE = SurfaceMesh(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]]), np.array([[0, 1, 2]]))


def test_meshes_survive_writing_and_reading(tmp_path: Path) -> None:
    write_ply(tmp_path / "t.ply", TRIANGLE)
    (tmp_path / "t.obj").write_text("v 0 0 0 0.5 0.5 0.5\nv 1 0 0\nv 0 1 0.5\nvt 0 0\nf 1/1 2/1 -1/1\n")
    (tmp_path / "ascii.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float y\nproperty float x\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n0 1 0\n1 0 0.5\n3 0 1 2\n"
    )
    for name in ("t.ply", "t.obj", "ascii.ply"):
        mesh = read_mesh(tmp_path / name)
        np.testing.assert_array_equal(mesh.vertices, TRIANGLE.vertices)
        np.testing.assert_array_equal(mesh.triangles, TRIANGLE.triangles)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.obj", "v 0 0\n", "not a readable OBJ"),
        ("b.obj", "v 0 0 nan\nv 0 0 1\nv 1 0 0\nf 1 2 3\n", "1 of 3 vertices are NaN"),
        ("c.obj", "v 0 0 0\nv 0 0 1\nv 1 0 0\nf 1 2 9\n", "outside 0..2"),
        ("d.ply", "nothing", "not a readable PLY"),
        (
            "e.ply",
            "ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nend_header\n",
            "PLY",
        ),
        ("f.stl", "solid", "read from .obj, .ply and .wrl"),
        ("g.obj", "", "no vertices"),
        ("h.wrl", "#VRML V2.0 utf8", "no point"),
    ],
)
def test_a_broken_mesh_is_refused_with_its_name(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableInput, match=f"{name}.*{said}"):
        read_mesh(tmp_path / name)


def test_a_picked_point_that_is_no_number_is_refused_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "scan.pp"
    path.write_text('<point x="abc" y="1" z="2"/>' * 7)
    with pytest.raises(UnreadableInput, match=r"scan\.pp: a picked point is not three numbers"):
        read_picked_points(path)


def test_landmark_files_are_read_in_every_published_form(tmp_path: Path) -> None:
    points = np.arange(21, dtype=float).reshape(7, 3)
    np.save(tmp_path / "a.npy", points[None])
    np.savetxt(tmp_path / "a.txt", points)
    lines = [f'<point y="{y}" x="{x}" z="{z}" active="1" name="0"/>' for x, y, z in points]
    (tmp_path / "a.pp").write_text("<PickedPoints>\n" + "\n".join(lines) + "\n</PickedPoints>")
    for found in (
        read_landmarks(tmp_path / "a.npy"), read_landmarks(tmp_path / "a.txt"), read_picked_points(tmp_path / "a.pp")
    ):  # fmt: skip
        np.testing.assert_array_equal(found, points)
    np.save(tmp_path / "b.npy", points[:5])
    with pytest.raises(UnreadableInput, match="b.npy.*seven"):
        read_landmarks(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.array({"a": 1}, object))
    with pytest.raises(UnreadableInput, match="c.npy"):
        read_landmarks(tmp_path / "c.npy")
