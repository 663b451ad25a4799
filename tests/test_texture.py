"""The texture is the person's albedo: on a rendered photograph, exactly the model's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from export_toy import toy_model, toy_result

from facefit.fitting.result import FitResult
from facefit.models.face_model import Topology
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.photo_view import without_hair
from facefit.picture import render
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import linear_to_srgb
from facefit.texture import Texture, bake_texture
from facefit.uv_layout import texture_layout

SIZE = 256


def at_vertices(result: FitResult, texture: Texture, lit: bool = False) -> np.ndarray:
    """sRGB level (0-255) at each vertex of the toy, whose texture coordinates are its vertices."""
    image = texture.lit if lit else texture.srgb
    place = np.stack([texture.uv[:, 0], 1 - texture.uv[:, 1]], 1) * SIZE
    column, row = place.astype(int).clip(0, SIZE - 1).T
    return image[row, column].astype(float)


def albedo_levels(result: FitResult) -> np.ndarray:
    return 255 * linear_to_srgb(result.model.albedo(result.scene.albedo)).numpy()


def with_photo(result: FitResult, image: np.ndarray) -> FitResult:
    return replace(result, observation=replace(result.observation, image=image))


def painted(result: FitResult, albedo: torch.Tensor) -> FitResult:
    """The same fit of a photograph whose subject has other skin than the model says."""
    scene: Scene = result.scene
    picture = render(scene, result.model, albedo=albedo)
    color = torch.where(picture.covered[..., None], picture.color, torch.tensor([0.4, 0.5, 0.6]))
    return with_photo(result, (color.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def result() -> FitResult:
    return toy_result(width=400, height=480)


def test_the_texture_of_a_rendering_is_the_albedo_it_was_rendered_with(result: FitResult) -> None:
    texture = bake_texture(result, SIZE)
    difference = np.abs(at_vertices(result, texture) - albedo_levels(result))
    assert np.median(difference) < 2 and np.quantile(difference, 0.99) < 8


def test_with_its_light_a_seen_texel_is_the_photographs_pixel(result: FitResult) -> None:
    texture = bake_texture(result, SIZE)
    place = np.stack([texture.uv[:, 0], 1 - texture.uv[:, 1]], 1) * SIZE
    column, row = place.astype(int).clip(0, SIZE - 1).T
    seen = texture.seen[row, column] == 255
    scene = result.scene
    pixels = scene.camera.project(scene.pose.apply(scene.shape(result.model))).numpy().astype(int)
    photo = result.observation.image[pixels[seen, 1], pixels[seen, 0]].astype(float)
    assert seen.mean() > 0.05
    assert np.quantile(np.abs(at_vertices(result, texture, lit=True)[seen] - photo), 0.95) < 4


@pytest.mark.parametrize(("factor", "kept"), [(2.5, False), (0.4, True)])
def test_a_bright_patch_is_light_and_a_dark_one_is_skin(result: FitResult, factor: float, kept: bool) -> None:
    """Twice and a half as bright as the face is no skin but light that the fit missed; dark may be a beard."""
    albedo = result.model.albedo(result.scene.albedo).clone()
    cheek = (result.model.mean - torch.tensor([-20.0, 30.0, 80.0])).norm(dim=1) < 38
    albedo[cheek] *= factor
    levels = at_vertices(result, bake_texture(painted(result, albedo), SIZE))
    core = ((result.model.mean - torch.tensor([-20.0, 30.0, 80.0])).norm(dim=1) < 12).numpy()
    painted_on = 255 * linear_to_srgb(albedo.clamp(0, 1)).numpy()
    share = np.median(levels[core, 1] - albedo_levels(result)[core, 1]) / np.median(
        painted_on[core, 1] - albedo_levels(result)[core, 1]
    )
    assert share > 0.85 if kept else share < 0.75


def test_light_does_not_enter_the_texture(result: FitResult) -> None:
    """Lit from one side the photograph differs left and right; the skin does not."""
    texture = bake_texture(result, SIZE)
    levels = at_vertices(result, texture)
    mirror = result.model.topology.mirror
    assert mirror is not None
    assert np.quantile(np.abs(levels - levels[mirror]), 0.95) < 8


def test_a_mark_on_the_seen_side_appears_and_is_mirrored_to_the_hidden_side() -> None:
    """The head is turned by 20 degrees; a mark at the ear it shows is also at the ear it hides."""
    result = toy_result(width=400, height=480)
    scene = result.scene.with_pose(replace(result.scene.pose, rotation=torch.tensor([0.0, 0.9, 0.0])))
    result = replace(result, scene=scene)
    mean = result.model.mean
    seen_ear = torch.tensor([-62.0, 0.0, 45.0])
    near = (mean - seen_ear).norm(dim=1) < 16
    albedo = result.model.albedo(scene.albedo).clone()
    albedo[near] *= torch.tensor([0.3, 0.6, 1.5])
    levels = at_vertices(result, bake_texture(painted(result, albedo), SIZE))
    mirror = result.model.topology.mirror
    assert mirror is not None
    plain = albedo_levels(result)
    core = np.flatnonzero(((mean - seen_ear).norm(dim=1) < 9).numpy())
    assert len(core)
    assert (levels[core, 0] < plain[core, 0] - 30).all()
    assert (levels[mirror[core], 0] < plain[mirror[core], 0] - 30).all()


def test_hidden_skin_takes_the_colour_of_the_seen_skin(result: FitResult) -> None:
    """The subject is much paler than the fitted albedo; so is the back of the head that no pixel shows."""
    paler = result.model.albedo(result.scene.albedo) * torch.tensor([1.3, 1.5, 1.5])
    levels = at_vertices(result, bake_texture(painted(result, paler), SIZE))
    expected = 255 * linear_to_srgb(paler).numpy()
    behind = result.model.mean[:, 2].numpy() < -30
    assert np.abs(levels - expected)[behind].mean() < 12


def test_what_the_mask_hides_does_not_enter_the_texture(result: FitResult) -> None:
    image = result.observation.image.copy()
    image[200:280, 190:230] = (0, 255, 0)
    mask = np.ones(image.shape[:2], bool)
    mask[195:285, 185:235] = False
    masked = replace(result, observation=replace(result.observation, image=image, mask=mask))
    levels = at_vertices(result, bake_texture(masked, SIZE))
    assert np.quantile(np.abs(levels - albedo_levels(result)), 0.99) < 25


def test_no_texel_is_left_undefined(result: FitResult) -> None:
    """Outside the charts the nearest skin continues, so that filtering never meets black."""
    holes = replace(result.model.topology, uv=0.2 + 0.5 * np.asarray(result.model.topology.uv))
    model = replace(result.model, topology=holes)
    texture = bake_texture(replace(result, model=model), SIZE)
    assert texture.srgb.min() > 40


def test_a_face_outside_the_photograph_gives_the_models_albedo(result: FitResult) -> None:
    pose = replace(result.scene.pose, translation_mm=torch.tensor([3000.0, 0.0, 650.0]))
    away = replace(result, scene=result.scene.with_pose(pose))
    levels = at_vertices(away, bake_texture(away, SIZE))
    assert np.quantile(np.abs(levels - albedo_levels(away)), 0.95) < 3


@pytest.mark.parametrize("shape", [(480, 400), (60, 50), (1, 1)])
def test_any_size_of_photograph_can_be_baked(shape: tuple[int, int]) -> None:
    result = toy_result(width=shape[1], height=shape[0])
    assert bake_texture(result, 64).srgb.shape == (64, 64, 3)


def covered_twice(uv: np.ndarray, triangles: np.ndarray, size: int = 200) -> float:
    """The part of the covered texels that more than one triangle claims (edges shared by neighbours aside)."""
    plane, flat = torch.from_numpy(uv * size), torch.ones(len(uv), dtype=torch.float64)
    first = rasterize(plane, flat, torch.from_numpy(triangles), size, size, cull_back=False).triangle
    last = rasterize(
        plane, flat, torch.from_numpy(triangles[::-1].copy()), size, size, cull_back=False
    ).triangle
    covered = first >= 0
    return float(((first != len(triangles) - 1 - last) & covered).sum() / covered.sum())


def doubled(offset: float) -> tuple[Topology, np.ndarray]:
    """Two heads side by side whose texture coordinates coincide, the second in the tile `offset` further."""
    model = toy_model()
    topology, mean = model.topology, model.mean.numpy()
    assert topology.uv is not None and topology.uv_triangles is not None
    triangles = np.concatenate([topology.triangles, topology.triangles + len(mean)])
    uv = np.concatenate([topology.uv, topology.uv + [offset, 0]])
    return replace(
        topology,
        triangles=triangles,
        uv=uv,
        uv_triangles=np.concatenate([topology.uv_triangles, topology.uv_triangles + len(topology.uv)]),
    ), np.concatenate([mean, mean + [300, 0, 0]])


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_sheets_that_coincide_are_laid_side_by_side(offset: float) -> None:
    topology, mean = doubled(offset)
    uv, triangles = texture_layout(topology, mean)
    assert covered_twice(uv, triangles) < 0.01
    assert uv.min() >= 0 and uv.max() <= 1


def test_a_layout_without_overlap_is_kept() -> None:
    model = toy_model()
    uv, triangles = texture_layout(model.topology, model.mean.numpy())
    np.testing.assert_allclose(uv, np.asarray(model.topology.uv), atol=1e-12)
    np.testing.assert_array_equal(triangles, model.topology.uv_triangles)


def test_a_model_without_layout_gets_a_cylinder_without_overlap() -> None:
    model = toy_model(with_uv=False)
    uv, triangles = texture_layout(model.topology, model.mean.numpy())
    assert covered_twice(uv, triangles) < 0.01
    assert uv.min() >= 0 and uv.max() <= 1


def test_a_closed_head_is_cut_at_the_back() -> None:
    """A ring of quads closed around the axis: no triangle may run across the whole plane."""
    angle = np.arange(32) / 32 * 2 * np.pi
    ring = np.stack([np.sin(angle), np.zeros(32), np.cos(angle)], 1) * 80
    mean = np.concatenate([ring, ring + [0, 50, 0]])
    i, j = np.arange(32), (np.arange(32) + 1) % 32
    triangles = np.concatenate([np.stack([i, j, j + 32], 1), np.stack([i, j + 32, i + 32], 1)])
    topology = replace(toy_model().topology, triangles=triangles, uv=None, uv_triangles=None, regions={})
    uv, uv_triangles = texture_layout(topology, mean)
    corners = uv[uv_triangles][:, :, 0]
    assert (corners.max(1) - corners.min(1)).max() < 0.1


def test_an_observation_that_cannot_be_written_to_is_left_alone(result: FitResult) -> None:
    image = result.observation.image.copy()
    image.setflags(write=False)
    observation: Observation = replace(result.observation, image=image)
    bake_texture(replace(result, observation=observation), 32)


def test_strands_on_the_forehead_are_no_skin_and_dark_features_below_are() -> None:
    """Half a millimetre to a pixel: a strand in the upper half, the same below it, and a wrinkle above."""
    color = torch.full((3, 160, 200), 0.4)
    above = torch.zeros(1, 160, 200)
    above[:, :100] = 1
    strand, wrinkle, feature = slice(60, 64), slice(148, 151), slice(120, 124)
    color[:, 10:90, strand] = 0.1
    color[:, 10:90, wrinkle] *= 0.85
    color[:, feature] = 0.1
    kept = without_hair(torch.ones_like(above), color, above, 0.5)[0]
    assert kept[20:80, strand].max() == 0 and kept[20:80, 57:67].max() < 0.6, "nor are a strand's edges"
    assert kept[20:80, 100:].min() > 0.95, "skin and wrinkles stay"
    assert kept[110:].min() == 1, "brows, lashes and beard stay"
