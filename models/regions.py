"""Parts of any face, found from its 68 landmarks and its geometry, so that no list of vertices has to be
copied.

A part is a polygon in the frontal (x, y) plane of the mean face, in millimetres, joined by landmarks; a
vertex belongs to it by its signed distance to the outline. Only vertices on the front of the head count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from facefit.mesh import vertex_normals
from facefit.models.face_model import Landmarks

JAW, RIGHT_BROW, LEFT_BROW = list(range(17)), list(range(17, 22)), list(range(22, 27))
RIGHT_EYE, LEFT_EYE = list(range(36, 42)), list(range(42, 48))
OUTER_LIP, INNER_LIP = list(range(48, 60)), list(range(60, 68))

# How far beside the jaw line a silhouette may run: over the cheek on the far side of a turned head, under the
# jaw on the near side.
JAW_BAND_MM = 35.0
BELOW_JAW_MM = 10.0
BROW_MM = 8.0
EYELID_MM = 5.0
# The share of the face that expressions move least counts as rigid.
RIGID_SHARE = 0.3


@dataclass(frozen=True)
class Plan:
    """The mean face seen from the front: vertices, the 68 landmarks, and which vertices face the viewer."""

    vertices: Float[np.ndarray, "vertices 3"]
    marks: Float[np.ndarray, "68 3"]
    front: Bool[np.ndarray, "vertices"]

    def inside(self, outline: Float[np.ndarray, "corners 2"]) -> Float[np.ndarray, "vertices"]:
        """Signed distance to a closed outline in the frontal plane, mm, positive inside; -inf on the back."""
        return np.where(self.front, signed_distance(self.vertices[:, :2], outline), -np.inf)

    def along(self, line: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "vertices"]:
        """Distance to an open line in the frontal plane, mm; inf on the back."""
        return np.where(
            self.front, segment_distance(self.vertices[:, :2], line[:-1], line[1:]).min(axis=1), np.inf
        )

    def outline(self, numbers: list[int]) -> Float[np.ndarray, "corners 2"]:
        return self.marks[numbers, :2]


def plan(
    vertices: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"], landmarks: Landmarks
) -> Plan | None:
    """None where the model has not all 68 landmarks."""
    if landmarks.numbers.tolist() != list(range(68)):
        return None
    marks = (vertices[triangles[landmarks.triangles]] * landmarks.barycentric[:, :, None]).sum(axis=1)
    # The ears' jaw points lie behind the visible face; whatever is further back is the back of the head.
    behind = min(marks[0, 2], marks[16, 2]) - 15.0
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(triangles)).numpy()
    front = (normals[:, 2] > -0.1) & (vertices[:, 2] > behind)
    return Plan(vertices, marks, front)


def standard_regions(
    view: Plan,
    expression_basis: Float[np.ndarray, "modes vertices 3"],
    face: Int[np.ndarray, "n"] | None = None,
) -> dict[str, Int[np.ndarray, "n"]]:
    """The parts the fit, the albedo prior and the editing of a face ask for, as vertex lists."""
    parts = {name: np.flatnonzero(view.inside(outline) > 0) for name, outline in outlines(view).items()}
    face = parts["face"] if face is None else face
    for name, numbers in (("right_eyelids", RIGHT_EYE), ("left_eyelids", LEFT_EYE)):
        parts[name] = np.flatnonzero(np.abs(view.inside(view.outline(numbers))) < EYELID_MM)
    parts["lips"] = np.setdiff1d(parts["lips"], np.flatnonzero(view.inside(view.outline(INNER_LIP)) > 0.5))
    parts["brows"] = np.union1d(parts["right_brow"], parts["left_brow"])
    parts["face"] = face
    parts["jaw_contour"] = jaw_contour(view)
    parts["rigid"] = rigid(view, expression_basis, face)
    return {name: members for name, members in parts.items() if len(members)}


def outlines(view: Plan) -> dict[str, Float[np.ndarray, "corners 2"]]:
    """Closed outlines in the frontal plane, mm."""
    marks = view.marks[:, :2]
    return {
        "face": np.concatenate([marks[JAW], _forehead_arc(marks)]),
        "lips": marks[OUTER_LIP],
        "right_brow": _band(marks[RIGHT_BROW], BROW_MM),
        "left_brow": _band(marks[LEFT_BROW], BROW_MM),
        "nose": np.stack([marks[27] + [-9, 4], marks[27] + [9, 4], marks[35] + [7, 3], marks[35] + [3, -3],
                          marks[33] + [0, -2], marks[31] + [-3, -3], marks[31] + [-7, 3]]),
    }  # fmt: skip


def jaw_contour(view: Plan) -> Int[np.ndarray, "n"]:
    """Vertices that may form the silhouette a jaw landmark lies on."""
    jaw = view.marks[JAW]
    top = 10.0 + max(jaw[0, 1], jaw[-1, 1])
    distance = segment_distance(view.vertices, jaw[:-1], jaw[1:])
    nearest = distance.argmin(axis=1)
    below = 0.5 * (jaw[:-1] + jaw[1:])[nearest, 1] - view.vertices[:, 1]
    near = (distance.min(axis=1) < JAW_BAND_MM) & (below < BELOW_JAW_MM)
    return np.flatnonzero(near & (view.vertices[:, 1] < top))


def rigid(
    view: Plan, expression_basis: Float[np.ndarray, "modes vertices 3"], face: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
    """The part of the face that expressions move least; without expressions, what lies above the mouth."""
    if not len(expression_basis):
        return np.asarray(face[view.vertices[face, 1] > view.marks[33, 1]])
    motion = np.sqrt((expression_basis[:, face] ** 2).sum(axis=(0, 2)))
    return np.sort(face[np.argsort(motion, kind="stable")[: max(3, int(RIGID_SHARE * len(face)))]])


def signed_distance(
    points: Float[np.ndarray, "points 2"], outline: Float[np.ndarray, "corners 2"]
) -> Float[np.ndarray, "points"]:
    """Distance to a closed polygon, positive inside (even-odd rule)."""
    start, end = outline, np.roll(outline, -1, axis=0)
    distance = segment_distance(points, start, end).min(axis=1)
    x, y = points[:, :1], points[:, 1:]
    crosses = (start[:, 1] > y) != (end[:, 1] > y)
    rise = np.where(end[:, 1] == start[:, 1], 1.0, end[:, 1] - start[:, 1])
    at_x = start[:, 0] + (y - start[:, 1]) / rise * (end[:, 0] - start[:, 0])
    within = (crosses & (x < at_x)).sum(axis=1) % 2 == 1
    return np.asarray(np.where(within, distance, -distance))


def segment_distance(
    points: Float[np.ndarray, "points d"], start: Float[np.ndarray, "n d"], end: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "points n"]:
    """Distance of every point to every segment."""
    along = end - start
    squared = np.maximum((along**2).sum(axis=1), 1e-12)
    result = np.empty((len(points), len(start)))
    for k in range(len(start)):
        t = np.clip((points - start[k]) @ along[k] / squared[k], 0.0, 1.0)
        result[:, k] = np.linalg.norm(points - start[k] - t[:, None] * along[k], axis=1)
    return result


def _forehead_arc(marks: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "corners 2"]:
    """From the left ear over the forehead to the right ear.

    The classical thirds of a face (Vitruvius; Farkas 1994 for the spread) put the hairline as far above the
    brow as the base of the nose lies below it; 0.8 of that stays on skin.
    """
    brow = marks[[19, 24], 1].mean()
    top = brow + 0.8 * (brow - marks[33, 1])
    middle, half = 0.5 * (marks[0] + marks[16]), 0.5 * (marks[16] - marks[0])
    angle = np.linspace(0.0, np.pi, 17)[1:-1, None]
    arc = middle + half * np.cos(angle) + np.array([0.0, top - middle[1]]) * np.sin(angle)
    return np.asarray(arc)


def _band(line: Float[np.ndarray, "points 2"], width: float) -> Float[np.ndarray, "corners 2"]:
    """A strip of the given width about an open line, tapering to a third of it at its ends."""
    taper = np.interp(np.linspace(0, 1, len(line)), [0, 0.25, 0.75, 1], [0.35, 1, 1, 0.35])[:, None]
    half = 0.5 * width * taper * np.array([0.0, 1.0])
    return np.concatenate([line + half, (line - half)[::-1]])
