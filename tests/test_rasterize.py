from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from scipy.spatial import ConvexHull, Delaunay
from torch import Tensor

from facefit.rendering.rasterize import Fragments, rasterize, rasterize_reference, rasterize_torch

# Projected vertices, their depths, and who joins them: what every rasteriser takes first.
Mesh = tuple[Float[Tensor, "vertices 2"], Float[Tensor, "vertices"], Int[Tensor, "triangles 3"]]


def soup(seed: int, triangles: int = 60, size: float = 24.0) -> Mesh:
    """Random triangles with shared vertices, some off the picture, behind the camera or degenerate."""
    random = np.random.default_rng(seed)
    vertices = 40
    pixels = random.uniform(-0.4 * size, 1.4 * size, (vertices, 2))
    depth = random.uniform(1, 9, vertices)
    depth[random.integers(0, vertices, 4)] = [-2.0, 0.0, 1e-7, -1e-3]
    pixels[1] = pixels[0]
    index = random.integers(0, vertices, (triangles, 3))
    index[0], index[1] = (0, 1, 5), (7, 7, 8)
    return torch.from_numpy(pixels), torch.from_numpy(depth), torch.from_numpy(index)


def snapped_soup(seed: int) -> Mesh:
    """The same on quarters of pixels and few depths: centres on edges and corners, ties."""
    pixels, depth, index = soup(seed)
    return (4 * pixels).round() / 4, depth.round(), index


def single(*corners: tuple[float, float], depth: float = 2.0) -> Mesh:
    return torch.tensor(corners), torch.full((3,), depth), torch.tensor([[0, 1, 2]])


def assert_same_fragments(a: Fragments, b: Fragments) -> None:
    assert torch.equal(a.triangle, b.triangle)
    torch.testing.assert_close(a.barycentric, b.barycentric, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-6, atol=0)


@pytest.mark.parametrize("cull_back", [True, False])
@pytest.mark.parametrize("make", [soup, snapped_soup])
@pytest.mark.parametrize("seed", range(6))
def test_numba_torch_and_reference_see_the_same_triangles(make: object, seed: int, cull_back: bool) -> None:
    mesh = make(seed)  # type: ignore[operator]
    height, width = 24, 31
    kernel = rasterize(*mesh, height, width, cull_back)
    assert_same_fragments(kernel, rasterize_torch(*mesh, height, width, cull_back))
    reference = rasterize_reference(*(part.numpy() for part in mesh), height, width, cull_back)
    np.testing.assert_array_equal(kernel.triangle, reference)
    assert 0.1 < float(kernel.covered.float().mean()) <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make", [soup, snapped_soup])
def test_cuda_sees_the_same_triangles(make: object) -> None:
    for seed in range(6):
        mesh = make(seed)  # type: ignore[operator]
        on_device = rasterize(*(part.cuda() for part in mesh), 24, 31)
        assert on_device.triangle.is_cuda
        back = Fragments(*(t.cpu() for t in (on_device.triangle, on_device.barycentric, on_device.depth)))
        assert_same_fragments(back, rasterize(*mesh, 24, 31))


@pytest.mark.parametrize("width", range(1, 10))
def test_pictures_of_any_width_show_the_same_triangles(width: int) -> None:
    """Narrower than the four pixels that are drawn at once, and no multiple of four."""
    pixels, depth, triangles = soup(3)
    seen = rasterize(pixels, depth, triangles, 12, width).triangle.numpy()
    wanted = rasterize_reference(pixels.numpy(), depth.numpy(), triangles.numpy(), 12, width)
    assert (wanted >= 0).any()
    np.testing.assert_array_equal(seen, wanted)


def test_a_triangle_around_one_pixel_centre_covers_one_pixel() -> None:
    # Centre of pixel (row 3, column 5): (5.5, 3.5). Counter-clockwise as seen, y down.
    found = rasterize(*single((5.4, 3.4), (5.4, 3.7), (5.7, 3.4)), 8, 10)
    assert found.covered.nonzero().tolist() == [[3, 5]]


def test_a_triangle_between_pixel_centres_covers_none() -> None:
    assert not rasterize(*single((5.6, 3.6), (5.6, 4.4), (6.4, 3.6)), 8, 10).covered.any()


def test_the_picture_is_covered_to_its_very_corners() -> None:
    found = rasterize(*single((0.5, 0.5), (0.5, 15.0), (15.0, 0.5)), 4, 4)
    assert found.covered.all()
    torch.testing.assert_close(found.barycentric[0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_triangle_seen_from_behind_is_culled_unless_asked_for() -> None:
    pixels, depth, index = single((1.0, 1.0), (1.0, 7.0), (7.0, 1.0))
    away = index.flip(1)
    assert rasterize(pixels, depth, index, 8, 8).covered.any()
    assert not rasterize(pixels, depth, away, 8, 8).covered.any()
    both = [rasterize(pixels, depth, order, 8, 8, cull_back=False).covered for order in (index, away)]
    assert torch.equal(both[0], both[1]) and both[0].any()


@pytest.mark.parametrize("depth", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_triangle_that_reaches_behind_the_camera_is_dropped(depth: float) -> None:
    pixels, depths, index = single((1.0, 1.0), (1.0, 7.0), (7.0, 1.0))
    depths[1] = depth
    for draw in (rasterize, rasterize_torch):
        assert not draw(pixels, depths, index, 8, 8).covered.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_vertex_that_is_not_finite_drops_its_triangles_only(bad: float) -> None:
    pixels = torch.tensor([[1.0, 1.0], [1.0, 7.0], [7.0, 1.0], [bad, 2.0]])
    index = torch.tensor([[0, 1, 2], [0, 1, 3], [3, 1, 2]])
    for draw in (rasterize, rasterize_torch):
        found = draw(pixels, torch.full((4,), 2.0), index, 8, 8, False)
        assert set(found.triangle.unique().tolist()) == {-1, 0}


@pytest.mark.parametrize("reach", [1e6, 1e12, 1e20, 1e60])
def test_a_triangle_far_larger_than_the_picture_covers_it(reach: float) -> None:
    pixels = torch.tensor([[-reach, -reach], [-reach, 3 * reach], [3 * reach, -reach]], dtype=torch.float64)
    for draw in (rasterize, rasterize_torch):
        assert draw(pixels, torch.full((3,), 2.0), torch.tensor([[0, 1, 2]]), 5, 6).covered.all()


def test_an_empty_mesh_covers_nothing() -> None:
    empty = torch.zeros(0, 3, dtype=torch.int64)
    for vertices in (torch.zeros(0, 2), torch.ones(4, 2)):
        for draw in (rasterize, rasterize_torch):
            found = draw(vertices, torch.ones(len(vertices)), empty, 3, 5)
            assert found.triangle.shape == (3, 5) and not found.covered.any()
            assert bool(torch.isinf(found.depth).all()) and not found.barycentric.any()


def test_the_nearest_triangle_wins_and_at_equal_depth_the_lower_number() -> None:
    pixels = torch.tensor([[1.0, 1.0], [1.0, 9.0], [9.0, 1.0]]).repeat(3, 1)
    depth = torch.tensor([5.0, 5.0, 5.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    index = torch.arange(9).reshape(3, 3)
    for draw in (rasterize, rasterize_torch):
        assert set(draw(pixels, depth, index, 10, 10).triangle.unique().tolist()) == {-1, 1}


def test_weights_are_perspective_correct() -> None:
    """What lies in a plane of space keeps doing so: 1 / z is affine in pixels, points come back."""
    pixels = torch.tensor([[1.0, 2.0], [3.0, 30.0], [31.0, 4.0]], dtype=torch.float64)
    depth = torch.tensor([100.0, 400.0, 900.0], dtype=torch.float64)
    found = rasterize(pixels, depth, torch.tensor([[0, 1, 2]]), 32, 32)
    rows, columns = found.covered.nonzero(as_tuple=True)
    centres = torch.stack([columns + 0.5, rows + 0.5], 1).double()
    plane = torch.linalg.solve(torch.cat([pixels, torch.ones(3, 1)], 1), 1 / depth)
    expected = centres @ plane[:2] + plane[2]
    torch.testing.assert_close(1 / found.depth[found.covered].double(), expected, rtol=1e-6, atol=0)
    # Space points (x, y, z) ~ (u z, v z, z): blending them with the weights projects back to the centre.
    space = torch.cat([pixels * depth[:, None], depth[:, None]], 1)
    blended = found.barycentric[found.covered].double() @ space
    torch.testing.assert_close(blended[:, :2] / blended[:, 2:], centres, rtol=1e-5, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_convex(seed: int) -> None:
    found = rasterize(*soup(seed), 24, 31)
    weights = found.barycentric[found.covered]
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


@pytest.mark.parametrize("seed", range(6))
def test_slivers_through_pixel_centres_have_convex_weights(seed: int) -> None:
    """One needle per pixel, 1e-12 to 1e-20 pixel wide: whether it is seen is chance, what it shows is not."""
    random, side = np.random.default_rng(seed), 20
    centre = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 1, 2) + 0.5
    angle = random.uniform(0, 2 * np.pi, (len(centre), 1, 1))
    along = np.concatenate([np.cos(angle), np.sin(angle)], 2)
    across = np.concatenate([-np.sin(angle), np.cos(angle)], 2)
    size = (len(centre), 3, 1)
    width = random.normal(size=size) * 10 ** -random.uniform(12, 20, (len(centre), 1, 1))
    pixels = torch.from_numpy(
        (centre + random.uniform(-0.4, 0.4, size) * along + width * across).reshape(-1, 2)
    )
    depth = torch.from_numpy(random.uniform(1, 9, len(pixels)))
    index = torch.arange(len(pixels)).reshape(-1, 3)
    found = rasterize(pixels, depth, index, side, side, cull_back=False)
    weights = found.barycentric[found.covered]
    assert len(weights) > 20
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    corners = depth[index[found.triangle[found.covered].long()]]
    seen = found.depth[found.covered]
    assert bool(((seen > corners.amin(1) * 0.999) & (seen < corners.amax(1) * 1.001)).all())


@pytest.mark.parametrize("grid", [1, 2, 3, 4, 7, 0])
@pytest.mark.parametrize("seed", range(3))
def test_a_triangulated_plane_has_no_crack(seed: int, grid: int) -> None:
    """Every pixel centre inside the hull is covered, also where edges and corners pass through centres.

    Vertices lie on 1 / grid pixels, in float32 as projected vertices do; 0 for no grid at all.
    """
    random = np.random.default_rng(seed)
    points = random.uniform(-5, 45, (160, 2))
    points = np.round(points * grid) / grid if grid else points
    points = np.unique(points.astype(np.float32), axis=0).astype(np.float64)
    index = Delaunay(points).simplices
    pixels, depth = torch.from_numpy(points), torch.from_numpy(random.uniform(1, 5, len(points)))
    found = rasterize(pixels, depth, torch.from_numpy(index.astype(np.int64)), 40, 40, cull_back=False)
    corner = points[ConvexHull(points).vertices]
    v, u = np.mgrid[0:40, 0:40] + 0.5
    inside = np.ones_like(u, dtype=bool)
    for (ax, ay), (bx, by) in zip(corner, np.roll(corner, -1, axis=0), strict=True):
        inside &= (bx - ax) * (v - ay) - (by - ay) * (u - ax) > 1e-6
    assert inside.sum() > 800
    assert found.covered.numpy()[inside].all()


def test_a_closed_surface_is_seen_everywhere_or_nowhere() -> None:
    """A sphere's front and its back cover the same pixels but for the rim: no gap between neighbours."""
    random = np.random.default_rng(0).normal(size=(300, 3))
    points = random / np.linalg.norm(random, axis=1, keepdims=True)
    index = ConvexHull(points).simplices.astype(np.int64)
    corners = points[index]
    inward = (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * corners[:, 0]).sum(
        1
    ) < 0
    index[inward] = index[inward][:, ::-1]
    space = points * [20.0, -20.0, -20.0] + [0, 0, 100]
    pixels = torch.from_numpy((100 * space[:, :2] / space[:, 2:] + 30).astype(np.float32))
    depth = torch.from_numpy(space[:, 2])
    front = rasterize(pixels, depth, torch.from_numpy(index), 60, 60)
    back = rasterize(pixels, depth, torch.from_numpy(index[:, ::-1].copy()), 60, 60)
    assert torch.equal(front.covered, back.covered) and front.covered.sum() > 1000
    assert bool((front.depth <= back.depth).all())


def test_the_input_is_not_written_to() -> None:
    mesh = soup(0)
    copies = [part.clone() for part in mesh]
    rasterize(*mesh, 24, 31)
    assert all(torch.equal(part, copy) for part, copy in zip(mesh, copies, strict=True))
