from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from jaxtyping import Float
from toy import RADII_MM, observe, toy_model, toy_scene, turned

from facefit.fitting.residual import cost, normal_equations
from facefit.fitting.residuals.contour import ContourResidual, contour_residual
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import project

CAMERA = Camera.from_field_of_view(400, 400)
YAWS = [0.0, 25.0, -45.0]


@lru_cache
def ellipsoid() -> LinearFaceModel:
    """The toy head without its bumps: its silhouette is known in closed form."""
    model = toy_model()
    assert model.topology.uv is not None
    longitude = (model.topology.uv[:, 0] - 0.5) * np.radians(230)
    mean = model.mean.double().numpy()
    height = np.clip(1 - (mean[:, 0] / RADII_MM[0]) ** 2 - (mean[:, 1] / RADII_MM[1]) ** 2, 0, None)
    mean[:, 2] = RADII_MM[2] * np.sqrt(height) * np.sign(np.cos(longitude))
    return replace(model, mean=torch.tensor(mean, dtype=torch.float32))


def head(yaw: float) -> Scene:
    scene = Scene.neutral(ellipsoid(), CAMERA, 500.0)
    return scene.with_pose(Pose(turned(yaw, 8.0, 5.0), torch.tensor([10.0, -5.0, 500.0])))


def outline(scene: Scene) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 2"]]:
    """Points of the ellipsoid where the line of sight touches it, in the model frame and in pixels.

    Scaled to a unit sphere these are the circle where a cone from the camera's centre touches it.
    """
    pose = scene.pose
    eye = -(pose.camera_from_model.double().T @ pose.translation_mm.double()).numpy() / RADII_MM
    distance = np.linalg.norm(eye)
    axis = eye / distance
    first = np.cross(axis, [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    t = np.linspace(0, 2 * np.pi, 2000)[:, None]
    circle = axis / distance + np.sqrt(1 - 1 / distance**2) * (np.cos(t) * first + np.sin(t) * second)
    points = circle * RADII_MM
    return points, project(scene, torch.from_numpy(points).float()).double().numpy()


def jaw_side(scene: Scene) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 2"]]:
    """The part of the outline that the region "jaw_contour" holds, clear of its ends."""
    points, pixels = outline(scene)
    x, y, z = points.T
    inside = (z > -10) & (y < 5) & (y > -80) & ((np.abs(x) > 50) | (y < -62))
    return points[inside], pixels[inside]


def term(scene: Scene, jaw: Float[np.ndarray, "17 2"], reach_px: float = 60.0) -> ContourResidual:
    return ContourResidual(ellipsoid(), jaw, np.tile(4 * np.eye(2), (17, 1, 1)), reach_px)


def jaw_on_outline(scene: Scene) -> Float[np.ndarray, "17 2"]:
    _, pixels = jaw_side(scene)
    return pixels[np.linspace(0, len(pixels) - 1, 17).astype(int)]


@pytest.mark.parametrize("yaw", YAWS)
def test_freezing_finds_the_silhouette(yaw: float) -> None:
    """The chosen surface points project onto the outline of the ellipsoid, within the facets of its mesh."""
    scene = head(yaw)
    frozen = term(scene, jaw_on_outline(scene)).freeze(scene).frozen
    assert frozen is not None and len(frozen.points) >= 12
    pixels = project(scene, frozen.points.at(scene)).double().numpy()
    _, exact = outline(scene)
    distance = np.linalg.norm(pixels[:, None] - exact[None], axis=2).min(1)
    # A chord of a 9 mm facet lies 0.15 mm inside; a pixel is 0.67 mm here.
    assert distance.max() < 1.0


@pytest.mark.parametrize("yaw", YAWS)
def test_a_jaw_on_the_silhouette_costs_next_to_nothing(yaw: float) -> None:
    scene = head(yaw)
    frozen = term(scene, jaw_on_outline(scene)).freeze(scene)
    rows = frozen(scene)
    assert len(rows) >= 12
    assert float((2 * rows).abs().mean()) < 0.5


def test_a_jaw_point_beside_the_silhouette_costs_its_distance_across() -> None:
    scene = head(25.0)
    _, pixels = jaw_side(scene)
    middle = pixels.mean(0)
    jaw = jaw_on_outline(scene)
    outwards = jaw - middle
    tangent = np.gradient(pixels, axis=0)[np.linspace(0, len(pixels) - 1, 17).astype(int)]
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    normal *= np.sign((normal * outwards).sum(1, keepdims=True)) / np.linalg.norm(
        normal, axis=1, keepdims=True
    )
    for distance in (6.0, -6.0):
        frozen = term(scene, jaw + distance * normal).freeze(scene).frozen
        assert frozen is not None
        # Model minus observed along the outward normal, in sigmas of 2 px, before the robust weights.
        pixel = project(scene, frozen.points.at(scene)).double().numpy()
        across = 2 * (frozen.whitening[:, 0] * (pixel - frozen.observed)).sum(1)
        assert np.median(across) == pytest.approx(-distance, abs=0.7)


def test_the_jaw_slides_along_the_silhouette() -> None:
    """Moved along the contour, landmarks cost as little as before; moved as far across, much more."""
    scene = head(0.0)
    _, pixels = jaw_side(scene)
    index = np.linspace(60, len(pixels) - 61, 17).astype(int)
    slid = pixels[index + 40]
    step = np.linalg.norm(slid - pixels[index], axis=1).mean()
    assert step > 4
    here, along = (cost(term(scene, jaw).freeze(scene), scene) for jaw in (pixels[index], slid))
    shifted = cost(term(scene, pixels[index] + [step, 0.0]).freeze(scene), scene)
    assert along < here + 1 and shifted > 4 * max(along, here)


def test_landmarks_out_of_reach_are_left_out() -> None:
    scene = head(0.0)
    jaw = jaw_on_outline(scene)
    near = term(scene, jaw).freeze(scene)
    jaw[3] += 500
    jaw[5] = np.nan
    far = term(scene, jaw).freeze(scene)
    assert len(far(scene)) == len(near(scene)) - 2
    nothing = term(scene, jaw + 1e4).freeze(scene)
    assert nothing.frozen is None and cost(nothing, scene) == 0
    assert not normal_equations(nothing, scene, ("rotation",)).matrix.any()


def test_freezing_follows_the_head() -> None:
    scene, moved = head(0.0), head(30.0)
    first = term(scene, jaw_on_outline(scene)).freeze(scene)
    # The silhouette may be kept for a few linearisations, not for ever.
    again = first
    for _ in range(4):
        again = again.freeze(moved)
    fresh = term(scene, jaw_on_outline(scene)).freeze(moved)
    assert cost(again, moved) == pytest.approx(cost(fresh, moved))
    assert cost(again, moved) != pytest.approx(cost(first, moved), rel=0.01)


def test_one_row_per_jaw_point() -> None:
    scene = head(0.0)
    frozen = term(scene, jaw_on_outline(scene)).freeze(scene)
    assert frozen.frozen is not None and frozen(scene).shape == (len(frozen.frozen.points),)


def test_there_is_no_term_without_jaw_points_or_region() -> None:
    truth, model = toy_scene(), toy_model()
    whole = observe(truth, jaw=True)
    assert contour_residual(whole, model) is not None
    assert contour_residual(replace(whole, landmarks=None), model) is None
    assert contour_residual(observe(truth), model) is None
    regions = {"face": model.topology.region("face")}
    assert contour_residual(whole, replace(model, topology=replace(model.topology, regions=regions))) is None


def test_the_contour_turns_a_head_whose_silhouette_is_off() -> None:
    """A step of least squares on the contour alone brings the head most of the way back sideways."""
    scene = head(20.0)
    observation = Observation(
        np.zeros((400, 400, 3), np.uint8),
        CAMERA,
        np.vstack([jaw_on_outline(scene), np.full((51, 2), np.nan)]),
    )
    shifted = scene.with_pose(
        Pose(scene.pose.rotation, scene.pose.translation_mm + torch.tensor([6.0, 0.0, 0.0]))
    )
    residual = contour_residual(observation, ellipsoid())
    assert residual is not None
    for _ in range(4):
        equations = normal_equations(residual.freeze(shifted), shifted, ("translation",))
        step = -torch.linalg.lstsq(
            equations.matrix + 1e-6 * torch.eye(3), equations.gradient[:, None]
        ).solution[:, 0]
        shifted = shifted.with_packed(("translation",), shifted.pose.translation_mm + step.float())
    assert abs(float(shifted.pose.translation_mm[0] - scene.pose.translation_mm[0])) < 1.0
