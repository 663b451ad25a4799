"""One face drawn at random: complexion, brows, lips, beard and the marks of age, painted on the half mesh.

Skin of any melanin and blood lies on one curved sheet of colours (`facefit.models.skin`), but modes are
straight: the tone of the skin is drawn on the straight line that lies nearest to the sheet to the eye, and what
lies on the tone follows the sheet, so that a blush of light skin is not added to dark skin.

What age does: folds deepen, skin grows uneven and lips pale, brows and hair grey; the contrast of eyes, brows
and lips with the skin falls (Porcheron, Mauger and Russell, PLoS ONE 8(3), 2013). Its amounts are ours, as are
standard deviations without a source.
"""

from functools import lru_cache

import numpy as np

from facefit.models.builtin.fields import rise
from facefit.models.builtin.halfmesh import WholeMesh
from facefit.models.builtin.masks import Masks
from facefit.models.builtin.parts import EYE_CENTRE, IRIS_ANGLE, PUPIL_ANGLE, TEETH_COLUMNS
from facefit.models.builtin.plane import Array
from facefit.models.builtin.sky import tinted
from facefit.models.skin import lab, skin_albedo

# Share of blood in the dermis of bare skin; of lips, which are red for lack of a horny layer. Light faces then
# have L* 58 to 67 and a* 7 to 10, as measured (see `facefit.models.skin` and its tests). Deviations are ours.
BLOOD, LIP_BLOOD = 0.009, 0.036
# Lips are moist and have hardly a horny layer, so that less light comes back before it has met the blood: their
# reflectance is the skin model's to this power (ours).
LIP_DEPTH = 1.25
# Lips have less melanin than the skin around them where that is dark and as much where it is light (ours): they
# are redder in hue than the skin, not more saturated (Baras, 914 women, reported in J. Hosp. Med. news), and
# without the yellow of melanin those of light faces would be mauve.
LIP_MELANIN, LIP_MELANIN_SHARE = 0.01, 0.55
# Fitzpatrick I to VI within two and a half standard deviations: red reflectance is drawn normal about tan skin (L* 55,
# typology angle 17 degrees; the middle is ours, chosen so that very light and dark skin are equally far).
RED, RED_DEVIATION = 0.34, 0.09
# The colours of hair in linear RGB (ours).
BLOND, BROWN, BLACK = np.array([[0.30, 0.20, 0.11], [0.080, 0.043, 0.023], [0.024, 0.017, 0.012]])
RED_HAIR, GREY = np.array([0.19, 0.065, 0.025]), np.array([0.20, 0.19, 0.178])
TOOTH, GUM = np.array([0.47, 0.42, 0.34]), np.array([0.26, 0.085, 0.075])
# From the gum to the biting edge, which light shines through, and round to the back (ours).
TOOTH_ROWS = np.array([1.0, 1.0, 0.95, 0.8, 0.7, 0.4, 0.3])
# An iris is drawn along a straight line about a hazel one: dark brown one deviation down, grey-blue three or four up;
# the whole eye lies deeper or less deep in the shade of lids and lashes (ours). A fit sees both
# (`facefit.fitting.eyes`).
IRIS, IRIS_BLUER = np.array([0.046, 0.033, 0.024]), np.array([0.012, 0.020, 0.028])
EYE_SHADE = 0.18
# A white eye reflects more; lids and lashes keep the light from it (ours).
SCLERA = np.array([0.40, 0.36, 0.34])


def paint(mesh: WholeMesh, mask: Masks, random: np.random.Generator) -> Array:
    """One face drawn at random, (half vertices, 3). Eyes are the same in all."""
    parts = mesh.parts[: mesh.half_count]
    normal, uniform = random.standard_normal, random.uniform
    man, age = random.random() < 0.5, uniform(18.0, 80.0)
    aged = float(np.clip((age - 30.0) / 45.0, 0.0, 1.0))
    drawn = float(np.clip(normal(), -2.6, 2.2))
    red = RED + RED_DEVIATION * drawn
    melanin = float(np.interp(red, *_melanin_of_red()))
    tone = float(np.interp(red, [0.08, 0.44], [1.0, 0.0]))
    blood = BLOOD * np.exp(0.12 * normal())
    flush = np.clip(0.7 + 0.17 * normal(), 0.0, 1.4)
    redder = (
        1.0
        + flush * (0.75 * mask.cheeks + 0.6 * mask.nose + 0.8 * mask.ears - 0.25 * mask.forehead)
        + np.clip(0.3 + 0.15 * normal(), 0, 1) * mask.lids
        + np.clip(0.15 + 0.15 * normal(), 0, 1) * mask.under_eye
    ) * np.exp(mask.blotches @ (0.05 * normal(mask.blotches.shape[1])))
    darker = (
        1.0
        + np.clip(0.16 + 0.12 * aged + 0.09 * normal(), 0, 0.6) * mask.under_eye
        + np.clip(0.14 + 0.12 * normal(), 0, 0.5) * mask.lids
        + 0.15 * normal() * mask.temples
    ) * np.exp(mask.blotches @ ((0.025 + 0.04 * aged) * normal(mask.blotches.shape[1])))
    skin = _looked_up(np.clip(melanin * darker, 0.008, 0.5), np.clip(blood * redder, 0.001, 0.12))
    skin += RED_DEVIATION * drawn * tone_line()[1] + tone_line()[0] - _looked_up(melanin, BLOOD)
    skin *= np.exp(0.04 * normal())
    lip_blood = LIP_BLOOD * np.exp(0.15 * normal() - 0.35 * aged)
    lip_melanin = LIP_MELANIN + melanin * np.clip(LIP_MELANIN_SHARE + 0.1 * normal(), 0.3, 0.9)
    lip = skin_albedo(np.array(lip_melanin), np.array(np.clip(lip_blood, 0.008, 0.1))) ** LIP_DEPTH
    skin += (mask.lips * np.clip(0.9 + 0.08 * normal(), 0.5, 1.0))[:, None] * (lip - skin)
    skin = _with_hair(skin, mask, random, tone, man, aged)
    skin *= 1.0 - 0.6 * mask.mouth_line[:, None]
    skin *= np.exp(-np.clip(0.04 + 0.26 * aged + 0.04 * normal(), 0.0, 0.5) * mask.folds)[:, None]
    # Light from in front fills the hollows, light from above deepens them.
    skin *= tinted(mask.sky, skin) ** np.clip(1.0 + 0.14 * normal(), 0.5, 1.5)
    dark = skin[parts == "skin"].mean(axis=0)
    skin[parts == "nostril"] = 0.22 * dark * np.array([1.0, 0.7, 0.65])
    skin[parts == "lid_lining"] = 0.5 * lip + 0.35 * np.array([0.40, 0.16, 0.13])
    _paint_mouth(skin, mesh)
    skin[parts == "eyeball"] = _eyeball(mesh, SCLERA, IRIS)
    return np.clip(skin, 0.004, 0.95)


def _with_hair(
    skin: Array, mask: Masks, random: np.random.Generator, tone: float, man: bool, aged: float
) -> Array:
    normal = random.standard_normal
    darkness = np.clip(0.42 + 0.75 * tone + 0.28 * normal(), 0.0, 1.0)
    redness = float(np.clip(0.2 * normal() - 0.2, 0, 1) * (tone < 0.5))
    hair = hair_colour(float(darkness), redness)
    grey = np.clip(1.3 * aged - 0.35 + 0.25 * normal(), 0.0, 1.0)
    head_hair = hair + 0.6 * grey * (GREY - hair)
    # Brows are darker than the head's hair, those of the blond most of all, and grey later and less.
    brow_hair = 0.8 * hair_colour(0.25 + 0.75 * float(darkness), redness)
    brow_hair += 0.25 * np.clip(grey - 0.3, 0.0, 1.0) * (GREY - brow_hair)
    cover = [
        (mask.brows, np.clip((0.84 if man else 0.78) + 0.09 * normal(), 0.3, 0.97), brow_hair),
        (mask.brow_rim, np.clip((0.26 if man else 0.12) + 0.13 * normal(), 0.0, 0.7), brow_hair),
        (mask.lashes, np.clip((0.75 if man else 0.95) - 0.15 * aged + 0.1 * normal(), 0.1, 1.0), 0.2 * hair),
        (mask.hair, random.uniform(0.35, 0.85), head_hair),
    ]
    if man:
        stubble = np.clip(0.13 + 0.14 * normal(), 0.0, 0.6)
        shadow = 0.6 * head_hair + 0.4 * np.array([0.05, 0.055, 0.06])
        cover += [
            (mask.beard, stubble, shadow),
            (mask.moustache, np.clip(stubble + 0.08 * normal(), 0, 0.8), shadow),
        ]
    for where, amount, colour in cover:
        skin = skin + (where * amount)[:, None] * (colour - skin)
    return skin


def hair_colour(darkness: float, redness: float) -> Array:
    """Linear RGB from black (darkness 1) through brown to blond (0), with a red share."""
    tone = (
        BROWN + (BLACK - BROWN) * (darkness - 0.5) * 2.0
        if darkness > 0.5
        else BLOND + (BROWN - BLOND) * darkness * 2.0
    )
    return np.asarray(tone * (1.0 - redness) + RED_HAIR * redness)


def _paint_mouth(skin: Array, mesh: WholeMesh) -> None:
    """The further inside, the less light comes back: a stand-in for the shadow of lips and cheeks."""
    parts = mesh.parts[: mesh.half_count]
    depth = np.exp(-np.clip(98.0 - mesh.points[: mesh.half_count, 2], 0.0, 60.0) / 26.0)[:, None]
    skin[parts == "mouth"] = (np.array([0.11, 0.026, 0.024]) * depth)[parts == "mouth"]
    skin[parts == "tongue"] = (np.array([0.34, 0.12, 0.11]) * depth)[parts == "tongue"]
    between = np.where(np.arange(TEETH_COLUMNS) % 3 == 0, 0.62, 1.0)[:, None]
    for teeth in ("upper_teeth", "lower_teeth"):
        rows = np.flatnonzero(parts == teeth).reshape(-1, TEETH_COLUMNS)
        skin[rows] = TOOTH * between * TOOTH_ROWS[:, None, None] * depth[rows]
        skin[rows[:2]] = GUM * depth[rows[:2]]


def eye_modes(mesh: WholeMesh) -> Array:
    """Light on the eye and colour of the iris about the mean's, (2, half vertices, 3), in standard deviations."""
    modes = np.zeros((2, mesh.half_count, 3))
    eyeball = mesh.parts[: mesh.half_count] == "eyeball"
    at_rest = _eyeball(mesh, SCLERA, IRIS)
    modes[0, eyeball] = EYE_SHADE * at_rest
    modes[1, eyeball] = _eyeball(mesh, SCLERA, IRIS + IRIS_BLUER) - at_rest
    return modes


def _eyeball(mesh: WholeMesh, white: Array, iris: Array) -> Array:
    points = mesh.points[: mesh.half_count][mesh.parts[: mesh.half_count] == "eyeball"]
    ray = (points - EYE_CENTRE) / np.linalg.norm(points - EYE_CENTRE, axis=1, keepdims=True)
    angle = np.arccos(np.clip(ray[:, 2], -1, 1))
    colour = np.where(
        (angle > IRIS_ANGLE + 0.02)[:, None],
        white - np.clip(angle - 0.55, 0, 0.5)[:, None] * np.array([0.10, 0.28, 0.28]),
        iris,
    )
    limbus = np.exp(-(((angle - IRIS_ANGLE) / 0.05) ** 2))[:, None]
    colour = colour * (1.0 - 0.55 * limbus)
    # The shade of the upper lid and of the corners, which vertex colours cannot cast.
    shade = 0.42 * rise(ray[:, 1], 0.0, 0.40) + 0.28 * rise(np.abs(ray[:, 0]), 0.40, 0.90)
    colour = colour * (1.0 - shade)[:, None]
    colour[angle < PUPIL_ANGLE + 0.01] = 0.006
    return np.asarray(colour)


@lru_cache(maxsize=1)
def tone_line() -> tuple[Array, Array]:
    """Skin of any tone as a straight line in linear RGB: (colour at the middle tone, change per unit of red).

    Nearest in CIE Lab to the skin model's curve over what is drawn; within 3.5 units of it from two deviations
    below the middle to one above, where the chord of linear RGB would leave dark skin orange.
    """
    red, melanin = _melanin_of_red()
    true = skin_albedo(melanin, np.full_like(melanin, BLOOD))
    inside = np.abs(red - RED) < 2.6 * RED_DEVIATION
    red, true = red[inside] - RED, true[inside]
    wanted, weight = lab(true), np.exp(-0.25 * (red / RED_DEVIATION) ** 2)
    middle, slope = np.array([RED, 0.17, 0.11]), np.array([1.0, 0.71, 0.52])
    for _ in range(20):
        line = np.maximum(middle + red[:, None] * slope, 1e-3)
        # Gauss-Newton: how Lab changes with green and blue, by differences.
        rows = []
        for channel in (1, 2):
            moved = line.copy()
            moved[:, channel] += 1e-5
            change = (lab(moved) - lab(line)) / 1e-5
            rows += [change, change * red[:, None]]
        jacobian = np.stack(rows, axis=2) * np.sqrt(weight)[:, None, None]
        gap = (wanted - lab(line)) * np.sqrt(weight)[:, None]
        step = np.linalg.lstsq(jacobian.reshape(-1, 4), gap.ravel(), rcond=None)[0]
        middle[1:] += step[[0, 2]]
        slope[1:] += step[[1, 3]]
    return middle, slope


def _looked_up(melanin: Array | float, blood: Array | float) -> Array:
    """`skin_albedo` by bilinear interpolation in the logarithms: within 0.1 %, and thirty times faster."""
    table, low, step = _table()
    place = np.stack([np.log(melanin), np.log(blood)], axis=-1)
    place = (place - low) / step
    cell = np.clip(place.astype(np.int64), 0, table.shape[0] - 2)
    (a, b), (i, j) = np.moveaxis(place - cell, -1, 0)[..., None], np.moveaxis(cell, -1, 0)
    first = table[i, j] * (1 - b) + table[i, j + 1] * b
    second = table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b
    return np.asarray(first * (1 - a) + second * a)


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array]:
    low, high = np.log([0.007, 0.0009]), np.log([0.55, 0.13])
    grids = [np.linspace(low[k], high[k], 72) for k in range(2)]
    melanin, blood = np.meshgrid(np.exp(grids[0]), np.exp(grids[1]), indexing="ij")
    return skin_albedo(melanin, blood), low, (high - low) / 71.0


@lru_cache(maxsize=1)
def _melanin_of_red() -> tuple[Array, Array]:
    """Red reflectance, rising, and the melanin that gives it."""
    melanin = np.geomspace(0.013, 0.45, 200)
    red = skin_albedo(melanin, np.full_like(melanin, BLOOD))[:, 0]
    return red[::-1], melanin[::-1]
