"""Files of one person's photographs: what is used, what is left out and said, what is written."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_joint import seen
from toy import toy_model

import facefit as ff
from facefit import cli, steps
from facefit.errors import NoFaceFound
from facefit.fitting.joint.recipe import fit_together
from facefit.fitting.result import FitResult
from facefit.fitting.stages import FAST
from facefit.observation import Observation

TOGETHER = importlib.import_module("facefit.together_folder")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two photographs of one person, a copy of the first, and one of nobody; landmarks are found by name."""
    found = {"a": seen(1, 7, -20.0), "b": seen(1, 8, 15.0, 180, 200), "copy": seen(1, 7, -20.0)}

    def from_file(path: str | Path, *rest: object) -> Observation:
        path = Path(path)
        if path.stem not in found:
            raise NoFaceFound(f"{path}: no face was found")
        return replace(found[path.stem], path=path)

    monkeypatch.setattr(Observation, "from_file", staticmethod(from_file))
    return {name: tmp_path / f"{name}.png" for name in (*found, "nobody")}


def test_a_photograph_without_a_face_is_left_out_and_said_to_be(photos: dict[str, Path]) -> None:
    joint = ff.reconstruct_together([photos["a"], photos["nobody"], photos["b"]], toy_model(), stages=FAST)
    assert [joint.name(i) for i in range(2)] == ["a.png", "b.png"]
    assert [path.name for path, _ in joint.skipped] == ["nobody.png"]
    assert "2 of 3 photographs are used" in joint.summary() and "no face" in joint.summary()
    direct = fit_together([r.observation for r in joint.results], toy_model(), FAST)
    assert np.array_equal(joint.results[0].scene.identity, direct.results[0].scene.identity)


def test_the_same_picture_twice_counts_once_and_is_noted(photos: dict[str, Path]) -> None:
    joint = ff.reconstruct_together([photos["a"], photos["copy"]], toy_model(), stages=FAST)
    assert len(joint.results) == 1
    assert "is the same picture as" in joint.summary()


def test_no_face_in_any_is_an_error(photos: dict[str, Path]) -> None:
    with pytest.raises(NoFaceFound):
        ff.reconstruct_together([photos["nobody"]] * 2, toy_model(), stages=FAST)


def test_a_folder_for_the_person_and_one_in_it_for_each_photograph(
    photos: dict[str, Path], toy: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(steps, "_is_terminal", lambda: False)

    def write(result: FitResult, folder: Path) -> None:
        (folder / "mesh.obj").write_text("v")
        (folder / "result.json").write_text(json.dumps({"identity": result.scene.identity.tolist()}))

    monkeypatch.setattr(TOGETHER, "write_results", write)
    arguments = [str(photos[name]) for name in ("a", "b", "nobody")]
    arguments += ["--same-person", "--model", toy["model"], "--stages", "fast", "--json"]
    ran = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    (line,) = ran.stdout.splitlines()
    folder = Path(json.loads(line)["folder"])
    assert folder.name == "a_person_facefit"
    assert {path.name for path in folder.iterdir()} == {"neutral.obj", "result.json", "a", "b"}
    assert (folder / "a" / "mesh.obj").exists()
    told = json.loads((folder / "result.json").read_text())
    assert [one["folder"] for one in told["photographs"]["used"]] == ["a", "b"]
    assert {one["landmarks_licence_class"] for one in told["photographs"]["used"]} == {"as given"}
    strange = [one["strangeness"] for one in told["photographs"]["used"]]
    assert all(value > 0 for value in strange)
    assert [one["file"] for one in told["photographs"]["left_out"]] == ["nobody.png"]
    own = json.loads((folder / "a" / "result.json").read_text())
    assert told["person"]["identity"]["value"] == own["identity"]
    # Written again it replaces its own.
    assert CliRunner().invoke(cli.main, arguments, catch_exceptions=False).exit_code == 0


def test_photographs_of_one_name_get_folders_of_their_own(photos: dict[str, Path]) -> None:
    joint = fit_together([seen(1, 7, -20.0), seen(1, 8, 15.0, 180, 200)], toy_model(), FAST)
    same = tuple(
        replace(r, observation=replace(r.observation, path=Path(name)))
        for r, name in zip(joint.results, ("one/Face.jpg", "two/face.png"), strict=True)
    )
    assert len({name.lower() for name in TOGETHER.folder_names(replace(joint, results=same))}) == 2


def test_every_face_and_one_person_do_not_go_together() -> None:
    ran = CliRunner().invoke(cli.main, ["a.png", "b.png", "--same-person", "--face", "all"])
    assert ran.exit_code == 2 and "--same-person" in ran.output


def test_one_photograph_of_one_person_is_an_ordinary_fit(
    toy: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export = importlib.import_module("facefit.export")
    monkeypatch.setattr(export, "write_results", lambda result, folder: [])
    arguments = [toy["photo"], "--same-person", "--model", toy["model"], "--landmarks", toy["landmarks"]]
    ran = CliRunner().invoke(cli.main, [*arguments, "--stages", "fast", "-q"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["toy_facefit"]


def test_pixels_in_memory_are_numbered() -> None:
    joint = fit_together([seen(1, 7, -20.0), seen(1, 8, 15.0, 180, 200)], toy_model(), FAST)
    assert "photograph 2" in joint.summary()
    assert Image.fromarray(joint.results[1].observation.image).size == (180, 200)
