from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts import central_difference
from jaxtyping import Float, Int
from torch import Tensor

from facefit.rendering.interpolate import differentiable_barycentric, interpolate
from facefit.rendering.rasterize import Fragments, rasterize

TRIANGLES = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6]])
HEIGHT, WIDTH = 20, 22


def mesh() -> tuple[Float[Tensor, "7 2"], Float[Tensor, "7"]]:
    """Two triangles that share an edge and a third, nearer, over a part of them."""
    pixels = [[1.3, 2.2], [3.1, 18.4], [19.7, 3.3], [20.2, 17.6], [8.1, 4.2], [7.3, 12.4], [15.2, 9.1]]
    return torch.tensor(pixels, dtype=torch.float64), torch.tensor([2.0, 3, 4, 5, 1, 1.5, 1.2]).double()


def fragments() -> Fragments:
    return rasterize(*mesh(), TRIANGLES, HEIGHT, WIDTH)


def attributes(channels: int = 2) -> Float[Tensor, "7 channels"]:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(7, channels)))


def test_all_triangles_of_the_example_are_seen() -> None:
    assert set(fragments().triangle.unique().tolist()) == {-1, 0, 1, 2}


def test_a_constant_stays_constant_inside_and_zero_outside() -> None:
    seen = fragments()
    picture = interpolate(seen, torch.full((7, 1), 3.0, dtype=torch.float64), TRIANGLES)
    torch.testing.assert_close(
        picture[seen.covered], torch.full_like(picture[seen.covered], 3.0), rtol=1e-6, atol=0
    )
    assert not picture[~seen.covered].any()


def test_the_weights_of_position_give_the_pixel_back() -> None:
    pixels, depth = mesh()
    seen = differentiable_barycentric(fragments(), pixels, depth, TRIANGLES)
    space = interpolate(seen, torch.cat([pixels * depth[:, None], depth[:, None]], 1), TRIANGLES)
    rows, columns = seen.covered.nonzero(as_tuple=True)
    centres = torch.stack([columns + 0.5, rows + 0.5], 1).double()
    torch.testing.assert_close((space[..., :2] / space[..., 2:])[seen.covered], centres)
    torch.testing.assert_close(space[..., 2][seen.covered], seen.depth[seen.covered])


def test_recomputed_weights_are_the_rasterisers() -> None:
    seen = fragments()
    again = differentiable_barycentric(seen, *mesh(), TRIANGLES)
    torch.testing.assert_close(again.barycentric.float(), seen.barycentric, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.depth.float(), seen.depth, rtol=1e-6, atol=0)
    assert torch.equal(again.triangle, seen.triangle)


def test_interpolation_is_linear_in_the_attributes() -> None:
    seen, values = fragments(), attributes()
    weights = torch.randn(HEIGHT, WIDTH, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = central_difference(
        lambda flat: (interpolate(seen, flat.reshape(7, 2), TRIANGLES) * weights).sum()[None],
        values.reshape(-1),
        1.0,
    )
    values.requires_grad_()
    (interpolate(seen, values, TRIANGLES) * weights).sum().backward()
    # Linear: a difference with step 1 has no truncation error.
    torch.testing.assert_close(values.grad, wanted.reshape(7, 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("of", ["attributes", "depth"])
def test_gradients_by_the_vertices_are_central_differences(of: str) -> None:
    """With visibility held fixed the picture is smooth in the projected vertices and their depths."""
    seen, values = fragments(), attributes()
    weights = torch.randn(HEIGHT, WIDTH, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def total(flat: Float[Tensor, "21"]) -> Float[Tensor, "1"]:
        recomputed = differentiable_barycentric(seen, flat[:14].reshape(7, 2), flat[14:], TRIANGLES)
        if of == "depth":
            return torch.where(seen.covered, recomputed.depth * weights[..., 0], 0).sum()[None]
        return (interpolate(recomputed, values, TRIANGLES) * weights).sum()[None]

    pixels, depth = mesh()
    x = torch.cat([pixels.reshape(-1), depth])
    gradient = torch.func.jacrev(total)(x)
    assert float(gradient.abs().min()) > 0
    torch.testing.assert_close(gradient, central_difference(total, x, 1e-5), rtol=1e-6, atol=1e-6)


def soup(
    seed: int,
) -> tuple[Float[Tensor, "60 2"], Float[Tensor, "60"], Float[Tensor, "60 3"], Int[Tensor, "90 3"]]:
    """Random triangles, some behind the camera or off the picture, with attributes; in float64."""
    random = np.random.default_rng(seed)
    depth = random.uniform(1, 9, 60)
    depth[:4] = [-1.0, 0.0, -3.0, 1e-9]
    arrays = random.uniform(-5, 27, (60, 2)), depth, random.normal(size=(60, 3))
    pixels, distance, values = (torch.from_numpy(a).float().double() for a in arrays)
    return pixels, distance, values, torch.from_numpy(random.integers(0, 60, (90, 3)))


@pytest.mark.parametrize("seed", range(4))
def test_single_precision_gives_the_pictures_and_gradients_of_double(seed: int) -> None:
    """The compiled kernels of float32 against plain torch in float64: weights, depth and all three gradients."""
    pixels, depth, values, triangles = soup(seed)
    seen = rasterize(pixels, depth, triangles, HEIGHT, WIDTH)
    random = torch.Generator().manual_seed(seed)
    by_color, by_depth = torch.randn(HEIGHT, WIDTH, 4, generator=random).double().split([3, 1], -1)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (pixels, depth, values)]
        recomputed = differentiable_barycentric(seen, leaves[0], leaves[1], triangles)
        picture = interpolate(recomputed, leaves[2], triangles)
        near = torch.where(seen.covered, recomputed.depth, torch.zeros_like(recomputed.depth))
        loss = (picture * by_color.to(dtype)).sum() + (near * by_depth[..., 0].to(dtype)).sum()
        results.append((picture.detach(), near.detach(), *torch.autograd.grad(loss, leaves)))
    assert seen.covered.sum() > 100
    for single, double in zip(*results, strict=True):
        assert single.dtype == torch.float32 and bool(torch.isfinite(single).all())
        # Slivers amplify: an error is counted against the largest number of its kind.
        scale = float(double.abs().max())
        torch.testing.assert_close(single.double(), double, atol=2e-5 * scale, rtol=1e-4)


def test_nothing_covered_gives_a_black_picture_with_gradients() -> None:
    pixels, depth = mesh()
    pixels = (pixels - 100).requires_grad_()
    seen = differentiable_barycentric(rasterize(pixels, depth, TRIANGLES, 4, 4), pixels, depth, TRIANGLES)
    picture = interpolate(seen, attributes(), TRIANGLES)
    assert picture.shape == (4, 4, 2) and not picture.any()
    picture.sum().backward()
    assert pixels.grad is not None and not pixels.grad.any()
