"""Colour: linear light to and from sRGB, and the Lambertian product."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def linear_to_srgb(linear: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sRGB transfer curve (IEC 61966-2-1), continued by its linear piece below 0, its slope above 1."""
    # Beyond 1 the tangent continues the curve, so that an over-exposed prediction still has a gradient back.
    inside = linear.clamp(0.0031308, 1.0)
    curve = 1.055 * inside.pow(1 / 2.4) - 0.055
    above = 1 + (linear - 1) * (1.055 / 2.4)
    return torch.where(linear <= 0.0031308, 12.92 * linear, torch.where(linear > 1, above, curve))


def srgb_to_linear(srgb: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse, for values in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4))


def lambertian(
    albedo: Float[Tensor, "points 3"], irradiance: Float[Tensor, "points 3"]
) -> Float[Tensor, "points 3"]:
    """Linear colour that leaves a matt surface; `irradiance` is over pi, as `Lighting` gives it."""
    return albedo * irradiance


def eight_bits(values: Float[Tensor, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """What a picture file holds: 0 to 1 as 0 to 255, rounded; beyond is cut off."""
    return (values.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).contiguous().cpu().numpy()
