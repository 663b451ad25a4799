"""Mesh of the skin: loops of vertices around eyes, mouth, nostrils, ears and neck, and an even filling
between them.

Everything is laid out on the left half of the parameter sphere and mirrored, so the mesh is symmetric by
construction. The filling is a Poisson-disc sample relaxed by springs whose lengths are measured on the
*surface* (after Persson and Strang, "A Simple Mesh Generator in MATLAB", SIAM Review 46, 2004); its
triangulation is the convex hull of the directions, which is the spherical Delaunay triangulation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial import ConvexHull, cKDTree

from facefit.models.builtin import figures
from facefit.models.builtin.parts import EAR_CENTRE, ear_axes
from facefit.models.builtin.plane import (
    VIEWPOINT,
    Array,
    direction_of_plane,
    plane_of_direction,
    plane_of_point,
)
from facefit.models.builtin.surface import SkinInterpolant, lip_plane

Ints = NDArray[np.int64]
EYE_SPOKES, MOUTH_HALF_SPOKES, NOSTRIL_SPOKES, EAR_SPOKES = 48, 18, 18, 40
NECK_HEIGHT = -150.0


@dataclass
class HalfLayout:
    """Directions of the left half's skin vertices, the loops among them, and triangles (left half only)."""

    directions: Array
    triangles: Ints
    loops: dict[str, list[Ints]] = field(default_factory=dict)


def curve_points(curve: Array, count: int) -> Array:
    """`count` points evenly spaced along a spline through the rows of `curve` (any dimension)."""
    chord = np.concatenate([[0.0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(curve, axis=0), axis=1)))])
    spline = CubicSpline(chord, curve)
    fine = spline(np.linspace(0.0, chord[-1], 800))
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    return np.asarray(
        spline(np.interp(np.linspace(0.0, length[-1], count), length, np.linspace(0.0, chord[-1], 800)))
    )


def eye_rings() -> list[Array]:
    """Plane loops around the left lid opening, from the margin outwards: inner corner, upper lid, outer
    corner, lower lid.
    """
    upper = plane_of_point(np.array(figures.UPPER_LID))
    lower = plane_of_point(np.array([figures.UPPER_LID[-1], *figures.LOWER_LID, figures.UPPER_LID[0]]))
    half = EYE_SPOKES // 2
    margin = np.concatenate([curve_points(upper, half + 1)[:-1], curve_points(lower, half + 1)[:-1]])
    centre = 0.5 * (upper[0] + upper[-1]) + np.array([0.0, 1.5])
    turn = np.pi - 2.0 * np.pi * np.arange(EYE_SPOKES) / EYE_SPOKES
    tilt = np.arctan2(*(upper[-1] - upper[0])[::-1])
    ellipse = np.stack([37.0 * np.cos(turn), 25.0 * np.sin(turn)], axis=1)
    ellipse = ellipse @ np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) + centre
    return [margin + (ellipse - margin) * f for f in (0.0, 0.055, 0.13, 0.23, 0.35, 0.50)]


def mouth_rings() -> list[Array]:
    """Open plane loops (midline above, corner, midline below) from lip contact over the vermilion border
    outwards.
    """
    across = np.sin(np.linspace(0.0, 0.5 * np.pi, MOUTH_HALF_SPOKES + 1)) ** 0.92
    corner = plane_of_point(np.array(figures.LIP_CONTACT[-1:]))[0]
    rings = []
    for fraction in (1.0, 0.88, 0.7, 0.48, 0.24, 0.0):
        spread = (1.0 - fraction) * 3.2
        rows = []
        for upper in (True, False):
            row = lip_plane(fraction, across, upper)
            # The lips' rows all end in the corner; loops pass round it instead.
            row[:, 0] += spread * across**3
            row[:, 1] += (
                (1.0 if upper else -1.0)
                * spread
                * 0.45
                * across**2
                * np.sqrt(np.maximum(1.0 - across**8, 0.0))
            )
            rows.append(row)
        loop = np.concatenate([rows[0], rows[1][-2::-1]])
        loop[MOUTH_HALF_SPOKES] = corner + np.array([spread, 0.0])
        rings.append(loop)
    for distance in (3.0, 6.5):
        rings.append(_offset(rings[5], distance, open_ended=True))
    return rings


def nostril_rings() -> list[Array]:
    rim = plane_of_point(np.array([*figures.NOSTRIL_RIM, figures.NOSTRIL_RIM[0]]))
    chord = np.linspace(0.0, 1.0, len(rim))
    loop = np.asarray(CubicSpline(chord, rim, bc_type="periodic")(np.arange(NOSTRIL_SPOKES) / NOSTRIL_SPOKES))
    centre = loop.mean(axis=0)
    (ax, ay), (bx, by) = loop[0] - centre, loop[1] - centre
    if ax * by - ay * bx > 0:
        loop = loop[::-1]
    return [loop, _offset(loop, 1.5)]


def ear_ring() -> Array:
    """Plane loop where the ear grows out of the head."""
    turn = -2.0 * np.pi * np.arange(EAR_SPOKES) / EAR_SPOKES
    along, back, _ = ear_axes()
    reach_back = np.where(np.cos(turn) > 0, 7.0, 12.0)
    reach_up = np.where(np.sin(turn) > 0, 23.0, 25.0)
    base = (
        EAR_CENTRE + (reach_back * np.cos(turn))[:, None] * back + (reach_up * np.sin(turn))[:, None] * along
    )
    base[:, 0] = 73.5
    return plane_of_point(base)


def neck_ring() -> Array:
    angles = np.radians([0, *figures.SECTION_ANGLES_DEG])
    low, high = (np.array([z, *figures.SECTIONS[y]]) for y, z in ((-155, 35.3), (-128, 47.4)))
    radii = low + (high - low) * (NECK_HEIGHT + 155.0) / 27.0
    fine = np.linspace(0.0, np.pi, 23)
    radius = np.interp(fine, angles, radii)
    ring = np.stack([radius * np.sin(fine), np.full_like(fine, NECK_HEIGHT), radius * np.cos(fine)], axis=1)
    ring[[0, -1], 0] = 0.0
    return plane_of_point(ring)


def edge_length_mm(points: Array) -> Array:
    """Wanted edge length: fine at eyes, nose and mouth, coarse on scalp and neck."""
    eye = np.array([31.6, 0.0, 84.0])
    features = [
        (eye, 20.0, 2.3),
        (np.array([9.0, -38.0, 106.0]), 13.0, 1.75),
        (np.array([0.0, -12.0, 106.0]), 12.0, 2.6),
        (np.array([4.0, -44.0, 107.0]), 5.0, 1.35),
        (np.array([20.0, 22.0, 95.5]), 9.0, 2.5),
        (np.array([41.0, 23.0, 87.5]), 9.0, 2.5),
        (np.array([11.0, -70.0, 103.0]), 20.0, 2.3),
    ]
    wanted = np.full(len(points), 1e3)
    for centre, reach, size in features:
        distance = np.linalg.norm(points - centre, axis=1)
        wanted = np.minimum(wanted, size + 0.075 * np.maximum(distance - reach, 0.0))
    broad = 3.7 + 0.075 * np.maximum(40.0 - points[:, 2], 0.0) + 0.05 * np.maximum(points[:, 1] - 60.0, 0.0)
    return np.asarray(np.minimum(wanted, np.minimum(broad, 12.0)))


def inside_polygon(loop: Array, points: Array) -> NDArray[np.bool_]:
    """Even-odd test of points (n, 2) against a closed loop (m, 2)."""
    a, b = loop[:, None], np.roll(loop, -1, axis=0)[:, None]
    spans = (a[..., 1] > points[:, 1]) != (b[..., 1] > points[:, 1])
    rise = np.where(spans, b[..., 1] - a[..., 1], 1.0)
    crossing = a[..., 0] + (points[:, 1] - a[..., 1]) * (b[..., 0] - a[..., 0]) / rise
    return np.asarray(((spans & (points[:, 0] < crossing)).sum(axis=0) % 2).astype(bool))


def _offset(loop: Array, distance: float, open_ended: bool = False) -> Array:
    if open_ended:
        mirrored = loop[::-1][1:-1] * np.array([-1.0, 1.0])
        closed = np.concatenate([loop, mirrored])
        return np.asarray(_offset(closed, distance)[: len(loop)] * np.array([1.0, 1.0]))
    tangent = np.roll(loop, -1, axis=0) - np.roll(loop, 1, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    for _ in range(3):
        normal = (np.roll(normal, 1, axis=0) + 2 * normal + np.roll(normal, -1, axis=0)) / 4
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return loop + normal * distance


def build_half(skin: SkinInterpolant) -> HalfLayout:
    """Loops plus relaxed filling, triangulated."""
    rings: dict[str, list[Array]] = {
        "eye": eye_rings(),
        "mouth": mouth_rings(),
        "nostril": nostril_rings(),
        "ear": [ear_ring()],
        "neck": [neck_ring()],
    }
    loops: dict[str, list[Ints]] = {}
    fixed: list[Array] = []
    start = 0
    for name, group in rings.items():
        loops[name] = []
        for loop in group:
            loops[name].append(np.arange(start, start + len(loop)))
            fixed.append(direction_of_plane(loop))
            start += len(loop)
    ring_directions = np.concatenate(fixed)
    ring_directions[np.abs(ring_directions[:, 0]) < 1e-9, 0] = 0.0
    filled = _fill(skin, rings, ring_directions)
    directions = np.concatenate([ring_directions, filled])
    triangles = _triangulate(directions)
    plane = plane_of_direction(directions)
    middle = plane[triangles].mean(axis=1)
    keep = np.ones(len(triangles), dtype=bool)
    for inside in hole_tests(rings, outermost=True):
        keep &= ~inside(middle)
    points = skin(directions)
    bands = [
        _band(points, outer, inner, closed=name not in ("mouth", "neck"))
        for name, group in loops.items()
        for inner, outer in zip(group[:-1], group[1:], strict=True)
    ]
    return HalfLayout(directions, np.concatenate([triangles[keep], *bands]), loops)


def _band(points: Array, outer: Ints, inner: Ints, closed: bool) -> Ints:
    """Quads between two loops as triangles, split along the shorter diagonal, counter-clockwise from
    outside.
    """
    i = np.arange(len(outer) if closed else len(outer) - 1)
    j = (i + 1) % len(outer)
    a, b, c, d = outer[i], outer[j], inner[j], inner[i]
    short = np.linalg.norm(points[a] - points[c], axis=1) <= np.linalg.norm(points[b] - points[d], axis=1)
    one = np.where(short[:, None], np.stack([a, b, c], axis=1), np.stack([a, b, d], axis=1))
    two = np.where(short[:, None], np.stack([a, c, d], axis=1), np.stack([b, c, d], axis=1))
    band = np.concatenate([one, two])
    corner = points[band]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).sum(axis=0)
    outward = points[outer].mean(axis=0) - VIEWPOINT
    return band if normal @ outward > 0 else band[:, [0, 2, 1]]


def hole_tests(
    rings: dict[str, list[Array]], outermost: bool = False
) -> list[Callable[[Array], NDArray[np.bool_]]]:
    """Point-in-hole tests in the plane, for the innermost loop of each feature or the outermost."""
    tests: list[Callable[[Array], NDArray[np.bool_]]] = []
    for name, group in rings.items():
        loop = group[-1 if outermost else 0]
        if name in ("mouth", "neck"):
            loop = np.concatenate([loop, loop[::-1][1:-1] * np.array([-1.0, 1.0])])
        tests.append(partial(inside_polygon, loop))
    return tests


def _fill(skin: SkinInterpolant, rings: dict[str, list[Array]], fixed: Array, seed: int = 7) -> Array:
    random = np.random.default_rng(seed)
    count = 40_000
    index = np.arange(count) + 0.5
    polar, turn = np.arccos(1.0 - 2.0 * index / count), np.pi * (1.0 + 5.0**0.5) * index
    sphere = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1)
    outside = hole_tests(rings, outermost=True)

    def admissible(directions: Array) -> NDArray[np.bool_]:
        plane = plane_of_direction(directions)
        return np.asarray(~np.any([inside(plane) for inside in outside], axis=0))

    midline = _midline(skin, fixed, outside)
    candidates = sphere[sphere[:, 0] > 0.0]
    candidates = candidates[admissible(candidates)]
    points = skin(candidates)
    wanted = edge_length_mm(points)
    far = cKDTree(skin(np.concatenate([fixed, midline]))).query(points)[0] > 0.75 * wanted
    far &= points[:, 0] > 0.6 * wanted
    candidates, points, wanted = candidates[far], points[far], wanted[far]
    order = random.permutation(len(points))
    picked = _poisson_disc(points[order], 0.78 * wanted[order])
    chosen = [midline, candidates[order[picked]]]
    free = np.concatenate(chosen)
    on_midline = np.arange(len(free)) < len(chosen[0])
    # The midline's own springs: its vertices keep their places, so that every triangle lies in one half.
    for step in range(30):
        free = _relax(skin, fixed, free, on_midline, 0.25 if step < 20 else 0.12)
        moved_in = ~admissible(free) & ~on_midline
        if moved_in.any():
            free, on_midline = free[~moved_in], on_midline[~moved_in]
    return free


def _midline(
    skin: SkinInterpolant, fixed: Array, outside: list[Callable[[Array], NDArray[np.bool_]]]
) -> Array:
    """Directions along the midline, evenly spaced between the loops that cross it."""
    crossing = np.sort(np.unique(np.round(np.arctan2(fixed[:, 1], fixed[:, 2])[fixed[:, 0] == 0.0], 9)))
    ends = np.append(crossing, crossing[0] + 2.0 * np.pi)
    result = []
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        angle = np.linspace(start, end, 400)
        arc = np.stack([np.zeros_like(angle), np.sin(angle), np.cos(angle)], axis=1)
        plane = plane_of_direction(arc[200:201] if abs(angle[200]) > 1e-3 else arc[201:202])
        if any(bool(inside(plane)[0]) for inside in outside):
            continue
        points = skin(arc)
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1) / edge_length_mm(
            0.5 * (points[1:] + points[:-1])
        )
        travelled = np.concatenate([[0.0], np.cumsum(steps)])
        pieces = max(1, int(np.ceil(1.15 * travelled[-1])))
        where = np.interp(np.arange(1, pieces) * travelled[-1] / pieces, travelled, angle)
        result.append(np.stack([np.zeros_like(where), np.sin(where), np.cos(where)], axis=1))
    return np.concatenate(result)


def _poisson_disc(points: Array, spacing: Array) -> Ints:
    tree = cKDTree(points)
    alive = np.ones(len(points), dtype=bool)
    picked = []
    for i in range(len(points)):
        if alive[i]:
            picked.append(i)
            alive[tree.query_ball_point(points[i], spacing[i])] = False
    return np.array(picked)


def _relax(
    skin: SkinInterpolant, fixed: Array, free: Array, on_midline: NDArray[np.bool_], rate: float
) -> Array:
    directions = np.concatenate([fixed, free])
    triangles = _triangulate(directions)
    edges = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1),
        axis=0,
    )
    points = skin(directions)
    wanted = edge_length_mm(points)
    a, b = edges.T
    stretch = np.linalg.norm(points[a] - points[b], axis=1) / (0.5 * (wanted[a] + wanted[b]))
    pull = np.clip(stretch - 1.02, -0.6, 0.6)[:, None] * (directions[b] - directions[a])
    force, weight = np.zeros_like(directions), np.zeros((len(directions), 1))
    np.add.at(force, a, pull)
    np.add.at(force, b, -pull)
    np.add.at(weight, a, 1.0)
    np.add.at(weight, b, 1.0)
    moved = free + rate * force[len(fixed) :] * 2.0 / np.sqrt(weight[len(fixed) :])
    moved[on_midline, 0] = 0.0
    distance = np.linalg.norm(points[len(fixed) :] - VIEWPOINT, axis=1)
    smallest = 0.6 * wanted[len(fixed) :] / distance
    moved[~on_midline, 0] = np.maximum(moved[~on_midline, 0], smallest[~on_midline])
    # Rounding keeps the choice of triangles the same on machines whose last bits differ.
    return np.asarray(np.round(moved / np.linalg.norm(moved, axis=1, keepdims=True), 9))


def _triangulate(directions: Array) -> Ints:
    """Spherical Delaunay triangles of the half, counter-clockwise from outside; the mirrored half keeps the
    seam straight.
    """
    off = np.flatnonzero(directions[:, 0] > 0.0)
    both = np.concatenate([directions, directions[off] * np.array([-1.0, 1.0, 1.0])])
    triangles = ConvexHull(both).simplices.astype(np.int64)
    triangles = triangles[(triangles < len(directions)).all(axis=1)]
    corner = directions[triangles]
    facing = np.einsum(
        "ij,ij->i", np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), corner.mean(axis=1)
    )
    triangles[facing < 0] = triangles[facing < 0][:, [0, 2, 1]]
    order = np.lexsort(np.sort(triangles, axis=1).T)
    return triangles[order]
