"""The kernels of drawn heads against their formulas, and heads against what they are drawn from."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.kernels.drawn_head import halved_kernel, lamp_kernel, vertex_normals_kernel
from facefit.learned_init.draws import Lamp, Sky, turned_by
from facefit.learned_init.fields import Fields
from facefit.learned_init.heads import HeadPainter, LitHead, View
from facefit.mesh import vertex_normals
from facefit.models import load_model
from facefit.models.camera import FACING
from facefit.rendering.interpolate import interpolate
from facefit.rendering.rasterize import rasterize

MODEL = toy_model()
MEAN = MODEL.mean.numpy()
SIZE = 48


@cache
def painter() -> HeadPainter:
    return HeadPainter(MODEL)


def view(yaw: float = 20.0) -> View:
    turn = turned_by(yaw, np.random.default_rng(3))
    return View(turn, np.array([5.0, -8.0, 600.0]), 140.0, np.array([23.0, 25.5]))


def painted(lamps: list[Lamp], sky: float, strength: float, albedo: np.ndarray) -> LitHead:
    light = Sky(np.full(3, sky), np.zeros((3, 3)))
    return painter().paint(MEAN, albedo, view(), SIZE, lamps, light, (strength, 20.0), None)


def lamp_from(direction: list[float], color: float = 1.0) -> Lamp:
    return Lamp(np.array(direction) / np.linalg.norm(direction), np.full(3, color))


def test_normals_are_those_of_the_mesh() -> None:
    """The last vertex has no triangle."""
    vertices = np.concatenate([MEAN, np.ones((1, 3), np.float32)])
    found = np.empty_like(vertices)
    vertex_normals_kernel(vertices, painter().triangles, found)
    expected = vertex_normals(torch.from_numpy(vertices).double(), MODEL.triangles)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    assert not found[-1].any()


def test_a_lamp_adds_its_diffuse_light_and_its_gloss() -> None:
    rng = np.random.default_rng(0)
    count = 2000
    vertices = rng.normal(size=(count, 3)) * 80
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    albedo, before = rng.uniform(0.001, 0.9, (3, count)), rng.uniform(0, 1, (3, count))
    seen, glossy = rng.integers(0, 2, count) * 1.0, rng.integers(0, 3, count) * 0.2
    eye, lamp, exponent, matt = np.array([30.0, 20.0, 500.0]), lamp_from([1, 2, 2], 0.7), 11.5, 0.1
    found = before.astype(np.float32)
    arrays = [a.astype(np.float32) for a in (vertices, normals, albedo, seen, glossy)]
    lamp_kernel(*arrays, exponent, matt, eye, lamp.direction, lamp.color, found)

    cosine = np.maximum(normals @ lamp.direction, 0) * seen
    to_eye = (eye - vertices) / np.linalg.norm(eye - vertices, axis=1, keepdims=True)
    half = to_eye + lamp.direction
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = glossy * np.maximum((normals * half).sum(1), 0) ** exponent * (cosine > 0)
    expected = before + lamp.color[:, None] * (cosine * albedo + shine * np.minimum(albedo / matt, 1))
    assert (shine > 0.02).sum() > 10 and ((albedo < matt) & (shine > 0.02)).any()
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_halved_picture_is_the_mean_of_two_by_two_pixels() -> None:
    pose = view()
    camera = MEAN @ pose.camera_from_model.T + pose.translation_mm
    pixels = torch.from_numpy(pose.focal_px * camera[:, :2] / camera[:, 2:] + pose.centre_px)
    fragments = rasterize(pixels, torch.from_numpy(camera[:, 2]), MODEL.triangles, SIZE, SIZE)
    attributes = torch.rand(len(MEAN), 4, generator=torch.Generator().manual_seed(0))
    fine = interpolate(fragments, attributes, MODEL.triangles)
    fine = torch.cat([fine, fragments.covered[..., None].float()], 2).numpy()
    expected = fine.reshape(SIZE // 2, 2, SIZE // 2, 2, 5).mean((1, 3)).transpose(2, 0, 1)
    found = np.empty((5, SIZE // 2, SIZE // 2), np.float32)
    halved_kernel(
        fragments.triangle.numpy(),
        fragments.barycentric.numpy(),
        painter().triangles,
        attributes.numpy(),
        found,
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0.1 < found[4].mean() < 0.9


def test_under_an_even_sky_an_albedo_that_undoes_the_occlusion_is_drawn_even() -> None:
    occlusion = painter().occlusion
    assert np.ptp(occlusion) > 0.03
    head = painted([lamp_from([0, 0, 1], 0.0)], 0.8, 0.0, np.tile(0.3 / occlusion, (3, 1)))
    assert (head.cover == 1).mean() > 0.15
    np.testing.assert_allclose(head.color, np.tile(0.3 * 0.8 * head.cover, (3, 1, 1)), atol=1e-6)


def test_teeth_between_parted_lips_are_white() -> None:
    """The lips of the mean face, which are closed, do not shade them."""
    model = load_model("builtin")
    painter = HeadPainter(model)
    unit = model.expression_unit
    parted = torch.zeros(model.n_expression)
    for name in (
        "mouthUpperUpLeft",
        "mouthUpperUpRight",
        "mouthLowerDownLeft",
        "mouthLowerDownRight",
        "jawOpen",
    ):
        k = model.expression_names.index(name)
        parted[k] = (0.2 if name == "jawOpen" else 0.8) / unit[k]
    vertices = model.vertices(torch.zeros(model.n_identity), parted)
    teeth = np.zeros(model.n_vertices, np.float32)
    teeth[model.topology.regions["teeth"]] = 1
    mouth = np.array(FACING) @ vertices[model.topology.regions["teeth"]].double().numpy().mean(0)
    here = View(np.array(FACING), np.array([0.0, 0.0, 600.0]) - mouth, 500.0, np.array([64.0, 64.0]))
    light = Sky(np.full(3, 1.0), np.zeros((3, 3)))
    dark = [lamp_from([0, 0, 1], 0.0)]
    albedo = np.tile(teeth, (3, 1))
    bright = painter.paint(vertices.numpy(), albedo, here, 128, dark, light, (0.0, 1.0), None).color[0]
    assert (bright > 0).sum() > 20
    assert bright.max() > 0.4


@pytest.mark.parametrize("gloss", [0.0, 0.3])
def test_lights_add_up(gloss: float) -> None:
    """The first lamp casts shadows, the others do not: so the second is drawn alone after a dark first, of which all
    is seen."""
    albedo = np.random.default_rng(1).uniform(0.1, 0.8, (3, len(MEAN))).astype(np.float32)
    one, other = lamp_from([1, 0.3, 0.3], 0.6), lamp_from([-1, 0.5, 1], 0.9)
    dark = lamp_from([0, 0, 1], 0.0)
    both = painted([one, other], 0.3, gloss, albedo).color
    apart = painted([one], 0.3, gloss, albedo).color + painted([dark, other], 0.0, gloss, albedo).color
    np.testing.assert_allclose(both, apart, atol=1e-5)


def test_what_lies_behind_the_head_is_in_its_shadow() -> None:
    """Lit from the subject's left: vertices that turn towards the lamp and stand free see it, the right half does
    not, but for the rim of the toy's open back."""
    direction = np.array([1.0, 0.0, 0.0])
    lit = painter()._lit_by(MEAN, direction)
    normals = vertex_normals(MODEL.mean, MODEL.triangles).numpy()
    assert set(lit) == {0.0, 1.0}
    assert lit[(normals[:, 0] > 0.5) & (MEAN[:, 0] > 45)].mean() > 0.97
    assert lit[MEAN[:, 0] < -30].mean() < 0.1


def test_a_warp_is_mostly_alike_on_both_sides_and_smooth() -> None:
    fields = Fields(MEAN, MODEL.topology.mirror)
    warps = np.stack([fields.warp(np.random.default_rng(seed)) for seed in range(40)])
    across = warps[:, MODEL.topology.mirror] * [-1, 1, 1]
    alike, unlike = ((warps + across) / 2).std(), ((warps - across) / 2).std()
    assert 0.02 < unlike / alike < 0.5
    assert 0.5 < warps.std() < 5
    edges = MODEL.topology.triangles[:, :2]
    steps = warps[:, edges[:, 0]] - warps[:, edges[:, 1]]
    assert steps.std() < 0.5 * warps.std()
