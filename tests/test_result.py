from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy import observe, toy_model, toy_scene

from facefit.fitting.result import FitResult, StageReport, Status
from facefit.picture import render


def result(*statuses: Status) -> FitResult:
    scene = toy_scene()
    stages = tuple(
        StageReport(f"stage {k}", status, 2, {"a": 2.0}, {"a": 1.0}, 0.25)
        for k, status in enumerate(statuses)
    )
    return FitResult(scene, toy_model(), observe(scene), stages)


@pytest.mark.parametrize("status", Status)
def test_a_status_is_a_sentence(status: Status) -> None:
    assert status.value[0].isupper() and status.value.endswith(".") and len(status.value) > 15


def test_what_could_not_be_fitted_is_not_ok() -> None:
    fine = {Status.CONVERGED, Status.STEPS_USED, Status.NO_DESCENT, Status.NO_DETAIL}
    assert {status for status in Status if status.ok} == fine


def test_the_result_ends_as_its_last_stage_did() -> None:
    assert result(Status.STEPS_USED, Status.CONVERGED).status is Status.CONVERGED
    assert result(Status.CONVERGED, Status.NO_DESCENT).status is Status.NO_DESCENT
    assert result().status is Status.NOTHING_TO_FIT


def test_times_add_up() -> None:
    assert result(Status.CONVERGED, Status.CONVERGED).seconds == pytest.approx(0.5)


def test_the_summary_says_how_it_ended_where_the_head_is_and_what_the_licence_is() -> None:
    found = replace(
        result(Status.CONVERGED),
        landmark_error=0.021,
        photometric_rms=0.04,
        warnings=("The scale is a guess.",),
    )
    summary = found.summary()
    assert summary.startswith(Status.CONVERGED.value)
    for words in (
        "2.1 %",
        "10.2 grey levels",
        "+12 deg",
        "pitch -5",
        "roll +4",
        "30 deg",
        "CC0-1.0",
        "The scale",
    ):
        assert words in summary


def test_the_summary_survives_numbers_that_do_not_apply() -> None:
    lines = result().summary().splitlines()
    assert lines[0] == Status.NOTHING_TO_FIT.value and len(lines) == 5
    assert lines[4].startswith("verdict: poor")
    assert "nan" not in lines[1] and lines[1].endswith(" ms")


def test_what_a_notebook_shows_is_a_line_with_a_name_not_every_number() -> None:
    found = result(Status.CONVERGED)
    named = replace(found, observation=replace(found.observation, path=Path("folder/me.jpg")))
    for shown, words in (
        (repr(found), Status.CONVERGED.value),
        (repr(named), "me.jpg"),
        (repr(named.observation), f"{named.observation.width} x {named.observation.height} px"),
        (repr(found.model), f"{found.model.n_vertices} vertices"),
        (repr(render(found.scene, found.model)), "% of them face"),
    ):
        assert words in shown and len(shown) < 200 and "\n" not in shown
