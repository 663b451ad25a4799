from __future__ import annotations

import pytest
import torch
from contracts import central_difference

from facefit.rendering.shade import lambertian, linear_to_srgb, srgb_to_linear


def test_srgb_and_linear_invert_each_other() -> None:
    levels = torch.linspace(0, 1, 1021, dtype=torch.float64)
    # The standard's two constants meet to 1e-7 only.
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(levels)), levels, atol=1e-6, rtol=0)
    torch.testing.assert_close(srgb_to_linear(linear_to_srgb(levels)), levels, atol=1e-6, rtol=0)


def test_every_8_bit_level_survives_the_round_trip() -> None:
    levels = torch.arange(256)
    back = (255 * linear_to_srgb(srgb_to_linear(levels / 255)) + 0.5).to(torch.int64)
    assert torch.equal(back, levels)


def test_known_values_of_the_standard() -> None:
    linear = torch.tensor([0.0, 0.0031308, 0.18, 0.214041, 0.5, 1.0], dtype=torch.float64)
    srgb = torch.tensor([0.0, 0.04045, 0.461356, 0.5, 0.735357, 1.0], dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(linear), srgb, atol=2e-6, rtol=0)


def test_the_curve_rises_everywhere_also_where_colours_are_impossible() -> None:
    linear = torch.linspace(-0.5, 3.0, 7001, dtype=torch.float64)
    assert float(linear_to_srgb(linear).diff().min()) > 0
    assert float(srgb_to_linear(torch.linspace(0, 1, 2001, dtype=torch.float64)).diff().min()) > 0


@pytest.mark.parametrize("level", [-0.4, 0.0, 0.001, 0.0031, 0.0033, 0.2, 0.999, 1.001, 2.5])
def test_the_curve_has_a_finite_derivative_everywhere(level: float) -> None:
    x = torch.tensor([level], dtype=torch.float64)
    derivative = torch.func.jacrev(linear_to_srgb)(x)
    torch.testing.assert_close(derivative, central_difference(linear_to_srgb, x, 1e-6), rtol=1e-6, atol=1e-8)


def test_the_slope_is_continuous_at_white() -> None:
    below, above = (
        torch.func.grad(linear_to_srgb)(torch.tensor(1.0 + d, dtype=torch.float64)) for d in (-1e-9, 1e-9)
    )
    torch.testing.assert_close(below, above, rtol=1e-8, atol=0)


def test_a_surface_in_unit_light_shows_its_albedo() -> None:
    albedo = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lambertian(albedo, torch.ones(10, 3)), albedo)
    torch.testing.assert_close(lambertian(albedo, torch.full((10, 3), 0.25)), albedo / 4)
