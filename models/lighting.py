"""Distant light in nine real spherical harmonics per colour channel, and how it lights a matt surface."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Orthonormal real harmonics of bands 0 to 2, order (l, m) = (0,0), (1,-1), (1,0), (1,1), (2,-2) ... (2,2).
_C0 = 0.5 / math.sqrt(math.pi)
_C1 = math.sqrt(3 / (4 * math.pi))
_C2 = 0.5 * math.sqrt(15 / math.pi)
_C20 = 0.25 * math.sqrt(5 / math.pi)

# A Lambertian surface convolves the light with a clamped cosine: pi, 2 pi / 3, pi / 4 by band.
_LAMBERT = (math.pi,) + (2 * math.pi / 3,) * 3 + (math.pi / 4,) * 5


def harmonics(directions: Float[Tensor, "points 3"]) -> Float[Tensor, "points 9"]:
    """The nine orthonormal real spherical harmonics at unit directions (their squares integrate to one)."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, _C0),
            _C1 * y,
            _C1 * z,
            _C1 * x,
            _C2 * x * y,
            _C2 * y * z,
            _C20 * (3 * z * z - 1),
            _C2 * x * z,
            0.5 * _C2 * (x * x - y * y),
        ],
        dim=-1,
    )


def irradiance_basis(normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 9"]:
    """Irradiance per unit of each light coefficient, over pi so that albedo x irradiance is a colour."""
    lambert = torch.tensor(_LAMBERT, dtype=normals.dtype, device=normals.device) / math.pi
    return harmonics(normals) * lambert


@dataclass(frozen=True)
class Lighting:
    """Radiance of a distant environment in linear RGB, as coefficients of the harmonics above.

    Convention: directions and normals are in the model frame (x to the subject's left, y up, z out of the
    nose). Divided by pi throughout, so `Lighting.ambient(1.0)` lights every normal with exactly 1 and a
    surface shows its albedo.
    """

    coefficients: Float[Tensor, "9 3"]

    def __post_init__(self) -> None:
        if tuple(self.coefficients.shape) != (9, 3):
            raise ValueError(f"lighting has shape {tuple(self.coefficients.shape)}, expected (9, 3)")

    @staticmethod
    def ambient(level: float = 1.0) -> Lighting:
        """The same white light from everywhere."""
        coefficients = torch.zeros(9, 3)
        coefficients[0] = level / _C0
        return Lighting(coefficients)

    @staticmethod
    def directional(direction: Float[Tensor, "3"], level: float = 1.0, ambient: float = 0.3) -> Lighting:
        """A distant lamp (its direction points from the head to the lamp) over an ambient floor."""
        unit = direction / direction.norm()
        # pi turns the lamp's irradiance into this class's unit: a surface facing it receives about `level`.
        lamp = level * math.pi * harmonics(unit[None])[0]
        coefficients = lamp[:, None].expand(9, 3) + Lighting.ambient(ambient).coefficients.to(unit)
        return Lighting(coefficients.contiguous())

    def irradiance(self, normals: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Light arriving at a Lambertian surface, in linear RGB; may be slightly negative.

        Source: Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps",
        SIGGRAPH 2001, equation 13. Nine terms leave an average error of about 1 % for Lambertian reflection.
        """
        return irradiance_basis(normals) @ self.coefficients
