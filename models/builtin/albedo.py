"""Albedo modes: drawn complexions, brows, lips, beards and eyes, reduced by principal components.

Every drawn face is painted on the half mesh from masks and a handful of numbers, through `facefit.models.skin`;
smooth blotches that differ between the sides give odd modes. Linear RGB. Skin of any melanin and blood lies
on one curved sheet of colours; modes are straight, so deviations are kept where leaving it does not show:
what is added to light skin as a blush must not turn dark skin red.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from facefit.models.builtin.fields import _spread, bump, rise
from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.identity import compact, importance, vertex_areas
from facefit.models.builtin.parts import EYE_CENTRE, IRIS_ANGLE, PUPIL_ANGLE, TEETH_COLUMNS
from facefit.models.builtin.plane import Array
from facefit.models.skin import skin_albedo

SAMPLES = 1000
ODD_MODES = 6
EYE_MODES = 2
BLOTCH_REACH_MM = 20.0
# Share of blood in the dermis of bare skin; of lips, which are red for lack of a horny layer. Light faces then
# have L* 58 to 67 and a* 7 to 10, as measured (see `facefit.models.skin` and its tests). Deviations are ours.
BLOOD, LIP_BLOOD = 0.009, 0.044
# Lips are moist and have hardly a horny layer, so that less light comes back before it has met the blood: their
# reflectance is the skin model's to this power (ours).
LIP_DEPTH = 1.35


@dataclass(frozen=True)
class AlbedoModes:
    """Over the half mesh; `is_odd` modes change sign across the midline."""

    mean: Array
    modes: Array
    is_odd: NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """Where what colour lies, each (half vertices,) in [0, 1]."""

    lips: Array
    brows: Array
    beard: Array
    moustache: Array
    cheeks: Array
    nose: Array
    ears: Array
    under_eye: Array
    lids: Array
    lashes: Array
    mouth_line: Array
    hair: Array
    temples: Array
    blotches: Array
    """(half vertices, blotches): smooth bumps over the face, the same on both sides."""
    odd_blotches: Array
    """The same, of opposite sign on the right side."""


def masks(mesh: WholeMesh, loops: dict[str, list[Ints]]) -> Masks:
    count = mesh.half_count
    p, parts = mesh.points[:count], mesh.parts[:count]
    x, y, z = p.T
    skin = (parts == "skin").astype(float)
    lips = np.zeros(count)
    for loop, amount in zip(loops["mouth"], (1.0, 1.0, 1.0, 1.0, 0.95, 0.5, 0.05, 0.0), strict=True):
        lips[loop] = amount
    outer = np.array(p[loops["mouth"][5]])
    near_lips = np.exp(-((np.linalg.norm(p[:, None] - outer, axis=2).min(axis=1) / 1.3) ** 2)) * 0.22
    lips = np.maximum(lips, near_lips * skin)
    centre = np.interp(x, [7, 14, 24, 35, 46, 58], [19.0, 20.3, 22.6, 23.9, 22.0, 15.0])
    half_width = np.interp(x, [7, 13, 30, 40, 50, 59], [2.6, 3.7, 3.3, 2.6, 1.7, 0.8])
    brows = (
        rise(np.abs(y - centre) / half_width, 1.9, 0.2)
        * rise(x, 7.5, 14.0)
        * rise(x, 60.0, 50.0)
        * skin
        * (z > 55)
    )
    jaw_zone = rise(y, -52.0, -74.0) * rise(z, 8.0, 34.0) * rise(y, -140.0, -116.0)
    sideburn = bump(p, (68, -40, 30), (9, 26, 10)) * 0.8
    cheek_free = rise(y + 0.9 * (x - 30.0), -22.0, -60.0) + rise(x, 50.0, 64.0)
    beard = (
        np.clip(jaw_zone * np.clip(cheek_free, 0, 1) + sideburn, 0.0, 1.0)
        * skin
        * (1.0 - np.clip(lips * 1.6, 0, 1))
    )
    beard *= 1.0 - 0.6 * bump(p, (12, -86, 98), (5, 5, 12))
    moustache = (
        bump(p, (9, -56, 105), (12, 5.0, 12))
        * rise(y, -48.5, -52.5)
        * skin
        * (1.0 - np.clip(lips * 1.6, 0, 1))
        * rise(y, -75.0, -62.0)
    )
    eye_distance = np.linalg.norm(p - EYE_CENTRE, axis=1)
    margin = loops["eye"]
    mouth_line = np.zeros(count)
    mouth_line[loops["mouth"][0]], mouth_line[loops["mouth"][1]] = 1.0, 0.3
    lashes = np.zeros(count)
    spokes = np.arange(len(margin[0]))
    upper = np.sin(np.pi * np.clip(spokes / (len(spokes) / 2), 0, 2))
    lashes[margin[0]] = np.where(spokes <= len(spokes) // 2, 0.85, 0.35) * np.clip(0.35 + np.abs(upper), 0, 1)
    lashes[margin[1]] = np.where(spokes <= len(spokes) // 2, 0.32, 0.08) * np.clip(np.abs(upper), 0, 1)
    hairline = 74.0 - 0.0045 * x**2 + 6.0 * np.exp(-(((x - 30.0) / 14.0) ** 2))
    crown = np.maximum(rise(y - hairline, -6.0, 13.0), rise(z + 0.25 * y, 42.0, 0.0) * rise(y, -42.0, -20.0))
    crown = np.maximum(crown, rise(z, -14.0, -26.0) * rise(y, -95.0, -70.0))
    face = skin * rise(z, 20.0, 50.0) * rise(y, -125.0, -110.0)
    centres = _spread(p[(face > 0.5)], 1.25 * BLOTCH_REACH_MM)
    near, across = (
        np.exp(-0.5 * (np.linalg.norm(p[:, None] - centres * side, axis=2) / BLOTCH_REACH_MM) ** 2)
        for side in (np.ones(3), np.array([-1.0, 1.0, 1.0]))
    )
    return Masks(
        lips=lips,
        brows=brows,
        beard=beard,
        moustache=moustache,
        cheeks=bump(p, (42, -32, 84), (17, 15, 20)) * skin,
        nose=np.maximum(bump(p, (0, -34, 118), (13, 11, 16)), bump(p, (16, -38, 101), (7, 8, 9))) * skin,
        ears=(parts == "ear").astype(float),
        under_eye=np.maximum(bump(p, (29, -14, 85), (13, 5, 8)), bump(p, (17, -6, 85), (5, 7, 6))) * skin,
        lids=np.exp(-0.5 * (np.maximum(eye_distance - 14.5, 0.0) / 3.5) ** 2) * skin,
        lashes=lashes,
        mouth_line=mouth_line,
        hair=crown * skin,
        temples=bump(p, (60, 20, 55), (16, 22, 22)) * skin,
        blotches=near + across,
        odd_blotches=near - across,
    )


def albedo_modes(mesh: WholeMesh, loops: dict[str, list[Ints]], count: int, seed: int = 23) -> AlbedoModes:
    random = np.random.default_rng(seed)
    mask = masks(mesh, loops)
    half = mesh.points[: mesh.half_count]
    parts = mesh.parts[: mesh.half_count]
    attention = importance(half, parts)
    # Eyes and mouth have colours of their own: nothing that is learnt from the skin may tint them.
    apart = np.isin(parts, ["eyeball", "mouth", "tongue", "upper_teeth", "lower_teeth"])
    attention[apart] = 0.0
    attention *= 1.0 - 0.95 * mask.hair
    attention += 1.0 * mask.brows + 0.5 * mask.lips
    weight = np.sqrt(attention * vertex_areas(mesh)[: mesh.half_count])
    drawn = np.stack([paint(mesh, mask, random) for _ in range(SAMPLES)]).astype(np.float32)
    mean = drawn.mean(axis=0)
    flat = ((drawn - mean) * weight[:, None]).reshape(SAMPLES, -1)
    coordinates, _ = compact(flat.astype(np.float64))
    pca = PCA(n_components=count - ODD_MODES - EYE_MODES, svd_solver="covariance_eigh")
    scores = pca.fit_transform(coordinates) / np.sqrt(pca.explained_variance_)
    modes = np.tensordot(scores.T.astype(np.float32), drawn - mean, axes=1) / (SAMPLES - 1)
    modes[:, apart] = 0.0
    eyes = np.zeros((EYE_MODES, *mean.shape))
    seen = PCA(n_components=EYE_MODES, svd_solver="full").fit(
        drawn[:, parts == "eyeball"].reshape(SAMPLES, -1)[:300]
    )
    eyes[:, parts == "eyeball"] = (np.sqrt(seen.explained_variance_)[:, None] * seen.components_).reshape(
        EYE_MODES, -1, 3
    )
    modes = np.concatenate([modes, eyes, _odd_modes(mean, mask, weight)])
    peak = np.abs(modes.reshape(len(modes), -1)).argmax(axis=1)
    modes *= np.sign(modes.reshape(len(modes), -1)[np.arange(len(modes)), peak])[:, None, None]
    return AlbedoModes(mean, modes, np.arange(len(modes)) >= count - ODD_MODES)


def _odd_modes(mean: Array, mask: Masks, weight: Array) -> Array:
    """Smooth differences of brightness and redness between the sides: 3 % of the local albedo."""
    fields = []
    for colour, amount in ((np.array([1.0, 1.0, 1.0]), 0.024), (np.array([0.4, -0.9, -0.9]), 0.015)):
        for k in range(mask.odd_blotches.shape[1]):
            fields.append(amount * mask.odd_blotches[:, k, None] * mean * colour)
    fields_array = np.stack(fields)
    coordinates, back = compact((fields_array * weight[:, None]).reshape(len(fields), -1))
    # Eigenvalues rise: the last ones are the strongest; a row of `back` times its eigenvalue's root is one
    # deviation.
    size = np.sqrt((coordinates**2).sum(axis=0))[-ODD_MODES:][::-1]
    return np.tensordot(size[:, None] * back[-ODD_MODES:][::-1], fields_array, axes=1)


def hair_colour(darkness: float, redness: float) -> Array:
    """Linear RGB from black (darkness 1) through brown to blond (0), with a red share."""
    blond, brown, black, red = np.array(
        [[0.30, 0.20, 0.11], [0.075, 0.044, 0.026], [0.022, 0.018, 0.015], [0.19, 0.065, 0.025]]
    )
    tone = (
        brown + (black - brown) * (darkness - 0.5) * 2.0
        if darkness > 0.5
        else blond + (brown - blond) * darkness * 2.0
    )
    return np.asarray(tone * (1.0 - redness) + red * redness)


def paint(mesh: WholeMesh, mask: Masks, random: np.random.Generator) -> Array:
    """One face drawn at random, (half vertices, 3)."""
    parts = mesh.parts[: mesh.half_count]
    normal, uniform = random.standard_normal, random.uniform
    man, age = random.random() < 0.5, uniform(18.0, 80.0)
    # Fitzpatrick I to VI. Red reflectance is drawn normal, so that coefficients of two standard deviations
    # stay colours.
    red = np.clip(0.29 + 0.075 * normal(), 0.07, 0.46)
    melanin = float(np.interp(red, *_melanin_of_red()))
    tone = float(np.interp(red, [0.08, 0.44], [1.0, 0.0]))
    blood = BLOOD * np.exp(0.15 * normal())
    flush = np.clip(0.7 + 0.17 * normal(), 0.0, 1.4)
    redder = (
        1.0
        + flush * (0.75 * mask.cheeks + 0.6 * mask.nose + 0.8 * mask.ears)
        + np.clip(0.3 + 0.15 * normal(), 0, 1) * mask.lids
        + np.clip(0.15 + 0.15 * normal(), 0, 1) * mask.under_eye
    ) * np.exp(mask.blotches @ (0.05 * normal(mask.blotches.shape[1])))
    darker = (
        1.0
        + np.clip(0.14 + 0.09 * normal(), 0, 0.5) * mask.under_eye
        + np.clip(0.14 + 0.12 * normal(), 0, 0.5) * mask.lids
        + 0.15 * normal() * mask.temples
    ) * np.exp(mask.blotches @ ((0.03 + 0.03 * (age > 55)) * normal(mask.blotches.shape[1])))
    skin = _looked_up(np.clip(melanin * darker, 0.008, 0.5), np.clip(blood * redder, 0.001, 0.12))
    skin *= np.exp(0.04 * normal())
    lip_blood, lip_melanin = (
        LIP_BLOOD * np.exp(0.3 * normal()),
        melanin * np.clip(0.62 + 0.12 * normal(), 0.3, 1.0),
    )
    lip = skin_albedo(np.array(lip_melanin), np.array(np.clip(lip_blood, 0.008, 0.1))) ** LIP_DEPTH
    skin += (mask.lips * np.clip(0.9 + 0.08 * normal(), 0.5, 1.0))[:, None] * (lip - skin)
    darkness = np.clip(0.35 + 0.75 * tone + 0.28 * normal(), 0.0, 1.0)
    hair = hair_colour(float(darkness), float(np.clip(0.25 * normal() - 0.15, 0, 1) * (tone < 0.5)))
    grey = np.clip((age - 45.0) / 35.0 + 0.25 * normal(), 0.0, 1.0) if age > 40 else 0.0
    head_hair = hair + 0.6 * grey * (np.array([0.20, 0.19, 0.178]) - hair)
    brow_hair = hair + 0.3 * grey * (np.array([0.22, 0.21, 0.20]) - hair)
    cover = [
        (mask.brows, np.clip((0.76 if man else 0.66) + 0.16 * normal(), 0.1, 0.95), brow_hair),
        (mask.lashes, np.clip((0.55 if man else 0.75) + 0.15 * normal(), 0.1, 1.0), 0.5 * hair),
        (mask.hair, uniform(0.35, 0.95), head_hair),
    ]
    if man:
        stubble = np.clip(0.13 + 0.14 * normal(), 0.0, 0.6)
        shadow = 0.6 * head_hair + 0.4 * np.array([0.05, 0.055, 0.06])
        cover += [
            (mask.beard, stubble, shadow),
            (mask.moustache, np.clip(stubble + 0.08 * normal(), 0, 0.8), shadow),
        ]
    for where, amount, colour in cover:
        skin += (where * amount)[:, None] * (colour - skin)
    skin *= 1.0 - 0.6 * mask.mouth_line[:, None]
    # Hidden and inner parts.
    dark = skin[parts == "skin"].mean(axis=0)
    skin[parts == "nostril"] = 0.30 * dark * np.array([1.0, 0.7, 0.65])
    skin[parts == "lid_lining"] = 0.55 * lip + 0.45 * np.array([0.40, 0.16, 0.13])
    # The further inside, the less light comes back: a stand-in for the shadow that no vertex colour can cast.
    depth = np.exp(-np.clip(98.0 - mesh.points[: mesh.half_count, 2], 0.0, 60.0) / 26.0)[:, None]
    skin[parts == "mouth"] = (np.array([0.11, 0.026, 0.024]) * depth)[parts == "mouth"]
    skin[parts == "tongue"] = (np.array([0.34, 0.12, 0.11]) * depth)[parts == "tongue"]
    between = np.where(np.arange(TEETH_COLUMNS) % 3 == 0, 0.62, 1.0)[:, None]
    for teeth in ("upper_teeth", "lower_teeth"):
        rows = np.flatnonzero(parts == teeth).reshape(-1, TEETH_COLUMNS)
        skin[rows] = np.array([0.54, 0.49, 0.40]) * between * depth[rows]
        skin[rows[:2]] = np.array([0.34, 0.11, 0.10])
    skin[parts == "eyeball"] = _eye(mesh, tone, random)
    return np.clip(skin, 0.004, 0.95)


def _looked_up(melanin: Array, blood: Array) -> Array:
    """`skin_albedo` by bilinear interpolation in the logarithms: within 0.1 %, and thirty times faster."""
    table, low, step = _table()
    place = (np.stack([np.log(melanin), np.log(blood)]) - low[:, None]) / step[:, None]
    cell = np.clip(place.astype(np.int64), 0, table.shape[0] - 2)
    (a, b), (i, j) = place - cell, cell
    a, b = a[:, None], b[:, None]
    first, second = (
        table[i, j] * (1 - b) + table[i, j + 1] * b,
        table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b,
    )
    return np.asarray(first * (1 - a) + second * a)


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array]:
    low, high = np.log([0.007, 0.0009]), np.log([0.55, 0.13])
    grids = [np.linspace(low[k], high[k], 72) for k in range(2)]
    melanin, blood = np.meshgrid(np.exp(grids[0]), np.exp(grids[1]), indexing="ij")
    return skin_albedo(melanin, blood), low, (high - low) / 71.0


@lru_cache(maxsize=1)
def _melanin_of_red() -> tuple[Array, Array]:
    melanin = np.geomspace(0.015, 0.45, 200)
    red = skin_albedo(melanin, np.full_like(melanin, BLOOD))[:, 0]
    return red[::-1], melanin[::-1]


def _eye(mesh: WholeMesh, tone: float, random: np.random.Generator) -> Array:
    points = mesh.points[: mesh.half_count][mesh.parts[: mesh.half_count] == "eyeball"]
    ray = (points - EYE_CENTRE) / np.linalg.norm(points - EYE_CENTRE, axis=1, keepdims=True)
    angle = np.arccos(np.clip(ray[:, 2], -1, 1))
    # Some four in five people on earth have brown eyes.
    brownness = np.clip(0.72 + 0.3 * tone + 0.2 * random.standard_normal(), 0.0, 1.0)
    green = np.clip(0.3 * random.standard_normal(), 0.0, 1.0)
    light = np.array([0.09, 0.13, 0.17]) * (1 - green) + np.array([0.09, 0.105, 0.05]) * green
    iris = light + brownness * (np.array([0.055, 0.026, 0.012]) - light)
    white = np.array([0.52, 0.475, 0.45]) * (1.0 - 0.08 * np.clip(random.standard_normal(), -1, 2))
    colour = np.where(
        (angle > IRIS_ANGLE + 0.02)[:, None],
        white - np.clip(angle - 0.55, 0, 0.5)[:, None] * np.array([0.10, 0.28, 0.28]),
        iris,
    )
    limbus = np.exp(-(((angle - IRIS_ANGLE) / 0.05) ** 2))[:, None]
    colour = colour * (1.0 - 0.55 * limbus)
    # The shade of the upper lid and of the corners, which vertex colours cannot cast.
    shade = 0.38 * rise(ray[:, 1], 0.02, 0.42) + 0.25 * rise(np.abs(ray[:, 0]), 0.45, 0.95)
    colour = colour * (1.0 - shade)[:, None]
    colour[angle < PUPIL_ANGLE + 0.01] = 0.008
    return np.asarray(colour)
