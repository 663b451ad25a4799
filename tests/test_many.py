"""Many photographs: the same bits as one by one, in order, whatever happens to some of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts import same_scene
from interrupts import hear_interrupts
from toy import observe, toy_model, toy_scene

from facefit.errors import FacefitError, UnreadableInput
from facefit.fitting import many
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.many import called, fit_many, usable_cores
from facefit.fitting.recipe import fit
from facefit.fitting.residual import AbstractResidual
from facefit.fitting.result import FitResult, StageReport
from facefit.fitting.stages import FAST, STANDARD, Stage
from facefit.models.scene import Scene
from facefit.observation import Observation

DEADLY_WIDTH, FAULTY_WIDTH = 201, 203


@dataclass(frozen=True)
class Treacherous(GaussNewton):
    """A solver that kills its process at one photograph, and fails at another."""

    def solve(
        self, residuals: Sequence[AbstractResidual], scene: Scene, free: tuple[str, ...], name: str = ""
    ) -> tuple[Scene, StageReport]:
        if scene.camera.width == DEADLY_WIDTH:
            os._exit(9)
        if scene.camera.width == FAULTY_WIDTH:
            raise ZeroDivisionError("a mistake in the code")
        print("solving")  # noqa: T201 (must not come between the answers)
        return super().solve(residuals, scene, free, name)


def of_width(width: int) -> Observation:
    return observe(toy_scene(1, width=width))


@pytest.fixture
def one_thread() -> object:
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_results_are_bit_for_bit_those_of_single_fits(one_thread: object, tmp_path: Path) -> None:
    """Observations in order, a text file and a missing one between them; a whole fit each."""
    (tmp_path / "text.jpg").write_text("no photograph")
    first, second = observe(toy_scene(1), 0.3), observe(toy_scene(2, yaw=-25.0), jaw=True)
    seen: list[tuple[str, float]] = []
    photos = [first, tmp_path / "text.jpg", second, str(tmp_path / "missing.jpg")]
    model = toy_model()
    outcomes = fit_many(photos, model, STANDARD, jobs=2, progress=lambda *what: seen.append(what))
    assert len(outcomes) == 4
    for photo, outcome in ((first, outcomes[0]), (second, outcomes[2])):
        assert isinstance(outcome, FitResult)
        assert outcome.model is model and outcome.observation is photo
        alone = fit(photo, model, stages=STANDARD)
        assert same_scene(outcome.scene, alone.scene)
        assert [s.cost_after for s in outcome.stages] == [s.cost_after for s in alone.stages]
    for outcome, word in ((outcomes[1], "not a photograph"), (outcomes[3], "no such file")):
        assert isinstance(outcome, UnreadableInput) and word in str(outcome)
    assert [share for _, share in seen] == [0.25, 0.5, 0.75, 1.0]
    assert {what for what, _ in seen} == {
        "photograph 1",
        "photograph 3",
        str(photos[1]),
        str(photos[3]),
    }


@pytest.mark.slow
def test_a_killed_process_and_a_mistake_cost_one_photograph_each() -> None:
    stages = (replace(FAST[0], solver=Treacherous(steps=3)),)
    widths = (220, DEADLY_WIDTH, FAULTY_WIDTH, 222)
    outcomes = fit_many([of_width(width) for width in widths], toy_model(), stages, jobs=1)
    assert [type(outcome) for outcome in outcomes] == [FitResult, FacefitError, FacefitError, FitResult]
    assert "photograph 2: the process that fitted it ended (exit code 9)" in str(outcomes[1])
    assert "photograph 3: ZeroDivisionError: a mistake in the code" in str(outcomes[2])
    assert any("test_many.py" in note for note in getattr(outcomes[2], "__notes__", []))
    assert isinstance(outcomes[3], FitResult) and outcomes[3].observation.width == 222


def test_in_batches_each_photograph_has_its_own_result_or_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a CUDA model, on the CPU; two at a time, the second batch spoilt by a wrong photograph."""
    monkeypatch.setattr(many, "BATCH", 2)
    wrong = replace(of_width(222), landmarks=np.zeros((2, 2)))
    photos = [of_width(220), "missing.jpg", of_width(221), wrong, of_width(223)]
    shares: list[float] = []
    model = toy_model()
    outcomes = many.in_batches(photos, model, FAST, "cpu", lambda _, share: shares.append(share))
    assert [type(outcome) for outcome in outcomes] == [
        FitResult,
        UnreadableInput,
        FitResult,
        FacefitError,
        FitResult,
    ]
    assert shares == [0.4, 0.8, 1.0] and str(outcomes[3]).startswith("photograph 4: ")
    for photo, outcome in zip(photos, outcomes, strict=True):
        if isinstance(outcome, FitResult):
            assert outcome.observation is photo
            alone = fit(outcome.observation, model, stages=FAST)
            assert float((outcome.scene.identity - alone.scene.identity).abs().max()) < 0.02


SCRIPT = """
import sys
from dataclasses import replace
sys.path.insert(0, {tests!r})
from toy import observe, toy_model, toy_scene
from facefit.fitting import many

start = many.Worker.__init__
def told(worker):
    start(worker)
    print("worker", worker.process.pid, flush=True)
many.Worker.__init__ = told
many.fit_many([observe(toy_scene(1))] * 500, toy_model(), jobs=2, progress=lambda *_: print("done", flush=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_an_interrupt_ends_everything_at_once(tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"`, interrupted as from a terminal: no process stays behind."""
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    assert script.stdout is not None and script.stderr is not None
    workers = []
    for line in script.stdout:
        if line.startswith("done"):
            break
        workers.append(int(line.split()[1]))
    os.killpg(script.pid, signal.SIGINT)
    began = time.monotonic()
    _, errors = script.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert workers and script.returncode != 0
    assert errors.count("KeyboardInterrupt") == 1, errors
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_no_photographs_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert fit_many([], toy_model()) == []


def test_no_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="jobs = 0"):
        fit_many(["a.jpg"], toy_model(), jobs=0)


def test_a_process_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false" if os.name == "posix" else "where.exe")
    with pytest.raises(FacefitError, match="could not be started"):
        fit_many([of_width(220)], toy_model(), jobs=1)


def test_a_recipe_that_cannot_travel_is_refused_before_anything_starts() -> None:
    class Local(GaussNewton):
        pass

    stages = (Stage("pose", ("rotation",), solver=Local()),)
    with pytest.raises((AttributeError, TypeError), match="Local"):
        fit_many([of_width(220)], toy_model(), stages, jobs=1)


def test_photographs_are_called_by_path_or_place() -> None:
    observation = of_width(220)
    assert called("a.jpg", 3) == "a.jpg" and called(observation, 3) == "photograph 4"
    assert called(replace(observation, path=Path("b.jpg")), 3) == "b.jpg"
    assert usable_cores() >= 1
