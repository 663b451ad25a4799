"""Colour of skin from how much melanin and blood it holds: a two-layer model with published absorption.

Sources: melanosome absorption 6.6e11 (lambda / nm)^-3.33 per cm and volume fractions of 1.3 % (light) to 43 %
(dark) and tissue baseline 0.244 + 85.3 exp(-(lambda - 154) / 66.2) per cm: S. L. Jacques, "Skin Optics",
Oregon Medical Laser Center News, 1998. Haemoglobin: S. Prahl, "Tabulated Molar Extinction Coefficient for
Hemoglobin in Water", OMLC 1999 (150 g/l, 64,500 g/mol). Reduced scattering 46 (lambda / 500 nm)^-1.421 per
cm: Jacques, Phys. Med. Biol. 58 (2013), average of skin. Diffuse reflectance of a thick layer exp(-A / sqrt(3
(1 + scattering / absorption))): Jacques 1998, A about 7.8.
"""

import numpy as np

from facefit.models.builtin.plane import Array

# nm, molar extinction of oxy- and deoxyhaemoglobin (per cm and mol/l), and the share in a display's red,
# green and blue.
SPECTRUM = np.array([
    [450.0, 62816.0, 103292.0, 0.00, 0.00, 0.45],
    [480.0, 26629.0, 14550.0, 0.00, 0.00, 0.43],
    [500.0, 20933.0, 20862.0, 0.00, 0.10, 0.12],
    [520.0, 24202.0, 31590.0, 0.00, 0.25, 0.00],
    [540.0, 53236.0, 46592.0, 0.00, 0.35, 0.00],
    [560.0, 32613.0, 53788.0, 0.00, 0.25, 0.00],
    [580.0, 50104.0, 37020.0, 0.15, 0.05, 0.00],
    [600.0, 3200.0, 14677.0, 0.35, 0.00, 0.00],
    [620.0, 942.0, 6510.0, 0.35, 0.00, 0.00],
    [640.0, 442.0, 4345.0, 0.15, 0.00, 0.00],
])  # fmt: skip
EPIDERMIS_CM = 60e-4
# Light crosses the epidermis twice and obliquely.
EPIDERMIS_PATH_CM = 2.0 * 1.35 * EPIDERMIS_CM
OXYGENATION = 0.75
# Light that never enters the living skin: the surface's own reflection (Fresnel, n = 1.45: 3.4 %) and the
# horny layer's scatter. The darkest skins measured still reflect some 5 % at 450 nm.
SURFACE_REFLECTION = 0.045


def skin_colour(melanin: Array, blood: Array) -> Array:
    """Diffuse reflectance in linear RGB (..., 3) for melanosome and blood volume fractions of any one
    shape.
    """
    nm, oxy, deoxy = SPECTRUM[:, :3].T
    per_gram = np.log(10.0) * 150.0 / 64_500.0
    blood_absorption = per_gram * (OXYGENATION * oxy + (1.0 - OXYGENATION) * deoxy)
    melanin_absorption = 6.6e11 * nm**-3.33
    baseline = 0.244 + 85.3 * np.exp(-(nm - 154.0) / 66.2)
    scattering = 46.0 * (nm / 500.0) ** -1.421
    colour = np.full((*np.shape(melanin), 3), SURFACE_REFLECTION)
    for k in range(len(nm)):
        dermis = blood * blood_absorption[k] + (1.0 - blood) * baseline[k]
        reflected = np.exp(-7.8 / np.sqrt(3.0 * (1.0 + scattering[k] / dermis)))
        crossed = np.exp(
            -EPIDERMIS_PATH_CM * (melanin * melanin_absorption[k] + (1.0 - melanin) * baseline[k])
        )
        colour += (reflected * crossed)[..., None] * SPECTRUM[k, 3:]
    return colour
