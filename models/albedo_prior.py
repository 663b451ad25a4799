"""An albedo for models that come without one: skin tone, lips, brows, beard, eyes, and smooth variation.

No free statistical face albedo exists, so this one is built from published facts. Skin lies on a manifold of
two numbers, melanin and blood (see `skin`); people are drawn from it evenly from the lightest to the darkest
published melanin content, and the first three modes are the principal components of what comes out, so that
every Fitzpatrick type lies within 2.5 standard deviations of the mean. The other modes move melanin, blood or
hair cover of one part of the face, or smoothly across it. All modes are N(0, 1) and linear RGB; standard
deviations that no publication gives are marked as ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from facefit.mesh import vertex_normals
from facefit.models.builtin.sky import sky_view, tinted
from facefit.models.face_model import LinearFaceModel, Topology
from facefit.models.face_paint import Masks, face_coordinates, masks, no_masks
from facefit.models.regions import plan
from facefit.models.skin import skin_albedo

# Jacques 1998: 1.3 % of the epidermis's volume in the lightest skin to 43 % in the darkest.
MELANIN_RANGE = (0.013, 0.43)
# Dermal blood; chosen so that light skin has CIE a* of 9-12, as measured on faces (Xiao et al. 2017; Han et
# al. 2006).
BLOOD_MEDIAN, BLOOD_LOG_SIGMA = 0.012, 0.4
TONE_MODES = 3
# The grid of the table that all models share: log multiples of melanin (to 1.6) and blood (to 4.5).
LOG_MELANIN, LOG_BLOOD = np.linspace(0.0, 0.45, 4), np.linspace(0.0, 1.5, 7)

# Linear RGB, ours: hair from black-brown to blond is a mode about this.
HAIR = np.array([0.045, 0.032, 0.024])
HAIR_WARMTH = np.array([0.10, 0.065, 0.035])
STUBBLE = np.array([0.09, 0.08, 0.08])
SCLERA, PUPIL = np.array([0.52, 0.44, 0.40]), np.array([0.008, 0.008, 0.008])
# Lids and lashes shade the whole eye, by this share of its colour; irises are darker or lighter, browner or bluer.
EYE_SHADE_SIGMA, IRIS_LIGHTER_SIGMA = 0.18, 0.35
IRIS, IRIS_BLUER = np.array([0.075, 0.055, 0.042]), np.array([0.012, 0.025, 0.038])
BROW_COVER, BROW_COVER_SIGMA = 0.45, 0.25
STUBBLE_COVER_SIGMA = 0.3

# How much more melanin and blood a part has than the cheek's skin (factors), and how much people differ
# (log).
LIP_MELANIN, LIP_BLOOD, LIP_MELANIN_SIGMA, LIP_BLOOD_SIGMA = 1.15, 3.0, 0.35, 0.45
CHEEK_BLOOD, NOSE_BLOOD, FLUSH_SIGMA = 1.25, 1.3, 0.35
SOCKET_MELANIN, SOCKET_SIGMA = 1.15, 0.3
SMOOTH_MELANIN_SIGMA, SMOOTH_BLOOD_SIGMA = 0.10, 0.18
UNEVEN = 0.35
# Eyes open wider than at rest: what the lids hid is no darker than this share.
EYE_SHADE = 0.5
EYEBALLS = ("right_eyeball", "left_eyeball")
# Every load of a model without an albedo pays for the shade: a tenth of a second, on average within 1 % of 500
# directions.
DIRECTIONS, PIXEL_MM = 120, 1.0
SMOOTH_DEGREE_MELANIN, SMOOTH_DEGREE_BLOOD = 4, 3


@dataclass(frozen=True)
class Tone:
    """Skin colour per vertex: mean over people, its three modes, and its change per unit of log melanin and
    blood.
    """

    mean: Float[np.ndarray, "vertices 3"]
    modes: Float[np.ndarray, "3 vertices 3"]
    per_melanin: Float[np.ndarray, "vertices 3"]
    per_blood: Float[np.ndarray, "vertices 3"]


def with_albedo_prior(model: LinearFaceModel) -> LinearFaceModel:
    """The same model with this prior in place of its albedo."""
    mean, basis = albedo_prior(model.mean.detach().cpu().numpy().astype(np.float64), model.topology)
    like = model.mean
    return replace(
        model, albedo_mean=torch.from_numpy(mean).to(like), albedo_basis=torch.from_numpy(basis).to(like)
    )


def albedo_prior(
    vertices: Float[np.ndarray, "vertices 3"], topology: Topology
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """Mean and modes in linear RGB. Without the 68 landmarks only tone and smooth variation remain."""
    view = plan(vertices, topology.triangles, topology.landmarks)
    where = no_masks(len(vertices)) if view is None else masks(view, topology)
    tone = _tone_at(
        melanin=LIP_MELANIN**where.lips * SOCKET_MELANIN**where.eye_sockets,
        blood=LIP_BLOOD**where.lips * CHEEK_BLOOD**where.cheeks * NOSE_BLOOD**where.nose,
    )
    skin = 1.0 - where.eye
    bare = skin * (1.0 - BROW_COVER * where.brows)
    mean = bare[:, None] * tone.mean + (skin * BROW_COVER * where.brows)[:, None] * HAIR + _eye_mean(where)
    modes = [bare[:, None] * mode for mode in tone.modes]
    if view is not None:
        modes += _part_modes(where, tone, skin)
    modes += _smooth_modes(*face_coordinates(vertices, view), tone, bare)
    shade = np.maximum(_shade(vertices, topology, mean), EYE_SHADE * where.eye[:, None])
    for ball in (topology.regions[name] for name in EYEBALLS if name in topology.regions):
        # Eyes turn, and the shade of their lids does not turn with them: everywhere what it is between the lids.
        shade[ball] = shade[ball][shade[ball].min(axis=1) > EYE_SHADE].mean(axis=0)
    return (shade * mean).astype(np.float32), (shade * np.stack(modes)).astype(np.float32)


def _shade(
    vertices: Float[np.ndarray, "vertices 3"], topology: Topology, albedo: Float[np.ndarray, "vertices 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """What hollows take of the light: between the lids, in the nostrils and the mouth."""
    at, triangles = torch.from_numpy(vertices), torch.from_numpy(topology.triangles.astype(np.int64))
    normals = vertex_normals(at, triangles).numpy()
    sky = sky_view(vertices, topology.triangles, normals, len(vertices), DIRECTIONS, PIXEL_MM)
    if topology.mirror is not None:
        sky = 0.5 * (sky + sky[topology.mirror])
    return tinted(sky, albedo)


def _eye_mean(where: Masks) -> Float[np.ndarray, "vertices 3"]:
    white, iris = where.eye - where.iris, where.iris - where.pupil
    return np.asarray(white[:, None] * SCLERA + iris[:, None] * IRIS + where.pupil[:, None] * PUPIL)


def _part_modes(
    where: Masks, tone: Tone, skin: Float[np.ndarray, "vertices"]
) -> list[Float[np.ndarray, "vertices 3"]]:
    def field(mask: Float[np.ndarray, "vertices"]) -> Float[np.ndarray, "vertices 1"]:
        return mask[:, None]

    iris = where.iris - where.pupil
    return [
        LIP_BLOOD_SIGMA * field(where.lips) * tone.per_blood,
        LIP_MELANIN_SIGMA * field(where.lips) * tone.per_melanin,
        BROW_COVER_SIGMA * field(where.brows * skin) * (HAIR - tone.mean),
        BROW_COVER * field(where.brows * skin) * HAIR_WARMTH,
        STUBBLE_COVER_SIGMA * field(where.beard) * (STUBBLE - tone.mean),
        STUBBLE_COVER_SIGMA * field(where.moustache) * (STUBBLE - tone.mean),
        FLUSH_SIGMA * field(where.cheeks) * tone.per_blood,
        FLUSH_SIGMA * field(where.nose) * tone.per_blood,
        SOCKET_SIGMA * field(where.eye_sockets) * tone.per_melanin,
        EYE_SHADE_SIGMA * _eye_mean(where),
        IRIS_LIGHTER_SIGMA * field(iris) * IRIS,
        field(iris) * IRIS_BLUER,
    ]


def _smooth_modes(
    across: Float[np.ndarray, "vertices"],
    up: Float[np.ndarray, "vertices"],
    tone: Tone,
    bare: Float[np.ndarray, "vertices"],
) -> list[Float[np.ndarray, "vertices 3"]]:
    """Products of cosines over the face, of falling deviation; what is uneven left to right less so.

    A cosine, unlike a polynomial, is bounded and level at the face's edge. The first order is
    indistinguishable from a change of light, so it must stay small: at 0.1 log units of melanin it changes
    the colour by about 4 %.
    """
    modes = []
    for per_unit, sigma, degree in (
        (tone.per_melanin, SMOOTH_MELANIN_SIGMA, SMOOTH_DEGREE_MELANIN),
        (tone.per_blood, SMOOTH_BLOOD_SIGMA, SMOOTH_DEGREE_BLOOD),
    ):
        for total in range(1, degree + 1):
            for i in range(total + 1):
                shape = _cosine(i, across) * _cosine(total - i, up) * bare
                modes.append(sigma / total * (UNEVEN if i % 2 else 1.0) * shape[:, None] * per_unit)
    return modes


def _cosine(order: int, x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Of unit mean square over [-1, 1]; even orders are even functions."""
    return np.asarray(np.cos(0.5 * np.pi * order * (x + 1.0)) * (np.sqrt(2.0) if order else 1.0))


@cache
def population() -> tuple[
    Float[np.ndarray, "people"], Float[np.ndarray, "people"], Float[np.ndarray, "people 3"]
]:
    """Melanin, blood, and the coefficients of the three tone modes, of 384 people.

    The manifold is curved: draw synthetic people from here rather than from three independent normals, some
    of which are no skin. Melanin is even in its logarithm, blood log-normal and independent of it; a lattice
    instead of random draws keeps the prior the same on every machine.
    """
    low, high = np.log(MELANIN_RANGE)
    melanin = np.exp(low + (high - low) * (np.arange(48) + 0.5) / 48)
    # The mid-quantiles of a normal distribution, eight of them.
    normal = np.array([-1.534, -0.887, -0.489, -0.157, 0.157, 0.489, 0.887, 1.534])
    blood = BLOOD_MEDIAN * np.exp(BLOOD_LOG_SIGMA * normal / normal.std())
    m, b = (grid.ravel() for grid in np.meshgrid(melanin, blood))
    colours = skin_albedo(m, b)
    centred = colours - colours.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # Positive scores are lighter, whatever sign the decomposition chose.
    axes *= np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    scores = centred @ axes.T
    return m, b, scores / scores.std(axis=0)


def _tone_at(melanin: Float[np.ndarray, "vertices"], blood: Float[np.ndarray, "vertices"]) -> Tone:
    """Skin with these multiples of melanin and blood, from the table (bilinear in their logarithms)."""
    fields = np.moveaxis(
        _bilinear(_tone_table(), np.log(melanin) / LOG_MELANIN[1], np.log(blood) / LOG_BLOOD[1]), 0, 1
    )
    return Tone(fields[0], fields[1 : TONE_MODES + 1], fields[-2], fields[-1])


@cache
def _tone_table() -> Float[np.ndarray, "4 7 6 3"]:
    """For a grid of multiples of melanin and blood: mean colour, regression on the scores, two slopes."""
    people_melanin, people_blood, scores = population()
    step = 0.1

    def colour(log_melanin: float, log_blood: float) -> Float[np.ndarray, "people 3"]:
        return skin_albedo(people_melanin * np.exp(log_melanin), people_blood * np.exp(log_blood))

    table = np.empty((len(LOG_MELANIN), len(LOG_BLOOD), TONE_MODES + 3, 3))
    for i, m in enumerate(LOG_MELANIN):
        for j, b in enumerate(LOG_BLOOD):
            here = colour(m, b)
            table[i, j, 0] = here.mean(axis=0)
            table[i, j, 1 : TONE_MODES + 1] = scores.T @ (here - here.mean(axis=0)) / len(scores)
            table[i, j, -2] = (colour(m + step, b) - colour(m - step, b)).mean(axis=0) / (2 * step)
            table[i, j, -1] = (colour(m, b + step) - colour(m, b - step)).mean(axis=0) / (2 * step)
    return table


def _bilinear(
    table: Float[np.ndarray, "rows columns *shape"],
    row: Float[np.ndarray, "n"],
    column: Float[np.ndarray, "n"],
) -> Float[np.ndarray, "n *shape"]:
    i = np.clip(row.astype(int), 0, table.shape[0] - 2)
    j = np.clip(column.astype(int), 0, table.shape[1] - 2)
    s, t = (row - i)[:, None, None], (column - j)[:, None, None]
    upper = (1 - t) * table[i, j] + t * table[i, j + 1]
    lower = (1 - t) * table[i + 1, j] + t * table[i + 1, j + 1]
    return np.asarray((1 - s) * upper + s * lower)
