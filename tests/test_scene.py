from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from contracts import SMOOTH_BLOCKS, same_scene, subsets
from toy import toy_model, toy_scene

from facefit.models.scene import BLOCKS, Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    offsets = torch.randn(toy_model().n_vertices, 3, generator=torch.Generator().manual_seed(0))
    return replace(toy_scene(3), offsets=offsets)


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_comes_back_from_its_vector(scene: Scene, name: str) -> None:
    # A logarithm and its inverse lose one bit of the focal length; everything else is copied.
    back = scene.with_packed((name,), scene.pack((name,)))
    torch.testing.assert_close(back.block(name), scene.block(name), rtol=3e-7, atol=0)
    for other in set(BLOCKS) - {name}:
        assert torch.equal(back.block(other), scene.block(other))


def test_packing_inverts_with_packed_for_every_subset(scene: Scene) -> None:
    for number, free in enumerate(subsets(BLOCKS)):
        if number % 5:
            continue
        size = len(scene.pack(free))
        x = torch.randn(size, generator=torch.Generator().manual_seed(number))
        torch.testing.assert_close(scene.with_packed(free, x).pack(free), x, rtol=1e-5, atol=1e-6)


def test_the_order_of_names_does_not_matter(scene: Scene) -> None:
    expected = scene.pack(("rotation", "focal", "albedo", "lighting"))
    for free in permutations(("lighting", "albedo", "rotation", "focal")):
        assert torch.equal(scene.pack(free), expected)
        assert same_scene(
            scene.with_packed(free, expected),
            scene.with_packed(("rotation", "focal", "albedo", "lighting"), expected),
        )


def test_the_layout_is_gapless_and_in_the_order_of_blocks(scene: Scene) -> None:
    layout = scene.layout(BLOCKS)
    assert tuple(layout) == BLOCKS
    ends = [0]
    for name, where in layout.items():
        assert where.start == ends[-1] and where.stop - where.start == scene.block(name).numel()
        ends.append(where.stop)
    assert ends[-1] == len(scene.pack(BLOCKS))


def test_freeing_nothing_packs_to_nothing(scene: Scene) -> None:
    assert scene.pack(()).shape == (0,)
    assert same_scene(scene.with_packed((), scene.pack(())), scene)


def test_an_unknown_block_is_refused_with_the_known_ones(scene: Scene) -> None:
    for call in (
        lambda: scene.layout(("rotation", "hair")),
        lambda: scene.pack(("hair",)),
        lambda: scene.block("hair"),
    ):
        with pytest.raises(ValueError, match="no block '?hair'?; it has rotation, translation"):
            call()


def test_offsets_that_are_not_there_cannot_be_freed() -> None:
    with pytest.raises(ValueError, match="no offsets to free; start from zeros"):
        toy_scene().pack(("offsets",))


def test_a_freed_focal_stays_positive_and_is_called_optimised(scene: Scene) -> None:
    for logarithm in (-20.0, 0.0, 7.0):
        camera = scene.with_packed(("focal",), torch.tensor([logarithm])).camera
        assert float(camera.focal_px) > 0 and camera.focal_source == "optimised"
    assert scene.with_packed(("rotation",), torch.zeros(3)).camera.focal_source == "default"


def test_with_packed_is_differentiable(scene: Scene) -> None:
    x = scene.pack(SMOOTH_BLOCKS).requires_grad_()
    back = scene.with_packed(SMOOTH_BLOCKS, x)
    sum(back.block(name).sum() for name in SMOOTH_BLOCKS).backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_a_scene_is_a_value(scene: Scene) -> None:
    before = scene.pack(BLOCKS).clone()
    moved = scene.with_packed(BLOCKS, 0 * before)
    moved.with_lighting(scene.lighting).with_pose(scene.pose)
    assert torch.equal(scene.pack(BLOCKS), before)
    with pytest.raises(AttributeError):
        scene.identity = torch.zeros(1)  # type: ignore[misc]


def test_the_neutral_scene_is_the_mean_face_in_white_ambient_light() -> None:
    model = toy_model()
    neutral = Scene.neutral(model, toy_scene().camera, 700.0)
    assert torch.equal(neutral.shape(model), model.mean)
    assert neutral.pose.translation_mm.tolist() == [0, 0, 700]
    torch.testing.assert_close(neutral.lighting.irradiance(torch.tensor([[0.0, 0.6, 0.8]])), torch.ones(1, 3))


def test_offsets_add_to_the_shape_and_stay_when_the_expression_goes(scene: Scene) -> None:
    model = toy_model()
    assert scene.offsets is not None
    torch.testing.assert_close(
        scene.shape(model), model.vertices(scene.identity, scene.expression) + scene.offsets
    )
    none = torch.zeros_like(scene.expression)
    torch.testing.assert_close(
        scene.neutral_shape(model), model.vertices(scene.identity, none) + scene.offsets
    )


def test_moving_to_a_device_keeps_every_number(scene: Scene) -> None:
    moved = scene.to("cpu")
    assert same_scene(moved, scene) and torch.equal(moved.block("offsets"), scene.block("offsets"))


def test_albedo_offsets_add_to_the_albedo_and_are_shown(scene: Scene) -> None:
    model = toy_model()
    lighter = replace(scene, albedo_offsets=torch.full((model.n_vertices, 3), 0.1))
    torch.testing.assert_close(lighter.surface_albedo(model), model.albedo(scene.albedo) + 0.1)
    torch.testing.assert_close(scene.surface_albedo(model), model.albedo(scene.albedo))
    assert lighter.to("cpu").albedo_offsets is not None
