"""Displacement fields on the left half of the mean head: what one millimetre of each dimension moves, and
free-form waves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facefit.models.builtin.plane import Array, Names


@dataclass(frozen=True)
class Field:
    """Displacement (half vertices, 3) per unit of a named dimension. `odd`: the right half moves
    oppositely.
    """

    name: str
    displacement: Array
    odd: bool = False


def bump(points: Array, centre: tuple[float, float, float], reach: tuple[float, float, float]) -> Array:
    """Gaussian weight around a point with a reach (one standard deviation) along each axis, millimetres."""
    return np.asarray(np.exp(-0.5 * (((points - np.array(centre)) / np.array(reach)) ** 2).sum(axis=1)))


def rise(value: Array, start: float, end: float) -> Array:
    """Smooth step from 0 at `start` to 1 at `end` (either order)."""
    t = np.clip((value - start) / (end - start), 0.0, 1.0)
    return t * t * t * (t * (6.0 * t - 15.0) + 10.0)


def dimension_fields(points: Array, parts: Names) -> list[Field]:
    """One field per dimension of `population.DIMENSIONS`, each normalised so that the dimension changes by 1
    mm.
    """
    x, y, z = points.T
    front = rise(z, 10.0, 75.0)
    nose = np.maximum.reduce(
        [
            bump(points, (0, -30, 114), (13, 17, 13)),
            bump(points, (14, -38, 102), (8, 10, 9)),
            bump(points, (0, -10, 104), (8, 14, 8)),
        ]
    )
    tip = bump(points, (0, -35, 119), (11, 9, 10))
    ala = bump(points, (15, -38, 101), (6, 9, 9))
    lips = np.maximum(bump(points, (0, -70, 105), (22, 12, 14)), bump(points, (18, -70, 98), (10, 10, 12)))
    jaw = rise(y, -50.0, -105.0) * rise(z, -5.0, 45.0)
    eye = bump(points, (31.6, 0, 82), (17, 13, 14))
    brow = bump(points, (26, 21, 94), (24, 9, 14))

    def along(axis: str, weight: Array) -> Array:
        moved = np.zeros_like(points)
        moved[:, "xyz".index(axis)] = weight
        return moved

    def widen(weight: Array, half_width: float) -> Array:
        """Half of a breadth's growth on each side, rising linearly from the midline."""
        return along("x", 0.5 * weight * np.clip(x / half_width, 0.0, 1.25))

    skull = np.stack([x / 155.0, np.zeros_like(x), np.zeros_like(x)], axis=1)
    upper = rise(y, -60.0, 10.0)
    sink = np.clip((-y - 50.0) / 65.0, 0.0, None)  # 0 at the nose base, 1 at the chin
    fields: dict[str, Array] = {
        "head_breadth": skull * upper[:, None],
        "head_length": along(
            "z", np.clip((z + 5.0) / 190.0, -1, 1) * upper + np.where(z < 0, 0.3 * z / 95.0, 0.0)
        ),
        "forehead_height": along("y", rise(y, 25.0, 105.0)),
        "bizygomatic_breadth": widen(bump(points, (70, -15, 40), (28, 34, 40)), 66.0),
        "bigonial_breadth": widen(bump(points, (60, -75, 30), (28, 30, 34)) * 1.05, 58.0),
        "chin_breadth": widen(bump(points, (20, -105, 85), (16, 14, 22)), 20.0),
        "face_height": along("y", -np.clip((8.0 - y) / 121.0, 0.0, 1.15) * rise(z, -60.0, 30.0)),
        "lower_face_height": along("y", -np.clip(sink, 0.0, 1.2) * rise(z, -40.0, 45.0)),
        "upper_lip_height": along(
            "y", -bump(points, (0, -70, 104), (30, 9, 20)) - 0.7 * rise(y, -72, -84) * rise(z, 20, 70)
        ),
        "chin_height": along("y", -rise(y, -82.0, -112.0) * rise(z, 5.0, 70.0)),
        "mandible_depth": along("z", jaw * rise(z, 15.0, 85.0)),
        "maxilla_depth": along("z", bump(points, (0, -52, 100), (38, 24, 34))),
        "face_flatness": along(
            "z", front * np.clip(x / 60.0, 0, 1.2) ** 2 * bump(points, (0, -30, 60), (200, 60, 60))
        ),
        "chin_projection": along("z", bump(points, (0, -104, 99), (20, 13, 18))),
        "gonial_height": along("y", bump(points, (60, -82, 28), (22, 26, 30))),
        "interpupillary": along("x", 0.5 * (bump(points, (32, 2, 80), (20, 20, 30)) * 1.0)),
        "eye_width": along("x", 0.5 * eye * np.clip((x - 31.6) / 13.0, -1.3, 1.3)),
        "eye_opening": along(
            "y",
            bump(points, (31.6, 5.0, 86), (12, 4.5, 8)) * 0.75
            - bump(points, (31.6, -6.5, 85), (12, 4.5, 8)) * 0.4,
        ),
        "canthal_tilt": along("y", eye * np.clip((x - 31.6) / 13.0, -1.3, 1.3) * 0.5),
        "eye_protrusion": along("z", bump(points, (31.6, -1, 78), (15, 12, 20))),
        "brow_height": along("y", bump(points, (30, 20, 90), (26, 10, 20))),
        "brow_ridge": along("z", np.maximum(brow, bump(points, (0, 20, 98), (16, 9, 12)))),
        "brow_outer_height": along("y", bump(points, (52, 16, 76), (13, 11, 16))),
        "upper_lid_fold": along("z", bump(points, (34, 11, 88), (15, 4.5, 9)))
        - along("y", 0.6 * bump(points, (34, 10, 88), (15, 5, 9))),
        "under_eye": along("z", bump(points, (31, -15, 85), (13, 5.5, 9))),
        "nose_breadth": along(
            "x",
            0.5
            * (
                ala * np.clip(x / 16.0, 0, 1.2)
                + 0.35 * bump(points, (10, -34, 112), (7, 9, 9)) * np.clip(x / 10.0, 0, 1)
            ),
        ),
        "nose_length": along(
            "y",
            -nose * np.clip((10.0 - y) / 55.0, 0.0, 1.2) - 0.35 * bump(points, (0, -56, 106), (18, 8, 12)),
        ),
        "nose_protrusion": along(
            "z", nose * np.clip((4.0 - y) / 36.0, 0.0, 1.15) * np.clip((z - 86.0) / 34.0, 0.0, 1.0)
        ),
        "bridge_height": along("z", bump(points, (0, 2, 98), (10, 13, 9))),
        "nasal_hump": along("z", bump(points, (0, -14, 109), (7, 8, 9))),
        "bridge_breadth": along(
            "x", 0.5 * bump(points, (9, -10, 100), (7, 14, 9)) * np.clip(x / 9.0, 0, 1.2)
        ),
        "tip_rise": along("y", tip + 0.4 * bump(points, (0, -44, 112), (9, 5, 8))),
        "tip_breadth": along("x", 0.5 * bump(points, (8, -34, 115), (6, 8, 8)) * np.clip(x / 8.0, 0, 1.2)),
        "ala_height": along("y", ala),
        "columella_drop": along("y", -bump(points, (0, -45, 111), (5, 5, 8))),
        "mouth_breadth": along(
            "x", 0.5 * bump(points, (22, -71, 96), (13, 11, 16)) * np.clip(x / 24.0, 0, 1.2)
        ),
        "upper_lip_thickness": along("y", bump(points, (0, -61, 109), (20, 4.5, 12)))
        + along("z", 0.45 * bump(points, (0, -65, 109), (17, 4.5, 10))),
        "lower_lip_thickness": along("y", -bump(points, (0, -80, 106), (19, 4.5, 12)))
        + along("z", 0.40 * bump(points, (0, -76, 107), (17, 5, 10))),
        "lip_protrusion": along("z", lips),
        "cupids_bow": along(
            "y", bump(points, (7, -60, 108), (5, 3.5, 8)) - 0.6 * bump(points, (0, -61, 109), (3, 3, 8))
        ),
        "mouth_corner_height": along("y", bump(points, (25, -71, 93), (9, 8, 12))),
        "mentolabial_depth": along("z", -bump(points, (0, -89, 101), (18, 6, 12))),
        "cheekbone": _outward(points, bump(points, (46, -18, 78), (16, 14, 20))),
        "cheek_fullness": _outward(points, bump(points, (44, -58, 72), (20, 24, 26))),
        "jowl": _outward(points, bump(points, (40, -96, 58), (17, 14, 24)))
        - along("y", 0.4 * bump(points, (40, -96, 58), (17, 14, 24))),
        "double_chin": along("y", -bump(points, (0, -120, 60), (32, 12, 24)))
        + along("z", 0.5 * bump(points, (0, -122, 52), (30, 14, 20))),
        "nasolabial_fold": _outward(
            points, bump(points, (29, -54, 92), (6, 13, 10)) - 0.8 * bump(points, (23, -58, 96), (5, 13, 9))
        ),
        "temple": _outward(points, bump(points, (66, 25, 42), (16, 22, 22))),
        "forehead_slope": along(
            "z", bump(points, (0, 62, 84), (60, 24, 32)) - 0.2 * bump(points, (0, 25, 97), (50, 10, 20))
        ),
        "forehead_bossing": along("z", bump(points, (28, 50, 86), (18, 14, 20))),
        "malar_hollow": _outward(points, -bump(points, (52, -50, 62), (14, 14, 22))),
        "neck_girth": _outward_flat(
            points, rise(y, -85.0, -125.0) * (1.0 - bump(points, (0, -105, 85), (30, 14, 30)))
        ),
        "ear_length": np.zeros_like(points),
        "ear_protrusion": np.zeros_like(points),
    }
    ear = parts == "ear"
    ear_centre = np.array([74.0, -22.0, -4.0])
    fields["ear_length"][ear] = (points[ear] - ear_centre) * np.array([0.3, 1.0, 1.0]) / 61.0
    fields["ear_protrusion"][ear] = np.stack(
        [np.clip((points[ear, 0] - 74.0) / 17.0, 0, 1.2), *np.zeros((2, ear.sum()))], axis=1
    )
    result = [Field(name, moved) for name, moved in fields.items()]
    # Differences between the sides: 0.96 mm on average, deviation 0.52, over 600 healthy children's faces (Chou et
    # al., J. Clin. Med. 8, 648, 2019); in adults most of all at tragus and gonion (Ferrario et al., J. Oral
    # Maxillofac. Surg. 52, 1994). How much of it each part has is ours.
    odd: dict[str, Array] = {
        "nose_deviation": along("x", nose * np.clip((2.0 - y) / 36.0, 0, 1.2)),
        "chin_deviation": along("x", rise(y, -55.0, -112.0) * rise(z, -10.0, 60.0)),
        "mouth_cant": along("y", bump(points, (22, -71, 96), (16, 14, 18)) * np.clip(x / 24.0, 0, 1.1)),
        "eye_height_difference": along("y", bump(points, (32, 4, 82), (20, 18, 24))),
        "brow_height_difference": along("y", bump(points, (30, 21, 90), (24, 10, 20))),
        "cheek_difference": _outward(points, bump(points, (50, -45, 68), (26, 34, 34))),
        "depth_difference": along("z", front * np.clip(x / 40.0, 0, 1)),
        "lid_difference": along("y", bump(points, (31.6, 5.0, 86), (12, 4.5, 8))),
        "ala_difference": along("y", ala),
    }
    return result + [Field(name, moved, odd=True) for name, moved in odd.items()]


def _outward(points: Array, weight: Array) -> Array:
    """Displacement away from the axis of the head, mostly sideways at the sides and forwards at the front."""
    away = points - np.array([0.0, -35.0, 20.0])
    away[:, 1] *= 0.35
    return np.asarray(weight[:, None] * away / np.linalg.norm(away, axis=1, keepdims=True))


def _outward_flat(points: Array, weight: Array) -> Array:
    away = points * np.array([1.0, 0.0, 1.0])
    return np.asarray(weight[:, None] * away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1.0))


# Free-form variation: wavelength-like reach (mm) and standard deviation (mm) outward and along the surface.
# Set so that the remaining variation of measured heads about the named dimensions is matched scale by scale.
FREE_FORM: list[tuple[float, float, float, Callable[[Array], Array]]] = [
    (60.0, 1.4, 0.9, lambda p: np.ones(len(p))),
    (32.0, 1.15, 0.75, lambda p: rise(p[:, 2], -20.0, 40.0)),
    (
        18.0,
        0.70,
        0.55,
        lambda p: rise(p[:, 2], 25.0, 70.0) * rise(p[:, 1], -128.0, -112.0) * rise(p[:, 1], 75.0, 50.0),
    ),
]
ODD_SHARE = 0.30  # of the free-form variance


def free_form_fields(points: Array, parts: Names) -> tuple[Array, Array]:
    """Even and odd fields, each with a standard normal coefficient: Gaussian waves at evenly spread
    centres.
    """
    even, odd = [], []
    skin = points[parts == "skin"]
    for reach, outward, sideways, where in FREE_FORM:
        centres = _spread(skin[where(skin) > 0.02], 1.15 * reach)
        strength = where(centres)
        near = np.exp(-0.5 * (np.linalg.norm(points[:, None] - centres, axis=2) / reach) ** 2)
        across = np.exp(
            -0.5 * (np.linalg.norm(points[:, None] - centres * np.array([-1, 1, 1]), axis=2) / reach) ** 2
        )
        # A point feels several waves: divide so that their joint standard deviation is the wanted one.
        both = np.concatenate([near, across], axis=1)
        crowd = np.sqrt((both[parts == "skin"] ** 2).sum(axis=1)).mean()
        for k in range(len(centres)):
            normal = centres[k] - np.array([0.0, -25.0, 25.0])
            normal /= np.linalg.norm(normal)
            one = np.cross(normal, [0.0, 1.0, 0.0])
            one /= max(float(np.linalg.norm(one)), 1e-6)
            for direction, deviation in (
                (normal, outward),
                (one, sideways),
                (np.cross(normal, one), sideways),
            ):
                amount = deviation * strength[k] / crowd
                flipped = direction * np.array([-1.0, 1.0, 1.0])
                here, there = near[:, k, None] * direction, across[:, k, None] * flipped
                even.append(amount * np.sqrt(1.0 - ODD_SHARE) * (here + there))
                odd.append(amount * np.sqrt(ODD_SHARE) * (here - there))
    return np.stack(even), np.stack(odd)


def _spread(points: Array, spacing: float) -> Array:
    tree = cKDTree(points)
    alive = np.ones(len(points), dtype=bool)
    picked = []
    for i in np.lexsort(np.round(points, 3).T):
        if alive[i]:
            picked.append(i)
            alive[tree.query_ball_point(points[i], spacing)] = False
    return points[picked]
