from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from contracts import SMOOTH_BLOCKS, central_difference
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from toy import in_double, toy_model, toy_scene

from facefit.fitting.residual import to_double
from facefit.mesh import vertex_normals
from facefit.models.camera import Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.picture import Picture, project, render
from facefit.rendering.shade import linear_to_srgb


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return toy_model()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return toy_scene(0)


def centroid(picture: Picture) -> Float[Tensor, "2"]:
    rows, columns = picture.covered.nonzero(as_tuple=True)
    return torch.stack([columns.double().mean(), rows.double().mean()]) + 0.5


def moved(scene: Scene, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Scene:
    return scene.with_pose(Pose(scene.pose.rotation, scene.pose.translation_mm + torch.tensor([x, y, z])))


def test_ambient_light_shows_pure_albedo(scene: Scene, model: LinearFaceModel) -> None:
    picture = render(scene.with_lighting(Lighting.ambient(1.0)), model)
    assert picture.covered.sum() > 5000
    covered = picture.covered
    torch.testing.assert_close(picture.irradiance[covered], torch.ones_like(picture.irradiance[covered]))
    torch.testing.assert_close(picture.color[covered], linear_to_srgb(picture.albedo[covered]))


def test_outside_the_face_the_picture_is_empty(scene: Scene, model: LinearFaceModel) -> None:
    picture = render(scene, model)
    outside = ~picture.covered
    for layer in (picture.color, picture.albedo, picture.irradiance, picture.normals):
        assert not layer[outside].any()
    assert bool(torch.isinf(picture.depth[outside]).all()) and bool((picture.triangle[outside] == -1).all())


def test_a_notebook_shows_the_colours(scene: Scene, model: LinearFaceModel) -> None:
    picture = render(scene, model)
    shown = np.asarray(Image.open(BytesIO(picture._repr_png_())))
    assert shown.shape == picture.color.shape
    assert np.abs(shown / 255 - picture.color.clamp(0, 1).numpy()).max() < 0.51 / 255


def test_normals_are_unit_and_face_the_camera(scene: Scene, model: LinearFaceModel) -> None:
    picture = render(scene, model)
    normals = picture.normals[picture.covered]
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(normals)))
    towards = -(normals @ scene.pose.camera_from_model.T)[:, 2]
    # Interpolated normals bend a little beyond the rim.
    assert float((towards > -0.2).float().mean()) > 0.999


def test_the_picture_moves_the_way_the_head_moves(scene: Scene, model: LinearFaceModel) -> None:
    here = centroid(render(scene, model))
    right, down = centroid(render(moved(scene, x=20), model)), centroid(render(moved(scene, y=20), model))
    shift = float(scene.camera.focal_px) * 20 / float(scene.pose.translation_mm[2])
    assert float((right - here)[0]) == pytest.approx(shift, rel=0.15) and abs(float((right - here)[1])) < 0.5
    assert float((down - here)[1]) == pytest.approx(shift, rel=0.15) and abs(float((down - here)[0])) < 0.5


def test_the_picture_shrinks_with_distance(scene: Scene, model: LinearFaceModel) -> None:
    near, far = render(scene, model), render(moved(scene, z=float(scene.pose.translation_mm[2])), model)
    assert float(far.covered.sum()) == pytest.approx(float(near.covered.sum()) / 4, rel=0.15)
    nearest = float(far.depth.min() - near.depth.min())
    assert nearest == pytest.approx(float(scene.pose.translation_mm[2]), rel=0.02)


def test_a_vertex_appears_in_the_pixel_it_projects_to(scene: Scene, model: LinearFaceModel) -> None:
    vertices = scene.shape(model)
    picture, depth = render(scene, model), scene.pose.apply(vertices)[:, 2]
    facing = -(vertex_normals(vertices, model.triangles) @ scene.pose.camera_from_model.T)[:, 2] > 0.5
    columns, rows = project(scene, vertices[facing]).long().unbind(1)
    behind = depth[facing] - picture.depth[rows, columns]
    # At most the depth a pixel spans where the surface is 60 degrees aslant: nothing is nearer, or a nose is.
    assert float(behind.min()) > -2 and float((behind < 2).float().mean()) > 0.95


def test_a_scaled_picture_is_the_same_picture(scene: Scene, model: LinearFaceModel) -> None:
    full = render(scene, model)
    double = render(scene, model, 2 * scene.camera.width, 2 * scene.camera.height)
    assert double.color.shape == (2 * scene.camera.height, 2 * scene.camera.width, 3)
    whole = double.covered.reshape(scene.camera.height, 2, scene.camera.width, 2).all(3).all(1)
    mean = double.color.reshape(scene.camera.height, 2, scene.camera.width, 2, 3).mean((1, 3))
    inside = whole & full.covered
    assert inside.sum() > 5000
    assert float((mean - full.color)[inside].abs().mean()) < 2e-3
    # The four centres lie around the one, so also the area agrees, to the length of the rim.
    assert float(double.covered.sum()) / 4 == pytest.approx(float(full.covered.sum()), rel=5e-3)


def test_axes_may_be_scaled_apart(scene: Scene, model: LinearFaceModel) -> None:
    wide = render(scene, model, width=2 * scene.camera.width)
    assert wide.covered.shape == (scene.camera.height, 2 * scene.camera.width)
    assert float(wide.covered.sum()) == pytest.approx(2 * float(render(scene, model).covered.sum()), rel=5e-3)


def test_given_vertices_and_albedo_replace_the_models(scene: Scene, model: LinearFaceModel) -> None:
    white = render(scene, model, albedo=torch.ones(model.n_vertices, 3))
    torch.testing.assert_close(white.albedo[white.covered], torch.ones_like(white.albedo[white.covered]))
    mean = render(scene, model, vertices=model.mean)
    bare = replace(scene, identity=0 * scene.identity, expression=0 * scene.expression)
    assert torch.equal(mean.color, render(bare, model).color)


def test_light_from_the_subjects_left_brightens_the_right_of_the_picture(model: LinearFaceModel) -> None:
    frontal = replace(toy_scene(0, 0, 0, 0), albedo=torch.zeros(model.n_albedo))
    lamp = Lighting.directional(torch.tensor([1.0, 0.0, 0.5]), 0.8, 0.1)
    picture = render(frontal.with_lighting(lamp), model)
    middle = int(centroid(picture)[0])
    right = picture.color[:, middle:].sum() / picture.covered[:, middle:].sum()
    left = picture.color[:, :middle].sum() / picture.covered[:, :middle].sum()
    assert float(right) > 1.3 * float(left)


def test_the_light_turns_with_the_head(scene: Scene, model: LinearFaceModel) -> None:
    """The light lives in the model frame: a rolled head is the same picture, rolled."""
    square = toy_scene(0, 0, 0, 0, 240, 240)
    upright = moved(square, *(-square.pose.translation_mm[:2]).tolist())
    rolled = upright.with_pose(Pose(torch.tensor([0.0, 0.0, torch.pi / 2]), upright.pose.translation_mm))
    before, after = render(upright, model).color, render(rolled, model).color
    # z out of the nose: a positive turn takes the subject's left up, anticlockwise in the picture.
    difference = (torch.rot90(before, 1, (0, 1)) - after).abs().amax(-1)
    assert float((difference > 0.02).float().mean()) < 5e-3


def test_a_head_behind_the_camera_is_not_seen(scene: Scene, model: LinearFaceModel) -> None:
    assert not render(moved(scene, z=-2000.0), model).covered.any()


def test_gradients_in_single_precision_are_those_in_double() -> None:
    """The whole chain, every block at once; a thousandth of the largest gradient of its block."""
    scene = toy_scene(4, width=60, height=66)
    gradients = []
    for model, here in ((toy_model(), scene), (in_double(toy_model()), to_double(scene))):
        x = here.pack(SMOOTH_BLOCKS).requires_grad_()
        color = render(here.with_packed(SMOOTH_BLOCKS, x), model).color
        weights = torch.randn(color.shape, generator=torch.Generator().manual_seed(0))
        gradients.append(torch.autograd.grad((color * weights).sum(), x)[0].double())
    for name, where in scene.layout(SMOOTH_BLOCKS).items():
        scale = float(gradients[1][where].abs().max())
        assert float((gradients[0] - gradients[1])[where].abs().max()) < 1e-3 * scale, name


@pytest.mark.parametrize("block", SMOOTH_BLOCKS)
def test_gradients_through_the_renderer_are_central_differences(block: str) -> None:
    """On pixels well inside the silhouette, where visibility does not change; elsewhere the picture jumps."""
    model, scene = in_double(toy_model()), to_double(toy_scene(4, width=60, height=66))
    x = scene.pack((block,))
    # Steps that move the surface by about 1e-4 pixel: no pixel changes its triangle but for the unlucky few.
    step = {"focal": 1e-6, "rotation": 1e-6, "translation": 1e-4}.get(block, 1e-5)

    def colors(y: Float[Tensor, "unknowns"]) -> Float[Tensor, "rows"]:
        # Without gradients the weights are the rasteriser's, in float32: too coarse for a difference.
        with torch.enable_grad():
            return render(scene.with_packed((block,), y.requires_grad_()), model).color.reshape(-1)

    random = torch.Generator().manual_seed(0)
    base = render(scene, model)
    outside = torch.nn.functional.max_pool2d((~base.covered)[None].double(), 7, 1, 3)[0]
    inner = 1 - outside
    weights = inner[..., None] * torch.randn(*base.color.shape, generator=random, dtype=torch.float64)
    assert float(inner.sum()) > 500
    steady = torch.ones_like(base.covered)
    for k in range(len(x)):
        for sign in (-1, 1):
            y = x.clone()
            y[k] += sign * step
            steady &= render(scene.with_packed((block,), y), model).triangle == base.triangle
    assert float(steady.double().mean()) > 0.99
    weights = (weights * steady[..., None]).reshape(-1)
    y = x.clone().requires_grad_()
    (colors(y) * weights).sum().backward()
    wanted = central_difference(lambda z: (colors(z).detach() * weights).sum()[None], x, step)[0]
    assert y.grad is not None
    torch.testing.assert_close(y.grad, wanted, rtol=2e-4, atol=2e-4 * float(wanted.abs().max()))
