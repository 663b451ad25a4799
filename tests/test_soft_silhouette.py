"""The soft silhouette: SoftRas' definition, a true gradient, and the hard silhouette in the limit."""

from __future__ import annotations

import math

import pytest
import torch
from contracts import central_difference
from torch import Tensor
from toy import toy_model, toy_scene

from facefit.rendering import soft_silhouette as module
from facefit.rendering.rasterize import rasterize
from facefit.rendering.soft_silhouette import near_rim, soft_silhouette, touched

HEIGHT, WIDTH = 20, 24
TRIANGLES = torch.tensor([[0, 1, 2], [1, 3, 2]])
PIXELS = torch.tensor([[4.2, 3.1], [6.3, 15.6], [17.4, 5.2], [18.9, 14.3]], dtype=torch.float64)
DEPTH = torch.full((4,), 10.0, dtype=torch.float64)


def projected_toy(size: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    model, scene = toy_model(), toy_scene(2, 25.0)
    points = scene.pose.apply(scene.shape(model))
    return scene.camera.project(points) * size / scene.camera.height, points[:, 2], model.triangles


def by_definition(pixels: Tensor, blur: float) -> Tensor:
    """Every pixel against every triangle, the distance to its rim sampled at 2,000 points."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    centre = torch.stack([x, y], -1).reshape(-1, 1, 2).double()
    t = torch.linspace(0, 1, 2000, dtype=torch.float64)[:, None]
    miss = torch.ones(len(centre), dtype=torch.float64)
    hard = [
        rasterize(pixels, DEPTH, tri[None], HEIGHT, WIDTH, False).covered.reshape(-1) for tri in TRIANGLES
    ]
    for corner, inside in zip(pixels[TRIANGLES], hard, strict=True):
        rim = torch.cat([corner[i] + t * (corner[(i + 1) % 3] - corner[i]) for i in range(3)])
        squared = ((centre - rim) ** 2).sum(-1).amin(1) / blur**2
        miss *= 1 - torch.sigmoid(torch.where(inside, squared, -squared))
    return (1 - miss).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize("blur", [0.4, 1.5])
def test_near_the_rim_it_is_the_definition(blur: float) -> None:
    soft, expected = (
        soft_silhouette(PIXELS, DEPTH, TRIANGLES, HEIGHT, WIDTH, blur),
        by_definition(PIXELS, blur),
    )
    hard = rasterize(PIXELS, DEPTH, TRIANGLES, HEIGHT, WIDTH, False).covered
    radius = math.ceil(blur * math.log(1 / module.NEGLIGIBLE) ** 0.5) + 1
    inside = hard & ~near_rim(hard | touched(PIXELS, HEIGHT, WIDTH), radius)
    # Deep inside, the definition has a seam along the shared edge (1 - 1/4), which is no silhouette.
    torch.testing.assert_close(soft[~inside], expected[~inside], atol=3e-4, rtol=0)
    assert bool((soft[inside] == 1).all())


@pytest.mark.parametrize("blur", [0.5, 1.5])
def test_the_gradient_is_a_central_difference(blur: float) -> None:
    """Steps of 1e-5 px: the kinks (corners, nearest sides) lie a thousand times further from any centre."""

    def values(x: Tensor) -> Tensor:
        return soft_silhouette(x.reshape(-1, 2), DEPTH, TRIANGLES, HEIGHT, WIDTH, blur).reshape(-1)

    x = PIXELS.reshape(-1)
    jacobian = torch.autograd.functional.jacobian(values, x)
    expected = central_difference(values, x, torch.full_like(x, 1e-5))
    torch.testing.assert_close(jacobian, expected, atol=1e-6, rtol=1e-5)
    assert float(expected.abs().max()) > 0.1


def test_on_a_head_the_gradient_of_a_loss_is_a_central_difference() -> None:
    pixels, depth, triangles = (t.double() if t.is_floating_point() else t for t in projected_toy(48))
    target = torch.rand(48, 44, generator=torch.Generator().manual_seed(0)).double()
    direction = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1)).double()

    def loss(x: Tensor) -> Tensor:
        return (soft_silhouette(x, depth, triangles, 48, 44, 0.7) * target).sum()

    (gradient,) = torch.autograd.grad(loss(leaf := pixels.clone().requires_grad_()), leaf)
    step = 1e-6
    expected = float(loss(pixels + step * direction) - loss(pixels - step * direction)) / (2 * step)
    # A pair at the limit of the band adds or takes up to 1e-4; none happens to within 1e-6 px.
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_without_blur_it_becomes_the_hard_silhouette() -> None:
    pixels, depth, triangles = projected_toy()
    soft = soft_silhouette(pixels, depth, triangles, 96, 88, 0.01)
    hard = rasterize(pixels, depth, triangles, 96, 88, False).covered
    assert float((soft - hard.float()).abs().mean()) < 1e-3


def test_it_swells_with_blur_and_stays_a_probability() -> None:
    pixels, depth, triangles = projected_toy()
    areas = []
    for blur in (0.1, 0.5, 1.0, 2.0):
        soft = soft_silhouette(pixels, depth, triangles, 96, 88, blur)
        assert 0 <= float(soft.min()) and float(soft.max()) <= 1
        areas.append(float(soft.sum()))
    assert areas == sorted(areas)


def test_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory bounded by pieces that are computed again on the way back: the same value and gradient."""
    found = []
    for pairs in (1 << 18, 1 << 12):
        monkeypatch.setattr(module, "PAIRS", pairs)
        pixels, depth, triangles = projected_toy()
        pixels = pixels.double().requires_grad_()
        soft = soft_silhouette(pixels, depth, triangles, 96, 88, 0.5)
        (gradient,) = torch.autograd.grad((soft * torch.arange(88)).sum(), pixels)
        found.append((soft.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_part_too_thin_for_a_pixel_centre_is_still_seen() -> None:
    sliver = torch.tensor([[5.1, 4.2], [5.2, 12.3], [5.3, 4.2]], dtype=torch.float64)
    assert not rasterize(sliver, DEPTH[:3], TRIANGLES[:1], HEIGHT, WIDTH, False).covered.any()
    assert 0.2 < float(soft_silhouette(sliver, DEPTH[:3], TRIANGLES[:1], HEIGHT, WIDTH, 0.5).max()) < 0.6


def test_triangles_behind_the_camera_and_nonsense_are_ignored() -> None:
    for pixels, depth in ((PIXELS, -DEPTH), (PIXELS * torch.nan, DEPTH), (PIXELS + 500, DEPTH)):
        leaf = pixels.clone().requires_grad_()
        soft = soft_silhouette(leaf, depth, TRIANGLES, HEIGHT, WIDTH)
        assert float(soft.detach().abs().max()) == 0
    with pytest.raises(ValueError, match="blur_px = 0"):
        soft_silhouette(PIXELS, DEPTH, TRIANGLES, HEIGHT, WIDTH, 0.0)
