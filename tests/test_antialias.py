"""Antialiased silhouettes: the area is the polygon's, the gradient is the area's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contracts import central_difference
from jaxtyping import Float, Int
from torch import Tensor

from facefit.rendering.antialias import antialias, coverage, silhouette_edges
from facefit.rendering.rasterize import rasterize

SIZE = 32


def disc(
    rings: int, radius: float = 9.7, centre: tuple[float, float] = (15.3, 16.4)
) -> tuple[Tensor, Tensor]:
    """A disc of triangles, seen from the front; its vertices in pixels and its triangles."""
    sides = 6 * rings
    points, triangles = [(0.0, 0.0)], []
    for ring in range(1, rings + 1):
        for k in range(sides):
            angle = 2 * math.pi * (k + 0.3) / sides
            points.append((ring / rings * math.cos(angle), ring / rings * math.sin(angle)))
    for k in range(sides):
        first, second = 1 + k, 1 + (k + 1) % sides
        triangles.append((0, second, first))
        for ring in range(rings - 1):
            a, b = first + ring * sides, second + ring * sides
            triangles += [(a, b, b + sides), (a, b + sides, a + sides)]
    pixels = radius * torch.tensor(points, dtype=torch.float64) + torch.tensor(centre, dtype=torch.float64)
    return pixels, torch.tensor(triangles)


def shoelace(pixels: Float[Tensor, "vertices 2"], rim: Int[np.ndarray, "n"] | list[int]) -> float:
    x, y = pixels[rim].T
    return 0.5 * abs(float((x * y.roll(-1) - x.roll(-1) * y).sum()))


def rim(rings: int) -> list[int]:
    sides = 6 * rings
    return list(range(1 + (rings - 1) * sides, 1 + rings * sides))


def flat(pixels: Tensor) -> Tensor:
    return torch.full((len(pixels),), 10.0, dtype=torch.float64)


@pytest.mark.parametrize("rings", [1, 2, 8])
def test_coverage_sums_to_the_area_however_fine_the_mesh(rings: int) -> None:
    """A quadrature by rows and columns: what is left are the corners."""
    pixels, triangles = disc(rings)
    share = coverage(pixels, flat(pixels), triangles, SIZE, SIZE)
    assert 0 <= float(share.min()) and float(share.max()) <= 1
    assert float(share.sum()) == pytest.approx(shoelace(pixels, rim(rings)), rel=0.01)


def test_no_other_edges_than_the_rim_are_silhouettes() -> None:
    pixels, triangles = disc(4)
    edges = silhouette_edges(pixels, flat(pixels), triangles)
    assert sorted(edges.ends.flatten().tolist()) == sorted([*rim(4), *rim(4)])


@pytest.mark.parametrize("rings", [1, 8])
def test_the_gradient_of_the_area_is_the_areas(rings: int) -> None:
    """Growing by a factor 1 + e adds 2 e area; moving adds nothing."""
    pixels, triangles = disc(rings)
    pixels.requires_grad_()
    share = coverage(pixels, flat(pixels), triangles, SIZE, SIZE)
    (gradient,) = torch.autograd.grad(share.sum(), pixels)
    centre = torch.tensor([15.3, 16.4], dtype=torch.float64)
    growth = float((gradient * (pixels.detach() - centre)).sum())
    assert growth == pytest.approx(2 * shoelace(pixels.detach(), rim(rings)), rel=0.05)
    # Rows and columns cut a side at a handful of places: the sum over the rim is zero up to a few of them.
    assert float(gradient.sum(0).abs().max()) < 2


@pytest.mark.parametrize("rings", [1, 3])
def test_the_gradient_is_a_central_difference_at_every_pixel(rings: int) -> None:
    """Each share is a ratio of linear functions between kinks; steps of 1e-5 px stay clear of kinks here."""
    pixels, triangles = disc(rings)
    z = flat(pixels)

    def shares(x: Tensor) -> Tensor:
        return coverage(x.reshape(-1, 2), z, triangles, SIZE, SIZE).reshape(-1)

    x = pixels.reshape(-1)
    jacobian = torch.autograd.functional.jacobian(shares, x)
    expected = central_difference(shares, x, torch.full_like(x, 1e-5))
    torch.testing.assert_close(jacobian, expected, atol=1e-6, rtol=1e-5)
    assert float(expected.abs().max()) > 0.3


def test_it_is_continuous_where_the_rasteriser_jumps() -> None:
    """A disc that slides by a pixel in 100 steps; a rim's weight jumps at corners, here of 7.5 degrees."""
    pixels, triangles = disc(8)
    previous = None
    for step in range(101):
        moved = pixels + torch.tensor([step / 100, 0.31 * step / 100], dtype=torch.float64)
        share = coverage(moved, flat(pixels), triangles, SIZE, SIZE)
        if previous is not None:
            assert float((share - previous).abs().max()) < 0.1
        previous = share


def test_a_constant_picture_stays_constant_and_far_pixels_stay_as_they_are() -> None:
    pixels, triangles = disc(4)
    seen = rasterize(pixels, flat(pixels), triangles, SIZE, SIZE)
    image = torch.full((SIZE, SIZE, 3), 0.7, dtype=torch.float64)
    torch.testing.assert_close(antialias(image, seen, pixels, flat(pixels), triangles), image)
    noise = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)).double()
    changed = (antialias(noise, seen, pixels, flat(pixels), triangles) != noise).any(-1)
    radius = (torch.arange(SIZE) + 0.5 - 16.4)[:, None] ** 2 + (torch.arange(SIZE) + 0.5 - 15.3)[None] ** 2
    assert bool(((radius.sqrt() - 9.6).abs()[changed] < 1.5).all()) and 40 < int(changed.sum()) < 90


def two_discs(near: float, far: float) -> tuple[Tensor, Tensor, Tensor]:
    """A small disc before a large one."""
    front, triangles = disc(3, 5.2)
    back, more = disc(3, 12.1)
    depth = torch.cat([torch.full((len(front),), near), torch.full((len(back),), far)]).double()
    return torch.cat([front, back]), depth, torch.cat([triangles, more + len(front)])


def test_a_nose_before_a_cheek_has_a_smooth_rim_too() -> None:
    pixels, depth, triangles = two_discs(5.0, 10.0)
    seen = rasterize(pixels, depth, triangles, SIZE, SIZE)
    front = (seen.triangle.ge(0) & (seen.depth < 7)).double()[..., None]
    area = shoelace(pixels, rim(3))
    assert float(antialias(front, seen, pixels, depth, triangles).sum()) == pytest.approx(area, rel=0.01)


def test_a_rim_behind_something_does_not_show() -> None:
    pixels, depth, triangles = two_discs(10.0, 5.0)
    seen = rasterize(pixels, depth, triangles, SIZE, SIZE)
    noise = torch.rand(SIZE, SIZE, 1, generator=torch.Generator().manual_seed(0)).double()
    changed = (antialias(noise, seen, pixels, depth, triangles) != noise)[..., 0]
    radius = (torch.arange(SIZE) + 0.5 - 16.4)[:, None] ** 2 + (torch.arange(SIZE) + 0.5 - 15.3)[None] ** 2
    assert bool((radius[changed].sqrt() > 9).all())


def test_the_colour_passes_its_gradient() -> None:
    pixels, triangles = disc(2)
    seen = rasterize(pixels, flat(pixels), triangles, SIZE, SIZE)
    image = torch.rand(SIZE, SIZE, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(antialias(image, seen, pixels, flat(pixels), triangles).sum(), image)
    assert float(gradient.sum()) == pytest.approx(SIZE * SIZE * 2)


def test_nothing_drawn_and_nonsense_are_harmless() -> None:
    pixels, triangles = disc(2)
    for x, z in ((pixels + 1000, flat(pixels)), (pixels, -flat(pixels)), (pixels * torch.nan, flat(pixels))):
        share = coverage(x.requires_grad_(), z, triangles, SIZE, SIZE)
        assert float(share.detach().abs().sum()) == 0
