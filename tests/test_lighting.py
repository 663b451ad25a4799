from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facefit.models.lighting import Lighting, harmonics, irradiance_basis


def sphere(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and quadrature weights, exact far beyond degree 4: Gauss in z, equal steps around."""
    z, weight = np.polynomial.legendre.leggauss(count)
    around = 2 * np.pi * np.arange(2 * count) / (2 * count)
    radius = np.sqrt(1 - z**2)
    x, y = radius[:, None] * np.cos(around), radius[:, None] * np.sin(around)
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], -1).reshape(-1, 3)
    weights = np.repeat(weight * np.pi / count, 2 * count)
    return torch.from_numpy(points), torch.from_numpy(weights)


def test_the_harmonics_are_orthonormal_under_quadrature() -> None:
    directions, weights = sphere()
    basis = harmonics(directions)
    torch.testing.assert_close(basis.T @ (weights[:, None] * basis), torch.eye(9, dtype=torch.float64))


def test_the_harmonics_are_ordered_by_band_and_have_the_documented_axes() -> None:
    # Band 1: y, z, x; band 2: xy, yz, z2, xz, x2-y2. A flip of one axis flips exactly the odd ones.
    directions, _ = sphere(6)
    flips = {0: {3, 4, 7}, 1: {1, 4, 5}, 2: {2, 5, 7}}
    for axis, odd in flips.items():
        mirrored = directions.clone()
        mirrored[:, axis] *= -1
        signs = torch.tensor([-1.0 if k in odd else 1.0 for k in range(9)], dtype=torch.float64)
        torch.testing.assert_close(harmonics(mirrored), signs * harmonics(directions))


def test_each_harmonic_is_positive_where_its_name_says() -> None:
    # In the order of the basis: y, z, x; xy, yz, 3z2-1, xz, x2-y2, each along its own positive direction.
    towards = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]]
    directions = torch.nn.functional.normalize(torch.tensor(towards, dtype=torch.float64), dim=1)
    values = harmonics(directions)
    assert bool((values[:, 0] > 0).all()) and bool((values[:, 1:].diagonal() > 0).all())


def test_irradiance_is_the_cosine_integral_of_the_light() -> None:
    """The basis is the light convolved with the clamped cosine, over pi: by brute-force integration."""
    directions, weights = sphere(400)
    light = harmonics(directions)
    normals = torch.nn.functional.normalize(
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
    )
    cosine = (normals @ directions.T).clamp(min=0)
    integral = (cosine * weights) @ light / math.pi
    # The kink of the clamped cosine costs the quadrature about 1 / count^2.
    torch.testing.assert_close(irradiance_basis(normals), integral, atol=3e-5, rtol=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 2.5])
def test_ambient_light_falls_equally_on_every_normal(level: float) -> None:
    directions, _ = sphere(8)
    irradiance = Lighting.ambient(level).irradiance(directions.float())
    torch.testing.assert_close(irradiance, torch.full_like(irradiance, level), rtol=1e-6, atol=0)


def test_a_lamp_is_close_to_the_clamped_cosine() -> None:
    directions, weights = sphere()
    towards = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64) / 3
    lamp = Lighting.directional(3.0 * towards, level=1.0, ambient=0.0).irradiance(directions)[:, 0]
    wanted = (directions @ towards).clamp(min=0)
    # Its bands 0 to 2 are 1/4 + x/2 + 5/32 (3 x^2 - 1): worst at the terminator x = 0, by 3/32.
    assert float((lamp - wanted).abs().max()) <= 3 / 32
    # What is left out, by Parseval: the mean square 1/6 less the bands' 1/16, 1/12, 5/256; a root of 0.036.
    rms = float(((lamp - wanted) ** 2 @ weights / (4 * math.pi)).sqrt())
    assert rms == pytest.approx(math.sqrt(1 / 6 - 1 / 16 - 1 / 12 - 5 / 256), rel=1e-3)
    # The mean over the sphere is band 0 alone and therefore exact.
    assert float(lamp @ weights) == pytest.approx(math.pi)


def test_a_lamp_adds_to_the_ambient_floor() -> None:
    directions, _ = sphere(8)
    towards = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    lamp, floor = Lighting.directional(towards, 0.7, 0.0), Lighting.ambient(0.3)
    both = Lighting.directional(towards, 0.7, 0.3)
    torch.testing.assert_close(
        both.irradiance(directions),
        lamp.irradiance(directions) + floor.irradiance(directions.float()),
        check_dtype=False,
    )


def test_irradiance_is_linear_and_keeps_colours_apart() -> None:
    random = torch.Generator().manual_seed(1)
    light = torch.randn(9, 3, generator=random)
    normals = torch.nn.functional.normalize(torch.randn(20, 3, generator=random), dim=1)
    total = Lighting(light).irradiance(normals)
    torch.testing.assert_close(Lighting(2 * light).irradiance(normals), 2 * total)
    red = light * torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(Lighting(red).irradiance(normals), total * torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("shape", [(3, 9), (27,), (9,), (9, 4)])
def test_light_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(9, 3\)"):
        Lighting(torch.zeros(shape))
