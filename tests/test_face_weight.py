"""The face fades into the photograph smoothly, whatever its mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from export_toy import RADII_MM, toy_model, toy_result

from facefit.face_weight import face_vertices, face_weight
from facefit.models.builtin import load
from facefit.models.face_model import LinearFaceModel
from facefit.overlay import FADE_MM, overlay
from facefit.photo_view import smoothstep
from facefit.picture import render

# The front cap of the toy's ellipsoid: its outline lies well within the silhouette.
CAP_MM = 60.0


def toy_cap(opening_mm: float = 0.0) -> LinearFaceModel:
    """The toy whose face is the front cap, with a round opening of this radius in the middle."""
    model = toy_model(60, 100)
    x, y, z = model.mean.numpy().T
    cap = np.flatnonzero((z > CAP_MM) & (np.hypot(x, y) >= opening_mm))
    return replace(model, topology=replace(model.topology, regions={"face": cap}))


def distance_to_outline_mm(model: LinearFaceModel) -> np.ndarray:
    """Of the cap's points, from the ellipse that bounds it."""
    angle = np.linspace(-np.pi, np.pi, 2000)
    radii = RADII_MM[:2] * np.sqrt(1 - (CAP_MM / RADII_MM[2]) ** 2)
    ellipse = np.stack([*(radii[:, None] * [np.cos(angle), np.sin(angle)]), np.full(2000, CAP_MM)], 1)
    points = model.mean.numpy()
    distance = np.linalg.norm(points[:, None] - ellipse[None, ::10], axis=2).min(1)
    return np.asarray(np.where(points[:, 2] > CAP_MM, distance, -distance))


@pytest.mark.parametrize("opening_mm", [0.0, 20.0])
def test_the_weight_rises_from_the_outline_inwards_and_openings_do_not_count(opening_mm: float) -> None:
    model = toy_cap(opening_mm)
    weight, inside = face_weight(model, 15.0).numpy(), distance_to_outline_mm(model)
    face = face_vertices(model).numpy()
    assert (weight[inside <= 0] == 0).all()
    # The last ring of vertices lies up to an edge, 9 mm, within the ellipse.
    for depth in (0.0, 4.0, 8.0, 12.0):
        further = face & (inside > 9.0 + depth)
        expected = smoothstep(torch.tensor(depth), 0.0, 15.0)
        assert weight[face & (inside < depth)].max(initial=0) <= expected + 1e-3
        assert weight[further].min() >= expected - 1e-3
    assert (weight[face & (inside > 24.0)] == 1).all()


def test_a_mesh_that_is_cut_off_fades_where_it_ends_and_a_closed_one_nowhere() -> None:
    model = toy_model()
    bare = replace(model, topology=replace(model.topology, regions={}))
    weight = face_weight(bare, 15.0).numpy().reshape(24, 40)
    assert (weight[[0, -1]] == 0).all() and (weight[:, [0, -1]] == 0).all() and weight[12, 20] == 1
    one, other = model.topology.triangles, model.topology.triangles[:, ::-1]
    closed = replace(bare, topology=replace(bare.topology, triangles=np.concatenate([one, other])))
    assert bool((face_weight(closed, 15.0) == 1).all())


def test_the_built_in_models_eyes_and_mouth_are_fully_shown() -> None:
    model = load()
    weight, regions = face_weight(model, FADE_MM).numpy(), model.topology.regions
    for name in ("eyeballs", "teeth", "lips", "nose", "brows"):
        assert (weight[regions[name]] == 1).all(), name
    for name in ("scalp", "neck", "ears"):
        assert (weight[np.setdiff1d(regions[name], regions["face"])] == 0).all(), name


def test_the_overlay_has_no_edge_where_the_face_ends_on_the_skin() -> None:
    result = replace(toy_result(), model=toy_cap())
    frontal = replace(result.scene.pose, rotation=torch.zeros(3))
    result = replace(result, scene=replace(result.scene, pose=frontal))

    def over(level: int) -> np.ndarray:
        image = np.full((240, 200, 3), level, np.uint8)
        return overlay(replace(result, observation=replace(result.observation, image=image))).astype(float)

    # The same face over black and over white differs by what shows through.
    alpha = 1 - (over(255) - over(0)).mean(2) / 255
    assert alpha.min() < 0.01 and alpha.max() > 0.99
    pixel_mm = float(result.scene.pose.translation_mm[2] / result.scene.camera.focal_px)
    # A smoothstep is at most 1.5 times as steep as a ramp; seen obliquely (less than 60 degrees) twice that.
    steepest = 1.5 * 2 * pixel_mm / FADE_MM
    assert steepest < 0.35
    for axis in (0, 1):
        assert np.abs(np.diff(alpha, axis=axis)).max() < steepest + 0.01


def test_between_the_lips_the_photograph_shows_through() -> None:
    """The toy with a mouth in the middle of its face: nothing of the model's there, all of it around."""
    model = toy_cap()
    x, y, z = model.mean.numpy().T
    mouth = np.flatnonzero((z > CAP_MM) & (np.hypot(x, y) < 25))
    regions = {**model.topology.regions, "mouth_inside": mouth}
    result = replace(toy_result(), model=replace(model, topology=replace(model.topology, regions=regions)))
    result = replace(
        result, scene=replace(result.scene, pose=replace(result.scene.pose, rotation=torch.zeros(3)))
    )
    image = np.random.default_rng(0).integers(0, 256, (240, 200, 3), np.uint8)
    result = replace(result, observation=replace(result.observation, image=image))
    column, row = (
        result.scene.camera.project(result.scene.pose.apply(model.mean[mouth])).mean(0).int().tolist()
    )
    drawn = overlay(result)
    middle = (slice(row - 3, row + 4), slice(column - 3, column + 4))
    np.testing.assert_array_equal(drawn[middle], image[middle])
    pixel_mm = float(result.scene.pose.translation_mm[2] / result.scene.camera.focal_px)
    beside = (row, column + round(45 / pixel_mm))
    assert np.abs(drawn[beside].astype(int) - image[beside]).max() > 10


@pytest.mark.slow
def test_a_small_face_is_drawn_nearer_to_the_mean_over_its_pixels_than_to_their_centres() -> None:
    model = toy_model(200, 320)
    speckled = (
        model.albedo_mean * torch.from_numpy(np.random.default_rng(0).uniform(0.2, 1.8, (64000, 1))).float()
    )
    model = replace(model, albedo_mean=speckled)
    result = replace(toy_result(width=50, height=60), model=model)
    scene = result.scene
    mean, centres = (
        (255 * render(scene, model, 50 * k, 60 * k).color.reshape(60, k, 50, k, 3).mean((1, 3))).numpy()
        for k in (8, 1)
    )
    middle = (slice(20, 40), slice(15, 35))
    shown = overlay(result).astype(float)
    assert np.abs(shown - mean)[middle].mean() < 0.6 * np.abs(centres - mean)[middle].mean()
