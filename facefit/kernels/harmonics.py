"""The nine spherical harmonics of `models.lighting` at one normal, for kernels."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float

# Normalisation of each band times Lambert's factor over pi.
C0 = 0.5 / math.sqrt(math.pi)
B1 = 2 / 3 * math.sqrt(3 / (4 * math.pi))
B2 = 1 / 4 * 0.5 * math.sqrt(15 / math.pi)
B20 = 1 / 4 * 0.25 * math.sqrt(5 / math.pi)


@numba.njit(cache=True, nogil=True, inline="always")
def irradiance_row(x: float, y: float, z: float, row: Float[np.ndarray, "9"]) -> None:
    """`irradiance_basis` of a unit normal."""
    row[0] = C0
    row[1], row[2], row[3] = B1 * y, B1 * z, B1 * x
    row[4], row[5], row[7] = B2 * x * y, B2 * y * z, B2 * x * z
    row[6] = B20 * (3.0 * z * z - 1.0)
    row[8] = 0.5 * B2 * (x * x - y * y)
