"""Detail: the refined mesh, its operators, shape from shading, and what happens where there is nothing to see."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from jaxtyping import Float
from toy import observe, toy_model, toy_scene

import facefit as ff
from facefit.fitting.detail.offsets import DisplacementPrior, solve_displacement
from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.refinement import Refinement, face_refinement
from facefit.fitting.detail.seen import SeenSurface, seen_surface
from facefit.fitting.detail.shading import ShadingTerm, polynomial
from facefit.fitting.detail.stage import DetailSettings, masked_level, solve_offsets
from facefit.fitting.result import Status
from facefit.fitting.stages import DETAILED
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.rendering.interpolate import interpolate
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import linear_to_srgb

SMALL = DetailSettings(levels=2)


def scene_in_light(size: int = 300) -> Scene:
    """Seen from the front, lit from above, filling the picture."""
    scene = toy_scene(2, yaw=0.0, pitch=0.0, roll=0.0, width=size, height=size)
    return scene.with_lighting(Lighting.directional(torch.tensor([0.3, 0.8, 0.6]), 0.8, 0.3))


def waves(points: Float[np.ndarray, "n 3"], length_mm: float, height_mm: float) -> Float[np.ndarray, "n"]:
    """Horizontal wrinkles."""
    return height_mm * np.sin(2 * np.pi * (points[:, 1] + 3 * np.sin(points[:, 0] / 15)) / length_mm)


def photographed(
    scene: Scene, model: LinearFaceModel, refinement: Refinement, height: Float[np.ndarray, "fine"]
) -> Observation:
    """A photograph of the displaced surface, shaded by the normals of its triangles, four samples a pixel."""
    shape, camera = scene.shape(model), scene.camera
    coarse = vertex_normals(shape, model.triangles).numpy()
    base = refinement.positions(shape.numpy(), coarse)
    triangles = torch.from_numpy(refinement.all_triangles)
    vertices = torch.from_numpy(base + height[:, None] * refinement.normals(coarse)).float()
    posed = scene.pose.apply(vertices)
    size = 2 * camera.width
    fragments = rasterize(2 * camera.project(posed), posed[:, 2], triangles, size, size)
    albedo = torch.from_numpy(refinement.carry(scene.surface_albedo(model).numpy())).float()
    maps = interpolate(fragments, torch.cat([vertex_normals(vertices, triangles), albedo], 1), triangles)
    normals = torch.nn.functional.normalize(maps[..., :3], dim=-1).reshape(-1, 3)
    linear = maps[..., 3:] * scene.lighting.irradiance(normals).reshape(size, size, 3)
    small = linear.reshape(size // 2, 2, size // 2, 2, 3).mean((1, 3))
    pixels = (linear_to_srgb(small).clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    return replace(observe(scene), image=pixels)


@lru_cache
def plain() -> tuple[LinearFaceModel, Scene, Refinement, Observation]:
    model, scene = toy_model(), scene_in_light()
    refinement = face_refinement(model, 2)
    return model, scene, refinement, photographed(scene, model, refinement, np.zeros(refinement.n_vertices))


@lru_cache
def seen() -> SeenSurface:
    model, scene, refinement, photo = plain()
    with torch.no_grad():
        return seen_surface(scene, model, refinement, masked_level(photo, None, 640))


def total(detail: object, scene: Scene, model: LinearFaceModel) -> Float[np.ndarray, "fine"]:
    """All displacement along the normals: what the scene's vertices hold and the rest."""
    from facefit.fitting.detail.stage import Detail

    assert isinstance(detail, Detail) and scene.offsets is not None
    along = (scene.offsets * vertex_normals(scene.shape(model) - scene.offsets, model.triangles)).sum(1)
    return detail.displacement_mm + detail.refinement.carry(along.numpy())


def test_a_refined_surface_goes_through_its_vertices_and_has_the_same_triangles() -> None:
    model = toy_model()
    refinement = face_refinement(model, 2)
    points = model.mean.numpy()
    np.testing.assert_array_equal(refinement.carry(points)[: len(points)], points)
    normals = vertex_normals(model.mean, model.triangles).numpy()
    np.testing.assert_allclose(refinement.positions(points, normals)[: len(points)], points)
    flat = SurfaceOperators.of(refinement.carry(points), refinement.triangles).area.sum()
    kept = len(model.topology.triangles) - len(refinement.kept)
    assert len(refinement.triangles) == 16 * kept
    whole = SurfaceOperators.of(points, model.topology.triangles).area.sum()
    left = SurfaceOperators.of(points, refinement.kept).area.sum()
    assert flat == pytest.approx(whole - left, rel=1e-6)


def test_a_refinement_is_rounder_than_its_mesh() -> None:
    """Points on a sphere come back nearer to it than the middles of chords."""
    model = toy_model()
    sphere = torch.nn.functional.normalize(model.mean - model.mean.mean(0), dim=1)
    refinement = face_refinement(model, 1)
    new = slice(model.n_vertices, None)
    flat = np.linalg.norm(refinement.carry(sphere.numpy())[new], axis=1)
    around = np.linalg.norm(refinement.positions(sphere.numpy(), sphere.numpy())[new], axis=1)
    assert np.abs(around - 1).max() < 0.05 * np.abs(flat - 1).max()


def test_the_mirror_of_the_mirror_is_the_vertex() -> None:
    refinement = face_refinement(toy_model(), 2)
    mirror = refinement.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(refinement.n_vertices))
    points = refinement.carry(toy_model().mean.numpy())
    np.testing.assert_allclose(points[mirror] * [-1, 1, 1], points, atol=1e-3)


def test_gathering_what_was_carried_gives_the_mean_back() -> None:
    model = toy_model()
    refinement = face_refinement(model, 1)
    operators = SurfaceOperators.of(refinement.carry(model.mean.numpy()), refinement.triangles)
    even = refinement.gather(np.full((refinement.n_vertices, 2), 3.0), operators.vertex_area)
    inside = operators.vertex_area[: model.n_vertices] > 0
    np.testing.assert_allclose(even[inside], 3.0)


def test_the_gradient_of_a_linear_function_is_its_part_along_the_surface() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(3, 3))
    operators = SurfaceOperators.of(points, np.array([[0, 1, 2]]))
    direction = random.normal(size=3)
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    normal /= np.linalg.norm(normal)
    expected = direction - (direction @ normal) * normal
    values = points @ direction
    np.testing.assert_allclose(operators.gradient(values)[0], expected, atol=1e-10)
    energy = values @ (operators.stiffness @ values)
    assert energy == pytest.approx(operators.area[0] * expected @ expected)


def test_a_triangle_without_area_has_no_gradient() -> None:
    operators = SurfaceOperators.of(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    assert (operators.hats == 0).all() and (operators.gradient(np.arange(3.0)) == 0).all()


def test_irradiance_is_a_quadratic_in_the_normal() -> None:
    lighting = Lighting(torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    normals = np.random.default_rng(1).normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    constant, linear, quadratic = polynomial(lighting)
    found = constant + normals @ linear.T + np.einsum("nx,cxy,ny->nc", normals, quadratic, normals)
    np.testing.assert_allclose(found, lighting.irradiance(torch.from_numpy(normals)).numpy(), atol=1e-12)


def test_the_derivative_of_shading_equals_a_central_difference() -> None:
    surface = seen()
    term = ShadingTerm(surface, plain()[1].lighting, np.zeros_like(surface.log_color))
    random = np.random.default_rng(0)
    height = random.normal(0, 0.2, surface.operators.n_vertices)
    step = random.normal(0, 1e-4, len(height))
    # The error of a central difference is of third order in slopes of 1e-4; rounding is at 1e-16 / 1e-4.
    ahead, behind = (term.log_shading(height + s * step)[0] for s in (1, -1))
    rows = term.rows(height)
    np.testing.assert_allclose(rows.jacobian @ step, (ahead - behind) / 2, atol=1e-9)


def test_a_picture_of_the_scene_itself_leaves_nothing_to_add() -> None:
    model, scene, _, _ = plain()
    fitted, detail, report = solve_offsets(scene, model, observe(scene), settings=SMALL)
    assert report.status.ok and detail is not None
    assert np.sqrt(np.mean(total(detail, fitted, model) ** 2)) < 0.01


@pytest.mark.parametrize("length_mm", [10.0, 16.0])
def test_wrinkles_come_back(length_mm: float) -> None:
    """On the toy's coarse mesh (spacing 1.8 mm after two cuts) waves of 10 mm and more."""
    model, scene, refinement, _ = plain()
    surface = seen()
    truth = waves(refinement.carry(model.mean.numpy()), length_mm, 0.5)
    border = np.setdiff1d(np.unique(refinement.triangles), np.unique(refinement.kept))
    truth = np.where(np.isin(np.arange(len(truth)), border), truth, 0.0)
    photo = photographed(scene, model, refinement, truth)
    fitted, detail, report = solve_offsets(scene, model, photo, settings=SMALL)
    assert sum(report.cost_after.values()) < sum(report.cost_before.values())
    visible = surface.operators.at_vertices(surface.seen * surface.skin) > 0.5
    found = total(detail, fitted, model)
    assert np.corrcoef(found[visible], truth[visible])[0, 1] > 0.7


def test_what_is_not_seen_stays_where_it_was() -> None:
    model, scene, refinement, _ = plain()
    photo = photographed(scene, model, refinement, waves(refinement.carry(model.mean.numpy()), 12.0, 0.5))
    mask = np.ones((photo.height, photo.width), dtype=bool)
    mask[:, : photo.width // 2] = False
    surface = seen_surface(scene, model, refinement, masked_level(photo, mask, 640))
    term = ShadingTerm(surface, scene.lighting, np.zeros_like(surface.log_color))
    solution = solve_displacement([term], DisplacementPrior(), refinement.mirror)
    hidden = surface.operators.at_vertices((surface.seen > 0).astype(float)) == 0
    assert (solution.height[hidden] == 0).all() and solution.height.any()


def test_texture_offsets_fade_where_a_mask_begins() -> None:
    """In a light half of what it was, all skin is off alike: only fading makes neighbours differ."""
    model, scene, refinement, photo = plain()
    mask = np.ones((photo.height, photo.width), dtype=bool)
    mask[:, : photo.width // 2] = False
    bright = scene.with_lighting(Lighting(scene.lighting.coefficients / 2))
    fitted, detail, _ = solve_offsets(bright, model, photo, mask, SMALL)
    assert detail is not None and fitted.albedo_offsets is not None
    offsets = detail.albedo_offsets + refinement.carry(fitted.albedo_offsets.numpy())
    share = offsets[:, 0] / refinement.carry(scene.surface_albedo(model).numpy())[:, 0]
    usual = np.median(share[share > 0.05])
    sides = np.concatenate([refinement.triangles[:, [0, 1]], refinement.triangles[:, [1, 2]]])
    step = np.abs(share[sides[:, 0]] - share[sides[:, 1]]).max()
    # Two cuts put four edges where the coarse mesh has one.
    assert usual > 0.5 and step < 0.5 * usual


def test_two_photographs_of_one_surface_agree_with_one() -> None:
    """Twice the same evidence moves the answer nearer to it, not elsewhere."""
    model, scene, refinement, _ = plain()
    truth = waves(refinement.carry(model.mean.numpy()), 12.0, 0.4)
    photo = photographed(scene, model, refinement, truth)
    surface = seen_surface(scene, model, refinement, masked_level(photo, None, 640))
    term = ShadingTerm(surface, scene.lighting, np.zeros_like(surface.log_color))
    prior = DisplacementPrior()
    one = solve_displacement([term], prior, refinement.mirror).height
    two = solve_displacement([term, term], prior, refinement.mirror).height
    assert np.corrcoef(one, two)[0, 1] > 0.99


def test_a_mask_that_hides_everything_adds_nothing_and_says_so() -> None:
    model, scene, _, photo = plain()
    mask = np.zeros((photo.height, photo.width), dtype=bool)
    fitted, detail, report = solve_offsets(scene, model, photo, mask, SMALL)
    assert report.status is Status.NO_DETAIL and report.status.ok
    assert fitted is scene and detail is None


def test_without_light_nothing_is_added() -> None:
    model, scene, _, photo = plain()
    dark = scene.with_lighting(Lighting(torch.zeros(9, 3)))
    assert solve_offsets(dark, model, photo, settings=SMALL)[2].status is Status.NO_DETAIL


def test_a_recipe_with_detail_fits_and_reports_it() -> None:
    model, _, _, photo = plain()
    result = ff.fit(photo, model, stages=DETAILED)
    assert result.status.ok and result.detail is not None
    assert result.stages[-1].name == "detail" and result.stages[-1].seconds > 0
    for values in (result.scene.offsets, result.scene.albedo_offsets):
        assert values is not None and bool(torch.isfinite(values).all())
    with pytest.raises(ValueError, match="offsets"):
        ff.fit(photo, model, result.scene)
