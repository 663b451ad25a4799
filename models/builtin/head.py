"""The mean head: skin, parts and texture chart put together."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

from facefit.models.builtin import parts
from facefit.models.builtin.clearance import clear
from facefit.models.builtin.halfmesh import HalfMesh, Ints, WholeMesh, mirrored
from facefit.models.builtin.layout import NECK_HEIGHT, HalfLayout, build_half
from facefit.models.builtin.plane import UNITS_PER_RADIAN, Array, direction_of_plane, plane_of_direction
from facefit.models.builtin.surface import SkinInterpolant, control_net

BACK_ISLAND_FROM_RADIANS = 2.1


@dataclass(frozen=True)
class Head:
    mesh: WholeMesh
    layout: HalfLayout
    plane: Array
    """Parameter-plane coordinates of the half skin's vertices, which come first."""


def build_head() -> Head:
    skin = SkinInterpolant(control_net())
    layout = build_half(skin)
    points = skin(layout.directions)
    points[layout.directions[:, 0] == 0.0, 0] = 0.0
    points = faired(points, layout)
    points[layout.loops["neck"][0], 1] = NECK_HEIGHT
    _close_lips(points, layout.loops["mouth"][0])
    mesh = HalfMesh()
    mesh.add_vertices(points, "skin")
    plane = plane_of_direction(layout.directions)
    angle = np.linalg.norm(plane, axis=1) / UNITS_PER_RADIAN
    behind = angle[layout.triangles].max(axis=1) > BACK_ISLAND_FROM_RADIANS
    for chosen, chart in ((~behind, _front_chart(plane)), (behind, _back_chart(plane))):
        used = np.unique(layout.triangles[chosen])
        mesh.add_triangles(layout.triangles[chosen], used, chart[used])
    loops = layout.loops
    eye, nostril = loops["eye"][0], loops["nostril"][0]
    parts.add_inner_lids(mesh, eye, _front_chart(plane[eye]))
    parts.add_nostril(mesh, nostril, _front_chart(plane[nostril]))
    parts.add_mouth(mesh, loops["mouth"][0], np.array([0.5, 0.07, 0.06]))
    parts.add_teeth(mesh, np.array([0.62, 0.16, 0.10]), upper=True)
    parts.add_teeth(mesh, np.array([0.62, 0.08, 0.10]), upper=False)
    parts.add_tongue(mesh, np.array([0.76, 0.05, 0.05]))
    parts.add_eyeball(mesh, np.array([0.90, 0.92, 0.07]))
    parts.add_ear(mesh, loops["ear"][0], np.array([0.91, 0.09, 0.08]))
    clear(mesh, eye)
    return Head(mirrored(mesh, mesh.uv * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])), layout, plane)


def faired(points: Array, layout: HalfLayout) -> Array:
    """Skin smoothed a little, more at the corners of mouth and eye, where the figures' curves run together.

    Taubin's two-step smoothing ("A Signal Processing Approach to Fair Surface Design", SIGGRAPH 1995), which
    does not shrink, and plain averaging at the corners; lid margins, lip contact, nostril rims, ear base and
    neck border stay.
    """
    triangles = layout.triangles
    i, j = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    count = len(points)
    neighbours = sparse.csr_matrix((np.ones(len(i)), (i, j)), (count, count))
    neighbours = ((neighbours + neighbours.T) > 0).astype(np.float64)
    midline = layout.directions[:, 0] == 0.0
    corners = np.zeros(count)
    for centre, reach in (((28.0, -73.5, 92.0), 4.5), ((48.0, -2.0, 77.0), 4.5)):
        corners += np.exp(-0.5 * (np.linalg.norm(points - np.array(centre), axis=1) / reach) ** 2)
    strength = np.full(count, 0.25)
    for name in ("eye", "mouth", "nostril", "ear", "neck"):
        strength[layout.loops[name][0]] = corners[layout.loops[name][0]] = 0.0
    nose = np.exp(-0.5 * (np.linalg.norm(points - np.array([10.0, -40.0, 106.0]), axis=1) / 12.0) ** 2)
    strength *= 1.0 - 0.8 * nose
    # On the midline the other half's neighbours are the mirror images: only y and z of the mean count, x
    # stays 0.
    mean_of = sparse.diags(1.0 / np.asarray(neighbours.sum(axis=1)).ravel()) @ neighbours
    for _ in range(6):
        for step in (0.5, -0.52):
            points = points + (step * strength)[:, None] * (mean_of @ points - points)
            points[midline, 0] = 0.0
    for _ in range(12):
        points = points + (0.6 * corners)[:, None] * (mean_of @ points - points)
    return points


def _close_lips(points: Array, contact: Ints) -> None:
    """Upper and lower contact vertices meet, a hair's breadth (0.04 mm) apart."""
    together = 0.5 * (points[contact] + points[contact[::-1]])
    half = len(contact) // 2
    gap = np.array([0.0, 0.02, 0.0]) * np.sign(half - np.arange(len(contact)))[:, None]
    points[contact] = together + gap


def _front_chart(plane: Array) -> Array:
    """Azimuthal chart of the head's front and sides, radially compressed so that the face has the most
    texels.
    """
    angle = np.linalg.norm(plane, axis=1, keepdims=True) / UNITS_PER_RADIAN
    full = BACK_ISLAND_FROM_RADIANS + 0.15
    reach = (angle / (1.0 + 0.30 * angle)) / (full / (1.0 + 0.30 * full))
    return np.asarray(
        np.array([0.5, 0.585]) + 0.41 * reach * plane / np.maximum(UNITS_PER_RADIAN * angle, 1e-9)
    )


def _back_chart(plane: Array) -> Array:
    """Azimuthal chart of the back of the head, seen from behind, on an island of its own below the front
    chart.
    """
    away = plane_of_direction(direction_of_plane(plane) * np.array([1.0, 1.0, -1.0]))
    return np.array([0.5, 0.195]) + 0.045 / (np.pi - BACK_ISLAND_FROM_RADIANS + 0.2) * away / UNITS_PER_RADIAN


__all__ = ["Head", "build_head"]
