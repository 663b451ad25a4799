"""The command line: what it prints, where it writes, how it ends."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from facefit import cli, steps
from facefit.errors import UnreadableInput
from facefit.fitting.result import FitResult

# By name: `facefit.export` and `facefit.reconstruct` are functions that hide their modules.
EXPORT = importlib.import_module("facefit.export")
RECONSTRUCT = importlib.import_module("facefit.reconstruct")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`facefit` in an empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(steps, "_is_terminal", lambda: False)
    return lambda *args: CliRunner().invoke(cli.main, [str(a) for a in args], catch_exceptions=False)


@pytest.fixture(autouse=True)
def brief_results(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Two small files instead of all, which take a second: what is in them has tests of its own."""

    def write(result: FitResult, folder: Path) -> list[tuple[str, str]]:
        (folder / "mesh.obj").write_text("v 0 0 0")
        (folder / "result.json").write_text(json.dumps({"facefit": {}}))
        return [("mesh.obj", "a mesh"), ("result.json", "all numbers")]

    if "complete" not in request.node.name:
        monkeypatch.setattr(EXPORT, "write_results", write)


@pytest.fixture
def fitting(toy: dict[str, str]) -> list[str]:
    """Arguments that fit the toy photograph with the toy model in a moment."""
    return [toy["photo"], "--model", toy["model"], "--landmarks", toy["landmarks"], "--stages", "fast"]


def here() -> list[str]:
    return sorted(os.listdir("."))


def test_a_photograph_becomes_a_complete_folder_named_after_it(run: Run, fitting: list[str]) -> None:
    result = run(*fitting)
    assert result.exit_code == 0, result.output
    assert here() == ["toy_facefit"]
    written = set(os.listdir("toy_facefit"))
    assert {
        "result.json",
        "params.npz",
        "mesh.obj",
        "neutral.obj",
        "face.glb",
        "overlay.png",
        "report.html",
    } <= written
    lines = result.stdout.splitlines()
    assert lines[0] == f"toy_facefit{os.sep}"
    told = {line.split()[0] for line in lines[1 : len(written) + 1]}
    assert told == written  # one line a file, and a line for each
    assert "landmarks" in result.stdout  # then the summary


def test_the_folder_is_as_readable_as_any_other(run: Run, fitting: list[str]) -> None:
    run(*fitting)
    os.mkdir("plain")
    assert os.stat("toy_facefit").st_mode == os.stat("plain").st_mode


def test_quiet_says_nothing(run: Run, fitting: list[str]) -> None:
    result = run(*fitting, "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert here() == ["toy_facefit"]


def test_of_many_results_a_line_each_and_their_terms_once(
    run: Run, toy: dict[str, str], astronaut: np.ndarray
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(astronaut[:300, 80:380]).save(name)
    result = run("a.png", "b.png", "--model", toy["model"], "--stages", "fast")
    assert result.exit_code == 0, result.output
    a, b, terms, count = result.stdout.splitlines()
    assert a.startswith(f"{Path('a_facefit') / 'report.html'}: ") and b.startswith("b_facefit")
    assert a.split(": ", 1)[1].split(":")[0].split(",")[0] in ("good", "usable", "poor")
    assert "landmarks by dlib (non-commercial)" in terms and count == "2 of 2 photographs fitted"


def test_output_names_the_folder(run: Run, fitting: list[str]) -> None:
    assert run(*fitting, "-q", "-o", "deep/down").exit_code == 0
    assert (Path("deep/down") / "result.json").is_file()
    assert os.listdir("deep") == ["down"]


def test_json_is_one_object_a_line_on_standard_output(run: Run, fitting: list[str]) -> None:
    result = run(*fitting, "--json")
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert told["exit_code"] == 0 and told["verdict"] in ("good", "usable", "poor")
    assert told["folder"] == "toy_facefit"
    assert set(told["files"]) == set(os.listdir("toy_facefit"))


def test_a_failed_photograph_does_not_stop_the_others(
    run: Run, toy: dict[str, str], landscape: np.ndarray
) -> None:
    Image.fromarray(landscape).save("hills.png")
    result = run("gone.jpg", "hills.png", "--model", toy["model"], "--json")
    assert result.exit_code == 4  # the worse of 4 and 3
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(t["photo"], t["exit_code"]) for t in told] == [("gone.jpg", 4), ("hills.png", 3)]
    assert result.stderr.count("facefit: ") == 2
    assert here() == ["hills.png"]


def test_an_error_of_our_own_in_one_photograph_spares_the_others(
    run: Run, toy: dict[str, str], landscape: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, *args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(RECONSTRUCT, "reconstruct", broken)
    result = run("a.png", "b.png", "--model", toy["model"])
    assert result.exit_code == 1
    assert result.stderr.count("please report it: ZeroDivisionError('surprise')") == 2
    assert "Traceback" in result.stderr


def test_a_second_run_replaces_the_result_and_keeps_what_the_user_added(run: Run, fitting: list[str]) -> None:
    run(*fitting, "-q")
    Path("toy_facefit/notes.txt").write_text("mine")
    Path("toy_facefit/mesh.obj").write_text("spoiled")
    assert run(*fitting, "-q").exit_code == 0
    assert Path("toy_facefit/notes.txt").read_text() == "mine"
    assert Path("toy_facefit/mesh.obj").read_text() != "spoiled"
    assert here() == ["toy_facefit"]


def test_a_folder_that_is_no_result_is_not_touched(run: Run, fitting: list[str]) -> None:
    os.mkdir("toy_facefit")
    Path("toy_facefit/thesis.tex").write_text("years of work")
    result = run(*fitting)
    assert result.exit_code == 4
    assert "exists and is not a facefit result" in result.stderr
    assert os.listdir("toy_facefit") == ["thesis.tex"]
    assert here() == ["toy_facefit"]


def test_the_current_folder_is_never_replaced(run: Run, fitting: list[str]) -> None:
    assert run(*fitting, "-o", ".").exit_code == 4
    assert here() == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Usage: "),
        (["a.jpg", "--face", "none"], "neither 'largest', 'all' nor a number"),
        (["a.jpg", "--face", "0"], "neither 'largest', 'all' nor a number"),
        (["a.jpg", "--fov", "200"], "not in the range"),
        (["a.jpg", "--stages", "slow"], "is not one of"),
        (["a.jpg", "--threads", "0"], "not in the range"),
        (["a.jpg", "--surprise"], "No such option"),
        (["a.jpg", "b.jpg", "--landmarks", "a.pts"], "one face of one photograph"),
        (["a.jpg", "--face", "all", "--landmarks", "a.pts"], "one face of one photograph"),
        (["a.jpg", "b.jpg", "--mask", "m.png"], "belongs to one photograph"),
        (["x/a.jpg", "y/a.png"], "would both be written"),
        (["model"], "did you mean `facefit models`?"),
        (["modles", "list"], "did you mean `facefit models`?"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_fault(run: Run, args: list[str], said: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_missing_model_ends_with_5_before_any_photograph(run: Run) -> None:
    result = run("a.jpg", "--model", "none")
    assert result.exit_code == 5
    assert result.stderr.count("facefit: ") == 1


def test_what_is_nearly_a_name_is_told_from_a_missing_file(run: Run, toy: dict[str, str]) -> None:
    assert "did you mean 'builtin'?" in run("a.jpg", "--model", "biltin").stderr
    assert "did you mean" not in run("a.jpg", "--model", "mine.npz").stderr
    Path("model").write_text("")
    assert "is not a photograph" in run("model", "--model", toy["model"]).stderr
    result = run(toy["photo"], "--model", toy["model"], "--landmarks", "dlip")
    assert result.exit_code == 4 and "neither 'dlib', 'facefit' nor a file" in result.stderr


def test_options_may_come_before_the_photograph(run: Run, fitting: list[str]) -> None:
    assert run("-q", *fitting[1:], fitting[0]).exit_code == 0


def test_threads_reach_torch(run: Run, fitting: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(variable, "7")
    run(*fitting, "-q", "--threads", "1")
    assert counts == [1]
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_help_names_every_option_and_the_other_commands(run: Run) -> None:
    for args in (["--help"], ["-h"], ["fit", "--help"]):
        page = run(*args).stdout
        for word in (
            "PHOTO...",
            "--landmarks",
            "--face",
            "--fov",
            "facefit models",
            "facefit bench",
            "Exit codes",
        ):
            assert word in page
    assert run("--version").stdout.startswith("facefit ")


def test_the_package_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "facefit", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told.stdout.startswith("facefit ")


@pytest.mark.parametrize("group", ["models", "bench"])
def test_the_groups_answer_for_help(run: Run, group: str) -> None:
    pytest.importorskip(cli.GROUPS[group][0], reason=f"facefit {group} is not there yet")
    assert run(group, "--help").exit_code == 0


def test_an_error_in_a_group_is_a_sentence_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def group() -> None:
        raise UnreadableInput("the scan is missing")

    monkeypatch.setitem(cli.GROUPS, "bench", (__name__, "group"))
    monkeypatch.setattr(sys.modules[__name__], "group", group, raising=False)
    result = run("bench")
    assert (result.exit_code, result.stderr) == (4, "facefit: the scan is missing\n")


def test_every_face_gets_a_folder_of_its_own(run: Run, toy: dict[str, str], astronaut: np.ndarray) -> None:
    pair = Image.new("RGB", (460, 260), (90, 90, 90))
    head = Image.fromarray(astronaut[20:260, 120:340])
    pair.paste(head, (5, 10))
    pair.paste(head, (235, 10))
    pair.save("pair.png")
    result = run("pair.png", "--face", "all", "--model", toy["model"], "--stages", "fast", "-q")
    assert result.exit_code == 0, result.output
    assert here() == ["pair.png", "pair_1_facefit", "pair_2_facefit"]


def test_a_folder_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), cli.whole_folder(tmp_path / "new") as partial:
        (partial / "half.obj").write_text("v 0 0")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), cli.whole_folder(tmp_path / "new"):
        open("/nonexistent/template.html").close()


def test_a_failed_swap_puts_the_old_result_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "photo_facefit"
    old.mkdir()
    (old / "result.json").write_text('{"facefit": {}}')
    real = Path.replace

    def fails_once(self: Path, target: Path) -> Path:
        if "partial" in os.listdir(self) if self.is_dir() else False:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fails_once)
    with pytest.raises(UnreadableInput, match="No space left"), cli.whole_folder(old) as partial:
        (partial / "partial").write_text("")
    assert os.listdir(tmp_path) == ["photo_facefit"]
    assert os.listdir(old) == ["result.json"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a terminal is imitated by a pty")
def test_a_terminal_sees_a_bar_and_a_pipe_the_result(toy: dict[str, str], tmp_path: Path) -> None:
    import pty

    seen_by_user, terminal = pty.openpty()
    options = ["--model", toy["model"], "--landmarks", toy["landmarks"], "--stages", "fast"]
    command = [sys.executable, "-m", "facefit.cli", toy["photo"], *options]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    seen = b""
    while True:
        try:
            data = os.read(seen_by_user, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not data:
            break
        seen += data
    piped, _ = running.communicate(timeout=120)
    os.close(seen_by_user)
    assert running.returncode == 0
    assert piped.startswith(f"toy_facefit{os.sep}")
    assert "\x1b" not in piped
    assert b"toy.png: writing" in seen
    assert b"result.json" not in seen
