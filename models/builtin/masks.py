"""Where on the half head which colour lies: soft masks from the layout's loops and from places in millimetres."""

from dataclasses import dataclass

import numpy as np

from facefit.models.builtin.fields import _spread, bump, rise
from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.parts import EYE_CENTRE
from facefit.models.builtin.plane import Array
from facefit.models.builtin.sky import sky_view

BLOTCH_REACH_MM = 20.0
# Folds that age deepens: (path in the frontal plane, half width, depth relative to the deepest).
FOLDS = (
    ([(17.5, -38.0), (22.0, -45.0), (26.5, -54.0), (29.5, -64.0), (31.0, -72.0)], 2.3, 1.0),  # nasolabial
    ([(27.5, -74.0), (29.5, -82.0), (30.0, -92.0)], 2.2, 0.6),  # from the mouth's corner down
    ([(15.5, -9.0), (21.0, -16.0), (29.0, -19.5), (38.0, -19.0)], 2.6, 0.8),  # under the eye
    ([(7.5, 14.0), (8.5, 22.0), (7.5, 29.0)], 1.6, 0.5),  # between the brows
    ([(51.0, 1.0), (60.0, 5.0)], 1.4, 0.45),  # crow's feet
    ([(51.5, -4.0), (61.0, -6.0)], 1.4, 0.45),
    ([(0.0, 40.0), (20.0, 41.5), (36.0, 38.0)], 1.8, 0.35),  # across the forehead
    ([(0.0, 51.0), (20.0, 52.5), (34.0, 49.0)], 1.8, 0.35),
    ([(0.0, -87.5), (12.0, -88.5), (18.0, -91.0)], 2.4, 0.35),  # under the lower lip
)


@dataclass(frozen=True)
class Masks:
    """Each (half vertices,) in [0, 1]."""

    lips: Array
    brows: Array
    brow_rim: Array
    """Where thick brows have hair and thin ones none."""
    beard: Array
    moustache: Array
    cheeks: Array
    nose: Array
    ears: Array
    forehead: Array
    under_eye: Array
    lids: Array
    lashes: Array
    mouth_line: Array
    hair: Array
    temples: Array
    folds: Array
    sky: Array
    """Share of the sky's light that finds its way to the skin; 1 for eyes and what lies inside the mouth."""
    blotches: Array
    """(half vertices, blotches): smooth bumps over the face, the same on both sides."""
    odd_blotches: Array
    """The same, of opposite sign on the right side."""


def masks(mesh: WholeMesh, loops: dict[str, list[Ints]]) -> Masks:
    count = mesh.half_count
    p, parts = mesh.points[:count], mesh.parts[:count]
    x, y, z = p.T
    skin = (parts == "skin").astype(float)
    lips = _lips(p, loops["mouth"]) * skin
    off_lips = 1.0 - np.clip(lips * 1.6, 0, 1)
    brows, thick = (brow_cover(p, scale) * skin for scale in (1.0, 1.6))
    jaw_zone = rise(y, -52.0, -74.0) * rise(z, 8.0, 34.0) * rise(y, -140.0, -116.0)
    sideburn = bump(p, (68, -40, 30), (9, 26, 10)) * 0.8
    cheek_free = rise(y + 0.9 * (x - 30.0), -22.0, -60.0) + rise(x, 50.0, 64.0)
    beard = np.clip(jaw_zone * np.clip(cheek_free, 0, 1) + sideburn, 0.0, 1.0) * skin * off_lips
    beard *= 1.0 - 0.6 * bump(p, (12, -86, 98), (5, 5, 12))
    moustache = bump(p, (9, -56, 105), (12, 5.0, 12)) * rise(y, -48.5, -52.5) * rise(y, -75.0, -62.0)
    eye_distance = np.linalg.norm(p - EYE_CENTRE, axis=1)
    mouth_line = np.zeros(count)
    mouth_line[loops["mouth"][0]], mouth_line[loops["mouth"][1]] = 1.0, 0.3
    face = skin * rise(z, 20.0, 50.0) * rise(y, -125.0, -110.0)
    centres = _spread(p[(face > 0.5)], 1.25 * BLOTCH_REACH_MM)
    near, across = (
        np.exp(-0.5 * (np.linalg.norm(p[:, None] - centres * side, axis=2) / BLOTCH_REACH_MM) ** 2)
        for side in (np.ones(3), np.array([-1.0, 1.0, 1.0]))
    )
    return Masks(
        lips=lips,
        brows=brows,
        brow_rim=thick - brows,
        beard=beard,
        moustache=moustache * skin * off_lips,
        cheeks=bump(p, (42, -32, 84), (17, 15, 20)) * skin,
        nose=np.maximum(bump(p, (0, -34, 118), (13, 11, 16)), bump(p, (16, -38, 101), (7, 8, 9))) * skin,
        ears=(parts == "ear").astype(float),
        forehead=rise(y, 24.0, 44.0) * rise(z, 20.0, 60.0) * skin,
        under_eye=np.maximum(bump(p, (29, -14, 85), (13, 5, 8)), bump(p, (17, -6, 85), (5, 7, 6))) * skin,
        lids=np.exp(-0.5 * (np.maximum(eye_distance - 14.5, 0.0) / 3.5) ** 2) * skin,
        lashes=_lashes(count, loops["eye"]),
        mouth_line=mouth_line,
        hair=_crown(p) * skin,
        temples=bump(p, (60, 20, 55), (16, 22, 22)) * skin,
        folds=_folds(p) * skin * (1.0 - lips),
        sky=np.where(np.isin(parts, ["skin", "ear"]), _sky(mesh), 1.0),
        blotches=near + across,
        odd_blotches=near - across,
    )


def _lips(points: Array, mouth: list[Ints]) -> Array:
    """Vermilion, from contact to its border, which is sharp but for a little blood under the skin beyond."""
    lips = np.zeros(len(points))
    for loop, amount in zip(mouth, (1.0, 1.0, 1.0, 1.0, 0.97, 0.42, 0.02, 0.0), strict=True):
        lips[loop] = amount
    away = np.linalg.norm(points[:, None] - points[mouth[5]], axis=2).min(axis=1)
    return np.asarray(np.maximum(lips, 0.14 * np.exp(-((away / 1.4) ** 2))))


def brow_cover(points: Array, thickness: float) -> Array:
    """Hair of a brow so many times as thick as usual; a thicker one reaches higher, not lower."""
    x, y, z = points.T
    centre = np.interp(x, [7, 14, 24, 35, 46, 58], [19.0, 20.3, 22.6, 23.9, 22.0, 15.0])
    half_width = np.interp(x, [7, 13, 30, 40, 50, 59], [2.9, 3.7, 3.4, 2.8, 1.9, 0.8])
    from_centre = np.abs(y - centre - (thickness - 1.0) * half_width) / (thickness * half_width)
    ends = rise(x, 7.5, 13.5) * rise(x, 60.0, 51.0) * (z > 55)
    return np.asarray(rise(from_centre, 1.6, 0.35) * ends)


def _lashes(count: int, eye: list[Ints]) -> Array:
    """Upper and lower lid margin, none in the corners."""
    lashes = np.zeros(count)
    spokes = np.arange(len(eye[0]))
    upper = spokes <= len(spokes) // 2
    high = np.abs(np.sin(2.0 * np.pi * spokes / len(spokes)))
    for loop, above, below, least in zip(
        eye, (1.0, 0.75, 0.15), (0.45, 0.15, 0.0), (0.35, 0.0, 0.0), strict=False
    ):
        lashes[loop] = np.where(upper, above, below) * np.clip(least + high, 0, 1)
    return lashes


def _crown(points: Array) -> Array:
    """Where hair grows on the head."""
    x, y, z = points.T
    hairline = 74.0 - 0.0045 * x**2 + 6.0 * np.exp(-(((x - 30.0) / 14.0) ** 2))
    crown = np.maximum(rise(y - hairline, -6.0, 13.0), rise(z + 0.25 * y, 42.0, 0.0) * rise(y, -42.0, -20.0))
    return np.asarray(np.maximum(crown, rise(z, -14.0, -26.0) * rise(y, -95.0, -70.0)))


def _folds(points: Array) -> Array:
    """Lines of the ageing face, 1 in the middle of the deepest."""
    depth = np.zeros(len(points))
    for path, half_width, relative in FOLDS:
        line = np.array(path)
        start, step = line[:-1], np.diff(line, axis=0)
        from_start = points[:, None, :2] - start
        share = np.clip((from_start * step).sum(-1) / (step * step).sum(-1), 0.0, 1.0)
        away = np.linalg.norm(from_start - share[..., None] * step, axis=2).min(axis=1)
        depth = np.maximum(depth, relative * np.exp(-0.5 * (away / half_width) ** 2))
    return np.asarray(depth * rise(points[:, 2], 40.0, 60.0))


def _sky(mesh: WholeMesh) -> Array:
    corner = mesh.points[mesh.triangles]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = np.zeros_like(mesh.points)
    for k in range(3):
        np.add.at(normals, mesh.triangles[:, k], area)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return sky_view(mesh.points, mesh.triangles, normals, mesh.half_count)
