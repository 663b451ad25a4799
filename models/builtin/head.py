"""The mean head: skin, parts and texture chart put together."""

from dataclasses import dataclass

import numpy as np

from . import parts
from .halfmesh import HalfMesh, Ints, WholeMesh, mirrored
from .layout import HalfLayout, build_half
from .plane import UNITS_PER_RADIAN, Array, direction_of_plane, plane_of_direction
from .surface import SkinInterpolant, control_net

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
    parts.add_eyeball(mesh, np.array([0.90, 0.92, 0.07]))
    parts.add_ear(mesh, loops["ear"][0], np.array([0.91, 0.09, 0.08]))
    return Head(mirrored(mesh, mesh.uv * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])), layout, plane)


def _close_lips(points: Array, contact: Ints) -> None:
    """Upper and lower contact vertices meet, a hair's breadth (0.04 mm) apart."""
    together = 0.5 * (points[contact] + points[contact[::-1]])
    half = len(contact) // 2
    gap = np.array([0.0, 0.02, 0.0]) * np.sign(half - np.arange(len(contact)))[:, None]
    points[contact] = together + gap


def _front_chart(plane: Array) -> Array:
    """Azimuthal chart of the head's front and sides, radially compressed so that the face has the most texels."""
    angle = np.linalg.norm(plane, axis=1, keepdims=True) / UNITS_PER_RADIAN
    full = BACK_ISLAND_FROM_RADIANS + 0.15
    reach = (angle / (1.0 + 0.30 * angle)) / (full / (1.0 + 0.30 * full))
    return np.array([0.5, 0.585]) + 0.41 * reach * plane / np.maximum(UNITS_PER_RADIAN * angle, 1e-9)


def _back_chart(plane: Array) -> Array:
    """Azimuthal chart of the back of the head, seen from behind, on an island of its own below the front chart."""
    away = plane_of_direction(direction_of_plane(plane) * np.array([1.0, 1.0, -1.0]))
    return np.array([0.5, 0.195]) + 0.045 / (np.pi - BACK_ISLAND_FROM_RADIANS + 0.2) * away / UNITS_PER_RADIAN


__all__ = ["Head", "Ints", "build_head"]
