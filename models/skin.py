"""The colour of skin from two chromophores: melanin in the epidermis, haemoglobin in the dermis below it.

Two layers after Kubelka and Munk: an epidermis that absorbs and scatters over a dermis taken as infinitely
deep, below a surface that turns part of the light back inside (Saunderson). That the epidermis scatters
matters: it is what makes dark skin nearly neutral, where pure absorption would make it deep orange.

Sources: absorption and scattering, S. L. Jacques, "Skin Optics" (Oregon Medical Laser Center, 1998);
haemoglobin, S. Prahl's compilation (OMLC, 1999) of data of Gratzer and of Kollias; Kubelka-Munk from
transport coefficients, Star, Marijnissen and van Gemert 1988; layers, Kubelka 1954; colour matching functions
as Gaussian lobes, Wyman, Sloan and Shirley, JCGT 2013; D65, CIE 15. The idea of a face albedo over melanin
and haemoglobin is Alotaibi and Smith's, "A Biophysical 3D Morphable Model of Face Appearance", ICCV Workshops
2017; no data of theirs are used.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

WAVELENGTH_NM = np.arange(400.0, 701.0, 10.0)

# Molar extinction, 1/(cm mol/l), at 400, 410 ... 700 nm (Prahl 1999).
OXYGENATED = np.array([
    266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209.2, 26629.2, 23684.4, 20932.8, 20035.2,
    24202.4, 39956.8, 53236, 43016, 32613.2, 44496, 50104, 14400.8, 3200, 1506, 942, 610, 442, 368, 319.6,
    294, 277.6, 276, 290,
])  # fmt: skip
DEOXYGENATED = np.array([
    223296, 303956, 407560, 528600, 413280, 103292, 23388.8, 16156.4, 14550, 16684, 20862, 25773.6,
    31589.6, 39036.4, 46592, 53412, 53788, 45072, 37020, 28324.4, 14677.2, 9443.6, 6509.6, 5148.8, 4345.2,
    3750.12, 3226.56, 2795.12, 2407.92, 2051.96, 1794.28,
])  # fmt: skip
# Relative power of CIE D65 at the same wavelengths.
D65 = np.array([
    82.75, 91.49, 93.43, 86.68, 104.86, 117.01, 117.81, 114.86, 115.92, 108.81, 109.35, 107.80, 104.79,
    107.69, 104.41, 104.05, 100.00, 96.33, 95.79, 88.69, 90.01, 89.60, 87.70, 83.29, 83.70, 80.03, 80.21,
    82.28, 78.28, 69.72, 71.61,
])  # fmt: skip

OXYGEN_SATURATION = 0.75
HAEMOGLOBIN_G_PER_L, HAEMOGLOBIN_G_PER_MOL = 150.0, 64500.0
EPIDERMIS_CM = 0.006
# Reflection of diffuse light inside a surface of refractive index 1.4 (Egan and Hilgeman 1979).
INTERNAL_REFLECTION = 0.53

RGB_FROM_XYZ = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                         [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip


def skin_albedo(
    melanin: Float[np.ndarray, "*shape"], blood: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape 3"]:
    """Diffuse reflectance in linear RGB of skin with these volume fractions.

    `melanin` is the share of melanosomes in the epidermis: 0.013-0.063 light, 0.11-0.16 moderately pigmented,
    0.18-0.43 dark (Jacques 1998). `blood` is the share of whole blood in the dermis.
    """
    melanin, blood = np.asarray(melanin)[..., None], np.asarray(blood)[..., None]
    baseline = 0.244 + 85.3 * np.exp(-(WAVELENGTH_NM - 154.0) / 66.2)
    melanosome = 6.6e11 * WAVELENGTH_NM**-3.33
    # Kubelka and Munk's coefficients: K = 2 mu_a, S = 3/4 mu_s'.
    scattering = 0.75 * (2e5 * WAVELENGTH_NM**-1.5 + 2e12 * WAVELENGTH_NM**-4.0)
    dermis = 2.0 * (blood * blood_absorption() + (1.0 - blood) * baseline) / scattering
    below = 1.0 + dermis - np.sqrt(dermis * (dermis + 2.0))
    epidermis = 2.0 * (melanin * melanosome + (1.0 - melanin) * baseline) / scattering
    reflected, passed = _layer(epidermis, scattering * EPIDERMIS_CM)
    inside = reflected + passed**2 * below / (1.0 - reflected * below)
    return rgb_of_reflectance((1.0 - INTERNAL_REFLECTION) * inside / (1.0 - INTERNAL_REFLECTION * inside))


def _layer(
    absorption_over_scattering: Float[np.ndarray, "*shape wavelengths"],
    scattering_depth: Float[np.ndarray, "wavelengths"],
) -> tuple[Float[np.ndarray, "*shape wavelengths"], Float[np.ndarray, "*shape wavelengths"]]:
    """Reflectance and transmittance of a Kubelka-Munk layer of finite thickness."""
    a = 1.0 + absorption_over_scattering
    b = np.sqrt(a * a - 1.0)
    sinh, cosh = np.sinh(b * scattering_depth), np.cosh(b * scattering_depth)
    return sinh / (a * sinh + b * cosh), b / (a * sinh + b * cosh)


@cache
def blood_absorption() -> Float[np.ndarray, "wavelengths"]:
    """Absorption of whole blood, 1/cm."""
    extinction = OXYGEN_SATURATION * OXYGENATED + (1.0 - OXYGEN_SATURATION) * DEOXYGENATED
    return np.asarray(np.log(10.0) * extinction * HAEMOGLOBIN_G_PER_L / HAEMOGLOBIN_G_PER_MOL)


def rgb_of_reflectance(spectrum: Float[np.ndarray, "*shape wavelengths"]) -> Float[np.ndarray, "*shape 3"]:
    """Linear sRGB under D65; a perfect white is exactly (1, 1, 1)."""
    response = RGB_FROM_XYZ @ (_matching_functions() * D65)
    return np.asarray(spectrum @ (response / response.sum(axis=1, keepdims=True)).T)


@cache
def _matching_functions() -> Float[np.ndarray, "3 wavelengths"]:
    """CIE 1931 x, y, z by the lobes of Wyman, Sloan and Shirley 2013, equation 4."""

    def lobe(centre: float, below: float, above: float) -> Float[np.ndarray, "wavelengths"]:
        away = WAVELENGTH_NM - centre
        return np.asarray(np.exp(-0.5 * (away * np.where(away < 0, below, above)) ** 2))

    return np.stack([
        0.362 * lobe(442.0, 0.0624, 0.0374) + 1.056 * lobe(599.8, 0.0264, 0.0323)
        - 0.065 * lobe(501.1, 0.0490, 0.0382),
        0.821 * lobe(568.8, 0.0213, 0.0247) + 0.286 * lobe(530.9, 0.0613, 0.0322),
        1.217 * lobe(437.0, 0.0845, 0.0278) + 0.681 * lobe(459.0, 0.0385, 0.0725),
    ])  # fmt: skip


def lab(rgb: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """CIE L*a*b* (D65) of a linear sRGB colour."""
    xyz_from_rgb = np.linalg.inv(RGB_FROM_XYZ)
    relative = np.maximum(rgb @ xyz_from_rgb.T, 0.0) / xyz_from_rgb.sum(axis=1)
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def typology_angle_deg(rgb: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape"]:
    """Individual typology angle: the usual instrument reading that orders skin from very light to dark.

    > 55 very light, > 41 light, > 28 intermediate, > 10 tan, > -30 brown, else dark (Chardon et al. 1991, Del
    Bino and Bernerd 2013); the six classes stand for Fitzpatrick's types I-VI.
    """
    values = lab(rgb)
    return np.asarray(np.degrees(np.arctan2(values[..., 0] - 50.0, values[..., 2])))
