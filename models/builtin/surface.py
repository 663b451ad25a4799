"""The skin surface: a smooth interpolant of the measured figures over the sphere of directions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from facefit.models.builtin import figures
from facefit.models.builtin.plane import Array, direction_of_plane, plane_of_point

GAP_MM = 18.0
LOOSE, TIGHT = 5e-5, 2e-6  # smoothing of broad sections and of feature curves
MOUTH_HALF_OPENING = 1.5  # plane units: the closed lips are drawn apart in the parameter plane only


@dataclass(frozen=True)
class ControlNet:
    """Points the skin passes through: left half with the midline, and where each is drawn on the sphere."""

    points: Array
    directions: Array
    labels: tuple[str, ...]


def control_net() -> ControlNet:
    """All measured stations as three-dimensional points."""
    points: list[Array] = []
    planes: list[Array] = []
    labels: list[str] = []

    def add(label: str, where: Array, drawn: Array | None = None) -> None:
        where = np.atleast_2d(np.asarray(where, dtype=np.float64))
        points.append(where)
        planes.append(plane_of_point(where) if drawn is None else drawn)
        labels.extend([label] * len(where))

    angles = np.radians(figures.SECTION_ANGLES_DEG)
    profile = _resampled(np.array([(0.0, y, z) for y, z in figures.PROFILE]), 6.0)
    on_profile = _profile_depth()
    for height, radii in figures.SECTIONS.items():
        radius = np.asarray(radii)
        section = np.stack(
            [radius * np.sin(angles), np.full_like(radius, height), radius * np.cos(angles)], axis=1
        )
        section[-1, 0] = 0.0
        section = section[np.isfinite(radius)]
        if section[0, 0] < 20.0:
            section = np.concatenate([[[0.0, height, on_profile(height)]], section])
            add("section", _resampled(section, 9.0)[1:])
        else:
            add("section", _resampled(section, 9.0))
    add("profile", profile)
    for height, stations in figures.DEPTH.items():
        row = np.array([(x, height, z) for x, z in stations], dtype=np.float64)
        if row[0, 0] <= 9.0:
            row = np.concatenate([[[0.0, height, on_profile(height)]], row])
            add("depth", _resampled(row, 5.0)[1:])
        else:
            add("depth", _resampled(row, 5.0))
    for height, stations in figures.NOSE_SECTIONS.items():
        row = np.array([(0.0, height, on_profile(height))] + [(x, height, z) for x, z in stations])
        add("nose", _resampled(row, 3.5)[1:])
    for label, stations_of in {
        "alar_rim": figures.ALAR_RIM,
        "nostril": figures.NOSTRIL_RIM,
        "nose_base": figures.NOSE_BASE,
        "upper_lid": figures.UPPER_LID,
        "lower_lid": figures.LOWER_LID,
        "pretarsal": figures.PRETARSAL,
        "lid_crease": figures.LID_CREASE,
        "lash_roll": figures.LASH_ROLL,
    }.items():
        add(label, _resampled(np.array(stations_of), 3.5))
    for label, curve, drawn in _lips():
        add(label, curve, drawn)
    plane = np.concatenate(planes)
    return ControlNet(np.concatenate(points), direction_of_plane(plane), tuple(labels))


def lip_plane(fraction: float, across: Array, upper: bool) -> Array:
    """Where a lip row is drawn: `across` is x over the mouth corner's x, `fraction` 0 at the vermilion
    border, 1 at contact.
    """
    contact = np.array(figures.LIP_CONTACT)
    border = np.array(
        (figures.UPPER_LIP_BORDER if upper else figures.LOWER_LIP_BORDER) + [figures.LIP_CONTACT[-1]]
    )
    corner_x = contact[-1, 0]

    def along(curve: Array) -> Array:
        drawn = plane_of_point(curve)
        return np.stack([np.interp(across, curve[:, 0] / corner_x, drawn[:, k]) for k in range(2)], axis=1)

    opening = MOUTH_HALF_OPENING * np.sqrt(np.maximum(1.0 - across**2, 0.0)) * (1.0 if upper else -1.0)
    closed = along(contact) + np.stack([np.zeros_like(opening), opening], axis=1)
    return along(border) * (1.0 - fraction) + closed * fraction


def _lips() -> list[tuple[str, Array, Array]]:
    corner_x = figures.LIP_CONTACT[-1][0]
    rows = [
        ("upper_border", figures.UPPER_LIP_BORDER, 0.0, True),
        ("upper_bulge", figures.UPPER_LIP_BULGE, 0.33, True),
        ("upper_roll", figures.UPPER_LIP_ROLL, 0.70, True),
        ("upper_contact", figures.LIP_CONTACT[:-1], 1.0, True),
        ("corner", figures.LIP_CONTACT[-1:], 1.0, True),
        ("lower_contact", figures.LIP_CONTACT[:-1], 1.0, False),
        ("lower_roll", figures.LOWER_LIP_ROLL, 0.78, False),
        ("lower_bulge", figures.LOWER_LIP_BULGE, 0.37, False),
        ("lower_border", figures.LOWER_LIP_BORDER, 0.0, False),
    ]
    result = []
    for label, curve, fraction, upper in rows:
        where = np.array(curve)
        where = _resampled(where, 3.5)
        result.append((label, where, lip_plane(fraction, where[:, 0] / corner_x, upper)))
    return result


def _resampled(curve: Array, spacing: float) -> Array:
    """Stations joined by a cubic spline and restated about every `spacing` millimetres, ends included.

    A row is broken where its stations lie more than `GAP_MM` apart: there it crosses an eye, the nose or the
    mouth.
    """
    step = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    if (step > max(GAP_MM, 1.8 * spacing)).any():
        cut = int(np.argmax(step > max(GAP_MM, 1.8 * spacing))) + 1
        return np.concatenate([_resampled(curve[:cut], spacing), _resampled(curve[cut:], spacing)])
    if len(curve) < 3:
        return curve
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1) ** 0.5)])
    pieces = max(len(curve) - 1, int(np.ceil(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum() / spacing)))
    bent = CubicSpline(chord, curve)
    fine = bent(np.linspace(0.0, chord[-1], 400))
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    where = np.interp(np.linspace(0.0, length[-1], pieces + 1), length, np.linspace(0.0, chord[-1], 400))
    result = np.asarray(bent(where), dtype=np.float64)
    result[np.abs(result[:, 0]) < 1e-6, 0] = 0.0
    return result


def _profile_depth() -> Callable[[float], float]:
    """z of the mid-sagittal profile at a height (lips left to their own tables)."""
    profile = np.array(figures.PROFILE)[::-1]
    spline = PchipInterpolator(profile[:, 0], profile[:, 1])
    return lambda height: float(spline(height))


class SkinInterpolant:
    """Triharmonic radial basis interpolation (|d|^3 with a linear part) from control points to skin points.

    Linear in the control points, so that a changed face is `weights @ changed_controls`. `smoothing` lets the
    surface pass within a tenth of a millimetre of figures that are rounded to as much.
    """

    def __init__(self, net: ControlNet) -> None:
        off_midline = net.points[:, 0] != 0.0
        mirrored = np.array([-1.0, 1.0, 1.0])
        self.control_directions = np.concatenate([net.directions, net.directions[off_midline] * mirrored])
        self.points = np.concatenate([net.points, net.points[off_midline] * mirrored])
        self.labels = net.labels + tuple(np.array(net.labels)[off_midline])
        smoothing = np.array(
            [LOOSE if label in ("section", "depth", "profile") else TIGHT for label in self.labels]
        )
        count = len(self.points)
        system = np.zeros((count + 4, count + 4))
        system[:count, :count] = _kernel(self.control_directions, self.control_directions) + np.diag(
            smoothing
        )
        system[:count, count:] = _linear(self.control_directions)
        system[count:, :count] = system[:count, count:].T
        self._inverse = np.linalg.inv(system)[:, :count]

    def weights(self, directions: Array) -> Array:
        """Matrix (n, controls): skin points at these directions are weights @ control points."""
        return np.asarray(
            np.concatenate([_kernel(directions, self.control_directions), _linear(directions)], axis=1)
            @ self._inverse
        )

    def __call__(self, directions: Array) -> Array:
        return np.asarray(self.weights(directions) @ self.points)


def _kernel(a: Array, b: Array) -> Array:
    # Unit vectors: |a - b|^2 = 2 - 2 a.b, one matrix product.
    squared = np.maximum(2.0 - 2.0 * (a @ b.T), 0.0)
    return np.asarray(squared * np.sqrt(squared))


def _linear(directions: Array) -> Array:
    return np.concatenate([np.ones((len(directions), 1)), directions], axis=1)
