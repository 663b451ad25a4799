"""What the README promises exists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facefit import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_every_option_is_in_the_readme_and_the_other_way_round() -> None:
    table = README.split("## On the command line")[1].split("## ")[0]
    promised = set(re.findall(r"`(--[a-z-]+)", table)) | set(re.findall(r"`(-[a-z])`", table))
    real = {name for parameter in cli.fit_photos.params for name in parameter.opts if name.startswith("-")}
    assert promised == real


def test_every_link_leads_somewhere() -> None:
    for text in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / text).read_text("utf-8")):
            assert (ROOT / target).exists(), f"{text}: {target}"


def test_every_benchmark_is_described() -> None:
    from facefit.benchmarks.cli import bench

    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert {
        name for name in bench.commands if f"`{name}`" not in text and f"bench {name} " not in text
    } == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"^    make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_every_model_is_in_the_table_of_licences() -> None:
    from facefit.models import registry

    table = README.split("## Models and licences")[1].split("## ")[0]
    assert set(registry.names()) <= set(re.findall(r"`([a-z0-9-]+)`", table))


@pytest.mark.slow
def test_the_notebook_runs_as_printed(
    astronaut: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut).save("photo.jpg")
    notebook: dict[str, object] = {}
    for cell in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(cell, "README.md", "exec"), notebook)
    assert isinstance(notebook["sigma"], np.ndarray)
    assert "landmarks" in capsys.readouterr().out
    assert {"face.glb", "face.html"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_output_folder_is_as_described(toy: dict[str, str], tmp_path: Path) -> None:
    from click.testing import CliRunner

    out = tmp_path / "out"
    arguments = [toy["photo"], "--model", toy["model"], "--landmarks", toy["landmarks"], "-q", "-o", str(out)]
    assert CliRunner().invoke(cli.main, arguments, catch_exceptions=False).exit_code == 0
    table = README.split("## The output folder")[1].split("## ")[0]
    promised = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([a-z]+\.[a-z]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert promised == {path.name for path in out.iterdir()}
