from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import assert_same_equations, oracle
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.dense_landmarks import DenseLandmarks
from facefit.fitting.recipe import fit
from facefit.fitting.residual import cost, normal_equations
from facefit.fitting.residuals.dense_landmarks import DenseLandmarkResidual, dense_landmark_residual
from facefit.fitting.stages import FAST
from facefit.observation import Observation

MODEL, TRUTH = toy_model(), toy_scene(2)
POINTS = 40


def seen(patterns: int = 3, shift: float = 0.0, shapes: int = 0) -> DenseLandmarks:
    """Points of the true scene, displaced by `shift`, with slanted covariances and orthonormal patterns and shapes."""
    rng = np.random.default_rng(3)
    triangles = rng.integers(0, len(MODEL.topology.triangles), POINTS)
    barycentric = np.full((POINTS, 3), 1 / 3, np.float32)
    corners = torch.from_numpy(MODEL.topology.triangles[triangles].astype(np.int64))
    places = TRUTH.shape(MODEL)[corners].mean(1)
    pixels = TRUTH.camera.project(TRUTH.pose.apply(places)).double().numpy() + shift
    whitening = np.linalg.inv(np.tril(rng.normal(size=(POINTS, 2, 2))) + 2 * np.eye(2))
    basis = np.linalg.qr(rng.normal(size=(2 * POINTS, patterns)))[0].T.reshape(patterns, POINTS, 2)
    axes = np.linalg.qr(rng.normal(size=(2 * POINTS, shapes)))[0].T.reshape(shapes, POINTS, 2)
    variances = np.array([40.0, 9.0, 4.0])[:patterns]
    return DenseLandmarks(
        MODEL.name, triangles, barycentric, pixels, whitening, pixels + rng.normal(size=(POINTS, 2)),
        basis, variances, 0.5, axes, -0.5 * axes,
    )  # fmt: skip


def term(dense: DenseLandmarks) -> DenseLandmarkResidual:
    found = dense_landmark_residual(replace(observe(TRUTH), dense=dense), MODEL)
    assert found is not None
    return found


def test_exact_points_cost_nothing() -> None:
    assert cost(term(seen()), TRUTH) == pytest.approx(0, abs=1e-4)


def test_the_fast_way_equals_the_oracle() -> None:
    residual = term(seen(shift=3.0, shapes=4)).freeze(TRUTH)
    free = ("rotation", "translation", "focal", "identity", "expression")
    assert_same_equations(normal_equations(residual, TRUTH, free), oracle(residual, TRUTH, free), 1e-5)


def test_errors_of_the_stated_covariance_come_out_independent() -> None:
    """T C T^T = I, with C the covariance that floor, patterns and variances say."""
    residual = term(seen())
    flat = residual.flat(residual.seen.patterns)
    covariance = 0.5 * np.eye(2 * POINTS) + flat.T @ np.diag(np.array([40.0, 9.0, 4.0]) - 0.5) @ flat
    transform = residual.decorrelated(np.eye(2 * POINTS))
    np.testing.assert_allclose(transform @ covariance @ transform.T, np.eye(2 * POINTS), atol=1e-9)


def test_a_shared_error_is_believed_less_than_as_many_errors_of_their_own() -> None:
    """One shift of all points, which is one of the patterns, costs its share of one observation."""
    even = np.full((1, POINTS, 2), 1 / np.sqrt(2 * POINTS))
    base = replace(seen(0), whitening=np.tile(np.eye(2), (POINTS, 1, 1)), floor=1.0)
    shared = replace(base, patterns=even, variances=np.array([2.0 * POINTS]), pixels=base.pixels + 1.0)
    alone = replace(base, pixels=base.pixels + 1.0)
    assert cost(term(alone), TRUTH) == pytest.approx(POINTS, rel=1e-3)
    assert cost(term(shared), TRUTH) == pytest.approx(0.5, rel=1e-3)


def test_a_network_that_says_half_of_what_it_sees_is_understood() -> None:
    """Points half way to those of an earlier fit, with the response that says so, are no evidence against the truth."""
    exact = seen(0)
    reference = exact.pixels + np.random.default_rng(4).normal(size=(POINTS, 2)) * 3
    every = np.eye(2 * POINTS).reshape(2 * POINTS, POINTS, 2)
    half = replace(
        exact,
        pixels=0.5 * (exact.pixels + reference),
        reference=reference,
        shapes=every,
        response=-0.5 * every,
    )
    assert cost(term(half), TRUTH) == pytest.approx(0, abs=1e-3)
    assert cost(term(replace(half, shapes=every[:0], response=every[:0])), TRUTH) > 1.0


def test_points_of_another_model_do_not_speak() -> None:
    dense = replace(seen(), model="another")
    assert dense_landmark_residual(replace(observe(TRUTH), dense=dense), MODEL) is None


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        replace(seen(), pixels=np.full((POINTS, 2), np.nan))


def test_a_fit_uses_them_without_any_landmark() -> None:
    blank = observe(TRUTH)
    bare = Observation(blank.image, blank.camera, focal_sigma=0.0)
    start = TRUTH.with_packed(("identity", "expression"), 0 * TRUTH.pack(("identity", "expression")))
    result = fit(replace(bare, dense=seen(0)), MODEL, start, FAST)

    def miss(scene: object) -> float:
        pixels = scene.camera.project(scene.pose.apply(MODEL.landmark_points(scene.shape(MODEL))))  # type: ignore[attr-defined]
        return float(np.abs(pixels.numpy() - landmarks_of(TRUTH)).mean())

    assert miss(result.scene) < 0.3 * miss(start)
