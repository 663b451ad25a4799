"""Where on a face which colour lies: soft masks from landmarks and geometry, for any topology.

Every field holds one number per vertex. Distances are millimetres in the frontal plane of the mean face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from facefit.models.face_model import Topology
from facefit.models.regions import (
    LEFT_BROW,
    LEFT_EYE,
    OUTER_LIP,
    RIGHT_BROW,
    RIGHT_EYE,
    Plan,
)

# Visible iris diameter 11.7 mm (Ruefer, Schroeder and Erb, Cornea 2005); pupil in room light 4 mm.
IRIS_RADIUS_MM, PUPIL_RADIUS_MM = 5.85, 2.0


@dataclass(frozen=True)
class Masks:
    """Soft masks in [0, 1]. `eye` (sclera and iris together) excludes skin; the others lie on skin."""

    lips: Float[np.ndarray, "vertices"]
    brows: Float[np.ndarray, "vertices"]
    beard: Float[np.ndarray, "vertices"]
    moustache: Float[np.ndarray, "vertices"]
    cheeks: Float[np.ndarray, "vertices"]
    nose: Float[np.ndarray, "vertices"]
    eye_sockets: Float[np.ndarray, "vertices"]
    eye: Float[np.ndarray, "vertices"]
    iris: Float[np.ndarray, "vertices"]
    pupil: Float[np.ndarray, "vertices"]


def masks(view: Plan, topology: Topology) -> Masks:
    marks = view.marks
    eye, iris, pupil = _eyes(view, topology)
    skin = 1.0 - eye
    lips = skin * _soft(view.inside(view.outline(OUTER_LIP)), 1.5)
    brows = np.maximum(_brow(view, RIGHT_BROW), _brow(view, LEFT_BROW)) * skin
    sockets = np.maximum(_soft_ring(view, RIGHT_EYE), _soft_ring(view, LEFT_EYE)) * skin
    cheek = [0.5 * (marks[a] + marks[b]) for a, b in ((40, 48), (47, 54))]
    outward = np.array([8.0, 0.0, 0.0])
    cheeks = np.maximum(_blob(view, cheek[0] - outward, 15.0), _blob(view, cheek[1] + outward, 15.0)) * skin
    corners = [*range(2, 15), 54, 35, 33, 31, 48]
    whiskers = _soft(view.inside(marks[corners][:, :2]), 6.0) * skin * (1.0 - lips)
    # The upper lip's hair is told from the beard by where it lies: between nose and mouth corners.
    upper = marks[[31, 33, 35, 54, 52, 51, 50, 48]][:, :2]
    moustache = _soft(view.inside(upper), 2.5) * whiskers
    return Masks(
        lips=lips,
        brows=brows,
        beard=whiskers - moustache,
        moustache=moustache,
        cheeks=cheeks,
        nose=_blob(view, marks[30], 9.0) * skin,
        eye_sockets=sockets,
        eye=eye,
        iris=iris,
        pupil=pupil,
    )


def no_masks(vertices: int) -> Masks:
    """For a model without landmarks: skin everywhere."""
    return Masks(*np.zeros((10, vertices)))


def face_coordinates(
    vertices: Float[np.ndarray, "vertices 3"], view: Plan | None
) -> tuple[Float[np.ndarray, "vertices"], Float[np.ndarray, "vertices"]]:
    """Position across and up the face; both -1 to 1 over the face, clipped beyond (no seam at the back)."""
    if view is None:
        centre, half = vertices.mean(axis=0)[:2], 0.5 * np.ptp(vertices[:, :2], axis=0)
    else:
        marks = view.marks
        # The forehead is about as high as the nose is long.
        top = 2.0 * marks[27, 1] - marks[33, 1]
        centre = np.array([0.5 * (marks[0, 0] + marks[16, 0]), 0.5 * (marks[8, 1] + top)])
        half = np.array([0.5 * (marks[16, 0] - marks[0, 0]), 1.1 * (centre[1] - marks[8, 1])])
    place = (vertices[:, :2] - centre) / np.maximum(np.abs(half), 1e-6)
    place = np.clip(place, -1.0, 1.0)
    return place[:, 0], place[:, 1]


def _eyes(
    view: Plan, topology: Topology
) -> tuple[Float[np.ndarray, "vertices"], Float[np.ndarray, "vertices"], Float[np.ndarray, "vertices"]]:
    """Eye, iris and pupil masks: on eyeballs of their own where the model has them, else between the lids."""
    eye, iris, pupil = np.zeros((3, len(view.vertices)))
    for name, numbers in (("right_eyeball", RIGHT_EYE), ("left_eyeball", LEFT_EYE)):
        if name in topology.regions:
            ball = topology.regions[name]
            eye[ball] = 1.0
            from_axis = _distance_from_gaze(view.vertices, ball)
            iris[ball] = _soft(IRIS_RADIUS_MM - from_axis, 0.6)
            pupil[ball] = _soft(PUPIL_RADIUS_MM - from_axis, 0.6)
        else:
            between = _soft(view.inside(view.outline(numbers)) - 0.5, 0.6)
            centre = view.outline(numbers).mean(axis=0)
            away = np.linalg.norm(view.vertices[:, :2] - centre, axis=1)
            eye = np.maximum(eye, between)
            iris = np.maximum(iris, between * _soft(IRIS_RADIUS_MM - away, 0.8))
            pupil = np.maximum(pupil, between * _soft(PUPIL_RADIUS_MM - away, 0.8))
    return eye, iris, pupil


def _distance_from_gaze(
    vertices: Float[np.ndarray, "vertices 3"], ball: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Distance from the eye's axis, mm; inf on the back half. The axis points straight ahead at rest."""
    centre = 0.5 * (vertices[ball].min(axis=0) + vertices[ball].max(axis=0))
    away = vertices[ball] - centre
    return np.where(away[:, 2] > 0, np.linalg.norm(away[:, :2], axis=1), np.inf)


def _brow(view: Plan, numbers: list[int]) -> Float[np.ndarray, "vertices"]:
    """Hair cover of one brow, full along the landmarks' line and thin at its outer end."""
    line = view.outline(numbers) - [0.0, 1.5]
    along = np.abs(view.vertices[:, 0] - view.marks[27, 0])
    inner, outer = sorted(np.abs(line[[0, -1], 0] - view.marks[27, 0]))
    width = np.interp(along, [inner, 0.5 * (inner + outer), outer], [4.5, 4.0, 2.0])
    return _soft(width - view.along(line), 2.0)


def _soft_ring(view: Plan, numbers: list[int]) -> Float[np.ndarray, "vertices"]:
    """The lids and the skin about one eye, fading over 12 mm."""
    distance = view.inside(view.outline(numbers))
    return np.asarray(np.exp(-0.5 * np.minimum(distance, 0.0) ** 2 / 6.0**2))


def _blob(view: Plan, centre: Float[np.ndarray, "3"], radius: float) -> Float[np.ndarray, "vertices"]:
    return np.asarray(np.exp(-0.5 * ((view.vertices - centre) ** 2).sum(axis=1) / radius**2))


def _soft(inside_mm: Float[np.ndarray, "vertices"], width_mm: float) -> Float[np.ndarray, "vertices"]:
    """0 outside to 1 inside over `width_mm` to both sides of the outline."""
    t = np.clip(0.5 + 0.5 * inside_mm / width_mm, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
