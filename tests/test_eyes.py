"""The colour of the irises comes from the photograph, and nothing else moves with it but the gaze (`test_gaze`)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from toy import photograph, toy_model, toy_scene

from facefit.expressions import part_of
from facefit.fitting import fit
from facefit.fitting.eyes import with_eyes
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.models.builtin import load
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting
from facefit.models.scene import BLOCKS, Scene
from facefit.observation import Observation
from facefit.picture import render

# The built-in model's modes of the whole eye's shade and of the iris: brown below, blue above.
SHADE, BLUE = 22, 23


@lru_cache(maxsize=1)
def model() -> LinearFaceModel:
    return load()


def scene(shade: float, blue: float, **activations: float) -> Scene:
    random = torch.Generator().manual_seed(4)
    albedo = 0.6 * torch.randn(model().n_albedo, generator=random)
    albedo[[SHADE, BLUE]] = torch.tensor([shade, blue])
    expression = torch.zeros(model().n_expression)
    for name, activation in activations.items():
        at = model().expression_names.index(name)
        expression[at] = activation / float(model().expression_unit[at])
    return Scene(
        identity=0.7 * torch.randn(model().n_identity, generator=random),
        expression=expression,
        albedo=albedo,
        pose=Pose(torch.tensor([0.05, 0.3, 0.02]), torch.tensor([0.0, 10.0, 620.0])),
        camera=Camera.from_field_of_view(320, 320, 26.0),
        lighting=Lighting.directional(torch.tensor([0.4, 0.3, 1.0]), 0.8, 0.5),
    )


def observed(truth: Scene) -> Observation:
    color = render(truth, model(), 640, 640).color.reshape(320, 2, 320, 2, 3).mean((1, 3)).clamp(0, 1).numpy()
    noise = np.random.default_rng(0).normal(0, 0.01, color.shape)
    image = ((color + noise).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    points = model().landmark_points(truth.shape(model()))
    return Observation(image, truth.camera, truth.camera.project(truth.pose.apply(points)).numpy())


def level_of(observation: Observation) -> PyramidLevel:
    return face_pyramid(observation, [256])[0]


def without_eyes(truth: Scene) -> Scene:
    """What a fit knows before it looks at the eyes: straight ahead, open, of the mean's colour."""
    straight = scene(0.0, 0.0)
    return replace(truth, albedo=straight.albedo, expression=straight.expression)


@pytest.mark.parametrize("shade", [-2.5, 1.3])
@pytest.mark.parametrize("blue", [-1.0, 0.0, 1.5, 3.0])
def test_the_eyes_of_a_rendering_come_back(shade: float, blue: float) -> None:
    truth = scene(shade, blue)
    found = with_eyes(without_eyes(truth), model(), level_of(observed(truth)))[0]
    # A deviation of shade is 18 % of the eye's brightness.
    assert abs(float(found.albedo[SHADE]) - shade) < 0.9
    assert abs(float(found.albedo[BLUE]) - blue) < 0.6


@pytest.mark.parametrize("blue", [-1.0, 3.0])
@pytest.mark.parametrize("side", [("eyeLookInLeft", "eyeLookOutRight"), ("eyeLookOutLeft", "eyeLookInRight")])
def test_whoever_looks_aside_keeps_the_colour_of_the_eyes(side: tuple[str, str], blue: float) -> None:
    truth = scene(-0.5, blue, **dict.fromkeys(side, 0.6))
    found = with_eyes(without_eyes(truth), model(), level_of(observed(truth)))[0]
    assert abs(float(found.albedo[BLUE]) - blue) < 0.8


def test_nothing_but_the_eyes_modes_moves() -> None:
    truth = scene(-0.5, 2.0)
    start = without_eyes(truth)
    found = with_eyes(start, model(), level_of(observed(truth)))[0]
    for block in BLOCKS:
        if block not in ("albedo", "expression", "offsets", "albedo_offsets"):
            assert torch.equal(found.block(block), start.block(block))
    lids = [part_of(name) == "Eyes" for name in model().expression_names]
    assert not found.expression[~torch.tensor(lids)].any()
    others = np.setdiff1d(np.arange(model().n_albedo), [SHADE, BLUE])
    assert torch.equal(found.albedo[others], start.albedo[others])
    assert not torch.equal(found.albedo, start.albedo)


def test_closed_lids_say_nothing_of_the_iris() -> None:
    truth = scene(0.0, 3.0, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    found = with_eyes(without_eyes(truth), model(), level_of(observed(truth)))[0]
    assert abs(float(found.albedo[BLUE])) < 0.1


@pytest.mark.parametrize("color", [(12, 12, 14), (70, 40, 20), (230, 235, 240)])
def test_glasses_that_hide_the_eyes_say_nothing_of_the_iris(color: tuple[int, int, int]) -> None:
    truth = scene(0.0, 3.0)
    observation = observed(truth)
    assert observation.landmarks is not None
    image = observation.image.copy()
    for eye in (range(36, 42), range(42, 48)):
        left, top = (observation.landmarks[eye].min(0) - 10).astype(int)
        right, bottom = (observation.landmarks[eye].max(0) + 10).astype(int)
        image[top:bottom, left:right] = color
    found = with_eyes(without_eyes(truth), model(), level_of(replace(observation, image=image)))[0]
    assert abs(float(found.albedo[BLUE])) < 0.1


def test_eyes_outside_the_picture_and_models_without_eyeballs_change_nothing() -> None:
    truth = scene(0.0, 3.0)
    level = level_of(observed(truth))
    aside = without_eyes(truth)
    aside = replace(aside, pose=replace(aside.pose, translation_mm=torch.tensor([0.0, 400.0, 620.0])))
    assert torch.equal(with_eyes(aside, model(), level)[0].pack(BLOCKS[:-1]), aside.pack(BLOCKS[:-1]))
    toy = toy_scene(0)
    picture = face_pyramid(Observation(photograph(toy), toy.camera), [64])[0]
    assert with_eyes(toy, toy_model(), picture) == (toy, None)


def test_a_fit_brings_the_eyes_along() -> None:
    eyes = {blue: float(fit(observed(scene(-0.5, blue)), model()).scene.albedo[BLUE]) for blue in (-1.0, 3.0)}
    assert eyes[-1.0] < 0 and eyes[3.0] > 1.5


@pytest.mark.slow
def test_a_persons_eyes_have_one_colour_in_all_photographs() -> None:
    one = scene(-0.5, 3.0)
    other = replace(one, pose=Pose(torch.tensor([0.0, -0.3, 0.0]), one.pose.translation_mm))
    joint = fit([observed(one), observed(other)], model())
    first, second = (result.scene.albedo for result in joint.results)
    assert bool((first == second).all())
    assert 1.5 < float(first[BLUE]) < 4.5


def test_eyes_in_the_dark_are_not_black() -> None:
    truth = scene(-0.5, 1.0)
    observation = observed(truth)
    assert observation.landmarks is not None
    image = observation.image.copy()
    left, top = (observation.landmarks[36:48].min(0) - 10).astype(int)
    right, bottom = (observation.landmarks[36:48].max(0) + 10).astype(int)
    image[top:bottom, left:right] = 0
    found = with_eyes(without_eyes(truth), model(), level_of(replace(observation, image=image)))[0]
    eye = torch.from_numpy(np.asarray(model().topology.region("sclera")))
    mean = model().albedo_mean[eye].mean()
    assert float(found.surface_albedo(model())[eye].mean()) > 0.2 * float(mean)
