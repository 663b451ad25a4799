"""A verdict is never better for worse evidence, and says in words what it rests on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_recipe import TRUTH, observe
from toy import toy_model

from facefit.fitting.recipe import fit
from facefit.fitting.result import FitResult, Status
from facefit.fitting.stages import FAST
from facefit.fitting.uncertainty import MISMATCH, face_parts, in_words, part_sigma_mm
from facefit.fitting.verdict import (
    GOOD_MM,
    TYPICAL_STRANGENESS,
    USABLE_MM,
    Verdict,
    expected_error_mm,
    landmark_misfit,
    learnt_share,
    strangeness,
)
from facefit.mesh import vertex_normals
from facefit.report import verdict as report_verdict
from facefit.result_trust import vertex_doubt_mm

GRADES = ("good", "usable", "poor")


@pytest.fixture(scope="module")
def result() -> FitResult:
    return fit(observe(TRUTH), toy_model(), stages=FAST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"landmark_error": 0.2}, "20 % of the eye distance"),
        ({"pixels_used": 0.1}, "only 10 % of the face"),
        ({"photometric_rms": 0.2}, ""),
    ],
)
def test_worse_evidence_gives_no_better_verdict(
    result: FitResult, change: dict[str, float], words: str
) -> None:
    worse = replace(result, **change)  # type: ignore[arg-type]
    assert GRADES.index(worse.verdict.grade) >= GRADES.index(result.verdict.grade)
    assert worse.verdict.expected_mm >= result.verdict.expected_mm - 1e-9
    assert words in worse.verdict.sentence


def test_a_face_at_the_edge_of_the_model_is_said_to_be(result: FitResult) -> None:
    far = replace(result.scene, identity=result.scene.identity + 5)
    assert "edge of what the model can say" in replace(result, scene=far).verdict.sentence


@pytest.mark.parametrize(
    ("sigma_share", "words", "costs"), [(0.03, "", False), (0.05, "+-5 %", False), (0.08, "+-8 %", True)]
)
def test_landmarks_so_unsure_that_a_part_was_missed_cost_a_grade(
    result: FitResult, sigma_share: float, words: str, costs: bool
) -> None:
    """A misfit of the fitted points cannot tell: the fit follows the detector to where no mouth is."""
    seen = result.observation
    covariance = np.tile(np.eye(2) * (sigma_share * seen.interocular_px) ** 2, (68, 1, 1))
    unsure = replace(result, observation=replace(seen, landmark_covariance=covariance)).verdict
    sure = replace(result, observation=replace(seen, landmark_covariance=None)).verdict
    assert ("landmarks are unsure" in unsure.sentence) is bool(words) and words in unsure.sentence
    level, known = (
        0 if v.expected_mm <= GOOD_MM else 1 if v.expected_mm <= USABLE_MM else 2 for v in (unsure, sure)
    )
    assert GRADES.index(unsure.grade) == min(2, level + costs)
    assert GRADES.index(sure.grade) == known and "unsure" not in sure.sentence


def test_a_misfit_counts_in_the_sigmas_of_the_detector(result: FitResult) -> None:
    """Points a sigma off in each direction are a misfit of 1, however large the sigma; further off promises less."""
    fitted, eyes = result.landmarks_fitted, result.observation.interocular_px
    assert fitted is not None
    promised = []
    for sigmas in (1.0, 2.0):
        for sigma_px in (0.02 * eyes, 0.04 * eyes):
            covariance = np.tile(np.eye(2) * (sigma_px**2 - 0.25), (68, 1, 1))
            away = fitted + sigmas * sigma_px * np.array([1.0, -1.0])
            seen = replace(result.observation, landmarks=away, landmark_covariance=covariance)
            assert landmark_misfit(replace(result, observation=seen)) == pytest.approx(sigmas, rel=1e-3)
        off = replace(result, landmarks_fitted=result.observation.landmarks + sigmas * 0.03 * eyes)
        promised.append(expected_error_mm(off))
    assert promised[1] > 1.2 * promised[0]


def test_less_evidence_promises_less(result: FitResult) -> None:
    """The error grows with the square of the spread of shapes that the photograph leaves."""
    promised, left = [], []
    for sigma_px in (0.5, 2.0, 8.0):
        covariance = np.tile(np.eye(2) * sigma_px**2, (68, 1, 1))
        vague = replace(result, observation=replace(result.observation, landmark_covariance=covariance))
        typical = replace(
            vague.scene, identity=vague.scene.identity * TYPICAL_STRANGENESS / strangeness(vague)
        )
        vague = replace(vague, scene=typical, landmarks_fitted=result.observation.landmarks)
        promised.append(expected_error_mm(vague))
        left.append(1 - learnt_share(vague))
    assert promised == sorted(promised) and left == sorted(left)
    assert promised[2] / promised[0] == pytest.approx((left[2] / left[0]) ** 2, rel=0.1)


def test_who_is_unusual_is_promised_less(result: FitResult) -> None:
    """Twice as far from the mean face as the evidence lets expect: misfitted where nothing is seen, too."""
    usual = expected_error_mm(result)
    far = replace(result.scene, identity=2 * result.scene.identity)
    assert expected_error_mm(replace(result, scene=far)) > 1.2 * usual


def test_a_small_face_is_said_to_be(result: FitResult) -> None:
    assert result.observation.interocular_px > 40 and "small" not in result.verdict.sentence
    assert result.observation.landmarks is not None
    smaller = replace(result.observation, landmarks=result.observation.landmarks / 4)
    assert "the face is small" in replace(result, observation=smaller).verdict.sentence


def test_nothing_is_said_twice(result: FitResult) -> None:
    far = replace(result, landmark_error=0.2)
    assert report_verdict(far).count("% of the eye distance") == 1
    assert report_verdict(result).count("% of the eye distance") == 1
    lost = replace(result, stages=(replace(result.stages[-1], status=Status.NOT_FINITE),))
    assert lost.summary().count(Status.NOT_FINITE.value.rstrip(".")) == 1


def test_vaguer_landmarks_promise_less() -> None:
    promised = []
    for sigma_px in (1.0, 4.0, 16.0):
        covariance = np.tile(np.eye(2) * sigma_px**2, (68, 1, 1))
        seen = replace(observe(TRUTH), landmark_covariance=covariance)
        promised.append(fit(seen, toy_model(), stages=FAST).part_sigma_mm["nose"])
    assert promised == sorted(promised)


def test_a_fit_of_nothing_is_poor_and_promises_nothing() -> None:
    nothing = fit(replace(observe(TRUTH), landmarks=None), toy_model(), stages=FAST)
    assert nothing.verdict.grade == "poor" and math.isnan(nothing.verdict.expected_mm)
    assert nothing.part_sigma_mm == {} and "nan" not in nothing.verdict.sentence


def test_the_doubt_shown_of_a_vertex_is_the_inflated_deviation_along_its_normal(result: FitResult) -> None:
    doubt, sigma = vertex_doubt_mm(result), result.vertex_sigma_mm()
    assert doubt is not None and sigma is not None
    inflated = MISMATCH * sigma
    assert (doubt <= inflated.max(1) + 1e-6).all() and (doubt >= inflated.min(1) - 1e-6).all()
    normals = vertex_normals(result.scene.neutral_shape(result.model), result.model.triangles)
    ahead = int(normals[:, 2].argmax())
    assert doubt[ahead] == pytest.approx(inflated[ahead, 2], rel=0.05)


def test_every_vertex_of_the_face_belongs_to_one_part() -> None:
    model = toy_model()
    together = np.sort(np.concatenate(list(face_parts(model).values())))
    np.testing.assert_array_equal(together, np.sort(model.topology.region("face")))


def test_parts_are_told_from_surest_to_least_sure() -> None:
    model = toy_model()
    sigma = torch.rand(model.n_vertices, 3, generator=torch.Generator().manual_seed(0)).numpy()
    told = in_words(part_sigma_mm(model, sigma))
    figures = [float(word.split("+-")[1].split()[0]) for word in told.split(";")[0].split(", ")]
    assert figures == sorted(figures) and "scale is a prior" in told


def test_a_good_fit_with_a_doubt_is_not_praised_for_the_doubt() -> None:
    assert Verdict("good", 1.0, ()).sentence == "good: nothing speaks against it"
    assert Verdict("good", 1.0, ("the face is small",)).sentence == "good, but the face is small"
    assert Verdict("poor", 9.0, ("it is dark", "it is small")).sentence == "poor: it is dark; it is small"
