"""Many photographs at once against one after the other: the same faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_recipe import TRUTH, observe
from toy import toy_model, toy_scene

from facefit.fitting.batched.geometry import Scenes, camera_rotations
from facefit.fitting.batched.recipe import fit_batched, stage_terms
from facefit.fitting.batched.solver import normal_equations
from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.recipe import fit, priors, terms
from facefit.fitting.residual import linearised
from facefit.fitting.result import Status
from facefit.fitting.stages import FAST, STANDARD
from facefit.models.camera import Pose
from facefit.observation import Observation
from facefit.rendering.rasterize import nearest_depth, nearest_depth_torch


def photographs() -> list[Observation]:
    """Three that differ in everything a batch could mix up: size, landmarks, known focal length."""
    second = observe(toy_scene(9, yaw=-20), focal_sigma=0.3, jaw=True)
    assert second.landmarks is not None
    some = second.landmarks.copy()
    some[[20, 40, 60]] = np.nan
    return [
        observe(TRUTH, focal_sigma=0.3, jaw=True),
        replace(second, landmarks=some),
        observe(toy_scene(3, yaw=15), focal_sigma=0.0),
    ]


@pytest.mark.parametrize("stage", STANDARD, ids=lambda stage: stage.name)
def test_the_normal_equations_are_those_of_each_photograph(stage) -> None:
    """Term by term the same arithmetic: equal to float32's rounding, scaled by each unknown's own precision."""
    model, observations = toy_model(), photographs()[:2]
    scenes = [fit(o, model, stages=FAST).scene for o in observations]
    levels = [
        face_pyramid(o, [stage.photometric_px])[0] if stage.photometric_px else None for o in observations
    ]
    batch = Scenes.of(scenes, "cpu")
    all_terms = stage_terms(stage, observations, model, batch, levels if stage.photometric_px else None)
    with torch.no_grad():
        matrix, gradient, cost = normal_equations([t.freeze(batch) for t in all_terms], batch, stage.free)
    for b, (scene, observation) in enumerate(zip(scenes, observations, strict=True)):
        parts = [*terms(stage, observation, model, levels[b]), *priors(stage, observation)]
        # Those of a step. The posterior's say more: both steps leave out what a second mix of the colours says of
        # the shape, up to 0.006 of an expression's curvature with an albedo.
        wanted = linearised(scene, [part.freeze(scene) for part in parts], stage.free)
        assert float(cost[b]) == pytest.approx(wanted.cost, rel=1e-4)
        scale = wanted.matrix.diagonal().sqrt()
        difference = (matrix[b] - wanted.matrix) / scale[:, None] / scale[None]
        assert float(difference.abs().max()) < 1e-4
        assert float(((gradient[b] - wanted.gradient) / scale).abs().max()) < 1e-3


def test_a_batch_gives_the_single_fits() -> None:
    model, observations = toy_model(), photographs()
    for together, observation in zip(
        fit_batched(observations, model, device="cpu"), observations, strict=True
    ):
        alone = fit(observation, model)
        apart = (together.scene.shape(model) - alone.scene.shape(model)).norm(dim=1)
        # Medians of an even number of samples differ between the two, and with them sigma in the third digit.
        assert float(apart.max()) < 0.3 and float(apart.median()) < 0.1
        assert together.landmark_error == pytest.approx(alone.landmark_error, abs=1e-3)
        assert together.photometric_rms == pytest.approx(alone.photometric_rms, abs=2e-3)


def test_the_company_does_not_matter() -> None:
    model, observations = toy_model(), photographs()
    forwards = fit_batched(observations, model, device="cpu")
    backwards = fit_batched(observations[::-1], model, device="cpu")[::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert float((a.scene.shape(model) - b.scene.shape(model)).norm(dim=1).max()) < 0.02


def test_a_known_focal_length_stays() -> None:
    model, observations = toy_model(), photographs()
    known = fit_batched(observations, model, device="cpu")[2]
    assert float(known.scene.camera.focal_px) == pytest.approx(float(TRUTH.camera.focal_px), rel=1e-4)


def test_photographs_without_landmarks_have_nothing_to_fit_by_landmarks() -> None:
    bare = [replace(o, landmarks=None) for o in photographs()]
    for result in fit_batched(bare, toy_model(), stages=FAST, device="cpu"):
        assert result.status is Status.NOTHING_TO_FIT


def test_rotations_are_those_of_a_pose() -> None:
    w = torch.tensor([[0.0, 0.0, 0.0], [1e-5, -2e-5, 1e-5], [0.4, -1.2, 0.3], [0.0, 1.5, 0.0]])
    rotations, right = camera_rotations(w)
    for vector, rotation, jacobian in zip(w, rotations, right, strict=True):
        torch.testing.assert_close(
            rotation, Pose(vector, torch.zeros(3)).camera_from_model, atol=1e-6, rtol=0
        )
        # exp(w + d) = exp(w) exp(J d), by a central difference of step 1e-3; float32 rotations are good to 1e-7,
        # a ten-thousandth of the step.
        for axis in torch.eye(3):
            d = 1e-3 * axis
            ahead, _ = camera_rotations((vector + d)[None].double())
            behind, _ = camera_rotations((vector - d)[None].double())
            turned = (rotation.double().T @ (ahead[0] - behind[0])) / 2e-3
            found = torch.stack([turned[2, 1], turned[0, 2], turned[1, 0]])
            torch.testing.assert_close(found, (jacobian @ axis).double(), atol=1e-4, rtol=0)


def test_many_z_buffers_are_each_ones_own() -> None:
    """Meshes that reach over the rim of their picture are not drawn into their neighbours'."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 40, 2, generator=generator) * 40 - 8
    depth = torch.rand(3, 40, generator=generator) + 1
    triangles = torch.randint(0, 40, (60, 3), generator=generator)
    torch.testing.assert_close(
        nearest_depth_torch(pixels, depth, triangles, 24), nearest_depth(pixels, depth, triangles, 24)
    )
