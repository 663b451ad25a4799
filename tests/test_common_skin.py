"""Skin that the albedo modes do not know: found in common by several photographs, and of use to their shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_joint import scene_of
from toy import BACKGROUND, landmarks_of, toy_model

from facefit.fitting.joint import recipe
from facefit.fitting.joint.recipe import together
from facefit.fitting.joint.texture import common_skin
from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.surface_samples import surface_samples
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import render


def painted(seed: int = 0) -> LinearFaceModel:
    """The toy face with blotches of a centimetre or two that none of its albedo modes has."""
    model, random = toy_model(), np.random.default_rng(seed)
    vertices = model.mean.numpy()
    front = vertices[vertices[:, 2] > 40]
    spots = front[random.choice(len(front), 14, replace=False)]
    distance = np.linalg.norm(vertices[:, None] - spots[None], axis=2)
    dark = (np.exp(-((distance / 9.0) ** 2)) * random.choice([-0.6, 0.5], len(spots))).sum(1)
    paint = torch.from_numpy(1 + dark.clip(-0.6, 0.5)).float()
    return replace(model, albedo_mean=model.albedo_mean * paint[:, None])


def photographed(scene: Scene, model: LinearFaceModel, noise_px: float = 0.0, seed: int = 0) -> Observation:
    """The scene's picture, with landmarks that err by so many pixels."""
    camera = scene.camera
    picture = render(scene, model, 2 * camera.width, 2 * camera.height)
    color = torch.where(picture.covered[..., None], picture.color, torch.tensor(BACKGROUND))
    small = color.reshape(camera.height, 2, camera.width, 2, 3).mean((1, 3))
    landmarks = landmarks_of(scene) + np.random.default_rng(seed).normal(0, noise_px, (68, 2))
    landmarks[:17] = np.nan
    return Observation(
        (small.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy(), camera, landmarks, focal_sigma=0.1
    )


def test_skin_seen_from_two_sides_is_the_painted_one() -> None:
    model, coloured = toy_model(), painted()
    scenes = [scene_of(1, 7, -20.0), scene_of(1, 8, 20.0)]
    levels = [face_pyramid(photographed(scene, coloured), [160])[0] for scene in scenes]
    plain, truth = surface_samples(model, 800), surface_samples(coloured, 800)
    wanted = np.log(truth.albedo_mean / plain.albedo_mean).mean(1)
    front = plain.geometry_mean[:, 2] > 20
    for found in common_skin(model, plain, scenes, levels):
        change = np.log(found.albedo_mean / plain.albedo_mean).mean(1)
        assert np.corrcoef(change[front], wanted[front])[0, 1] > 0.8


def test_skin_that_the_modes_know_is_left_as_it_is() -> None:
    model = toy_model()
    scenes = [scene_of(1, 7, -20.0), scene_of(1, 8, 20.0)]
    levels = [face_pyramid(photographed(scene, model), [160])[0] for scene in scenes]
    plain = surface_samples(model, 800)
    for found in common_skin(model, plain, scenes, levels):
        assert np.median(np.abs(np.log(found.albedo_mean / plain.albedo_mean))) < 0.03


def test_a_shadow_in_one_photograph_darkens_no_other() -> None:
    """It is that photograph's light; marks are the same in both."""
    model, plain = toy_model(), surface_samples(toy_model(), 800)
    scenes = [scene_of(1, 7, -10.0), scene_of(1, 8, 10.0)]
    views = [photographed(scene, model) for scene in scenes]
    column = np.arange(views[0].image.shape[1]) - np.nanmean(views[0].landmarks[:, 0])  # type: ignore[index]
    left = 1 - 0.6 / (1 + np.exp(-column / 10.0))
    dark = 255 * ((views[0].image / 255.0) ** 2.2 * left[None, :, None]) ** (1 / 2.2)
    views[0] = replace(views[0], image=dark.astype(np.uint8))
    levels = [face_pyramid(view, [160])[0] for view in views]
    shadowed, open_ = (
        np.log(found.albedo_mean / plain.albedo_mean).mean(1)
        for found in common_skin(model, plain, scenes, levels)
    )
    x, _, z = plain.geometry_mean[:, :3].T
    there = (z > 40) & (x > 15)
    assert np.median(shadowed[there]) < -0.5
    assert abs(np.median(open_[there])) < 0.1


def test_what_nobody_sees_is_the_model_s() -> None:
    plain = surface_samples(toy_model(), 300)
    (found,) = common_skin(toy_model(), plain, [scene_of(1, 7, 0.0)], [None])
    assert np.array_equal(found.albedo_mean, plain.albedo_mean)


@pytest.mark.slow
def test_common_skin_helps_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landmarks of 1.5 pixels' error, three views: spots tie the views together more exactly."""
    model = toy_model()
    errors: dict[int, list[float]] = {0: [], 2: []}
    for person in range(3):
        coloured = painted(person)
        looks = [(7, -25.0), (8, 0.0), (9, 25.0)]
        views = [
            photographed(scene_of(person, look, yaw), coloured, 1.5, look + 10 * person)
            for look, yaw in looks
        ]
        truth = model.vertices(scene_of(person, 7, 0.0).identity, torch.zeros(model.n_expression))
        for rounds, found in errors.items():
            monkeypatch.setattr(recipe, "SKIN_ROUNDS", rounds)
            shape = together(views, model)[0].scene.neutral_shape(model)
            face = torch.from_numpy(model.topology.region("face"))
            off = (shape - truth)[face]
            found.append(float((off - off.mean(0)).norm(dim=1).mean()))
    assert np.mean(errors[2]) < 0.95 * np.mean(errors[0])
