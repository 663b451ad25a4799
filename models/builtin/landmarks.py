"""The 68 iBUG landmarks and the named regions of the built-in head."""

import numpy as np
from numpy.typing import NDArray

from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.parts import EYE_CENTRE
from facefit.models.builtin.plane import Array

# Where dlib's predictor puts the left half's points on the mean head seen from the front, millimetres; the
# nearest point of the surface is taken. Numbers 0-7, 17-21, 31-32, 36-41 and so on are the mirror images.
LEFT_TARGETS: dict[int, tuple[float, float, float]] = {
    8: (0.0, -114.0, 92.5), 9: (17.0, -111.5, 89.5), 10: (32.5, -104.0, 76.0), 11: (47.5, -91.5, 60.0),
    12: (58.5, -76.0, 47.0), 13: (66.0, -58.5, 37.0), 14: (70.8, -40.0, 29.0), 15: (73.2, -20.0, 24.0),
    16: (74.8, 0.5, 22.0),
    22: (10.8, 20.3, 98.2), 23: (22.5, 25.0, 96.0), 24: (35.0, 26.2, 90.5), 25: (46.7, 24.0, 82.2),
    26: (57.0, 16.5, 70.0),
    27: (0.0, 1.5, 98.4), 28: (0.0, -9.5, 106.0), 29: (0.0, -20.5, 114.5), 30: (0.0, -32.0, 121.5),
    33: (0.0, -47.0, 107.4), 34: (6.6, -45.8, 104.6), 35: (13.2, -44.2, 101.2),
    42: (18.8, -3.2, 83.3), 43: (27.2, 3.6, 86.5), 44: (36.8, 3.4, 85.4), 45: (44.5, -2.1, 77.2),
    46: (36.5, -5.9, 84.3),
    47: (27.5, -5.8, 85.6),
    51: (0.0, -61.8, 109.5), 52: (6.6, -61.0, 108.5), 53: (16.0, -64.1, 103.4), 54: (25.4, -70.6, 93.0),
    55: (16.6, -77.0, 99.8), 56: (7.4, -79.8, 104.9), 57: (0.0, -80.3, 105.8),
    62: (0.0, -69.0, 104.2), 63: (6.8, -69.0, 102.9), 64: (21.6, -70.4, 94.5), 65: (6.8, -69.8, 103.0),
    66: (0.0, -70.3, 104.6),
}  # fmt: skip
MIRROR_OF = {
    **{i: 16 - i for i in range(8)}, **{17 + i: 26 - i for i in range(5)}, 31: 35, 32: 34,
    36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52,
    58: 56, 59: 55, 60: 64, 61: 63, 67: 65,
}  # fmt: skip
INNER_LIP_UPPER, INNER_LIP_LOWER = {62, 63}, {65, 66}


def landmark_embedding(mesh: WholeMesh, contact: Ints) -> tuple[Ints, Array]:
    """Triangle index and barycentric weights of each of the 68 points.

    `contact` are the half's lip contact vertices, upper midline to corner to lower midline: the inner-lip
    points are taken on the side of the mouth they belong to.
    """
    skin = mesh.parts == "skin"
    on_skin = skin[mesh.triangles].all(axis=1)
    half = (mesh.triangles < mesh.half_count).all(axis=1)
    upper_edge, lower_edge = contact[: len(contact) // 2], contact[len(contact) // 2 + 1 :]
    triangles, weights = np.zeros(68, dtype=np.int64), np.zeros((68, 3))
    for number, target in LEFT_TARGETS.items():
        allowed = on_skin & half
        if number in INNER_LIP_UPPER:
            allowed &= ~np.isin(mesh.triangles, lower_edge).any(axis=1)
        if number in INNER_LIP_LOWER:
            allowed &= ~np.isin(mesh.triangles, upper_edge).any(axis=1)
        candidates = np.flatnonzero(allowed)
        triangles[number], weights[number] = _nearest(mesh, candidates, np.array(target))
    by_vertices = {tuple(sorted(t)): i for i, t in enumerate(mesh.triangles.tolist())}
    for number, twin in MIRROR_OF.items():
        corners = mesh.mirror[mesh.triangles[triangles[twin]]]
        triangles[number] = by_vertices[tuple(sorted(corners.tolist()))]
        placed = dict(zip(corners.tolist(), weights[twin].tolist(), strict=True))
        weights[number] = [placed[v] for v in mesh.triangles[triangles[number]].tolist()]
    return triangles, weights


def _nearest(mesh: WholeMesh, candidates: Ints, target: Array) -> tuple[int, Array]:
    corner = mesh.points[mesh.triangles[candidates]]
    nearest = np.argsort(np.linalg.norm(corner.mean(axis=1) - target, axis=1))[:60]
    best, answer = np.inf, (0, np.zeros(3))
    for i in nearest:
        weight = _closest_weights(corner[i], target)
        distance = float(np.linalg.norm(weight @ corner[i] - target))
        if distance < best:
            best, answer = distance, (int(candidates[i]), weight)
    return answer


def _closest_weights(corner: Array, target: Array) -> Array:
    """Barycentric weights of the point of a triangle nearest to the target."""
    a, b, c = corner
    edges = np.stack([b - a, c - a], axis=1)
    s, t = np.linalg.lstsq(edges, target - a, rcond=None)[0]
    if s >= 0 and t >= 0 and s + t <= 1:
        return np.array([1 - s - t, s, t])
    best, answer = np.inf, np.array([1.0, 0.0, 0.0])
    for i, j in ((0, 1), (1, 2), (2, 0)):
        side = corner[j] - corner[i]
        along = float(np.clip((target - corner[i]) @ side / (side @ side), 0.0, 1.0))
        distance = float(np.linalg.norm(corner[i] + along * side - target))
        if distance < best:
            best = distance
            answer = np.zeros(3)
            answer[i], answer[j] = 1 - along, along
    return answer


def regions(mesh: WholeMesh, half_lips: Ints) -> dict[str, Ints]:
    """Named vertex lists, from where the vertices lie on the mean head; `half_lips` are the left half's."""
    x, y, z = np.abs(mesh.points[:, 0]), mesh.points[:, 1], mesh.points[:, 2]
    skin = mesh.parts == "skin"
    hairline = 80.0 - 0.0035 * x**2 - 0.10 * np.maximum(x - 45.0, 0.0) ** 1.5
    throat = y < -113.0 + 0.30 * np.maximum(x - 20.0, 0.0)
    under_jaw = y < jaw_line_height(x) - 4.0
    front = z > 16.0
    lips = np.zeros(len(mesh.points), dtype=bool)
    lips[half_lips] = lips[mesh.mirror[half_lips]] = True
    neck = skin & (under_jaw | throat) & (y < -60.0)
    scalp = skin & ~neck & ((y > hairline) | (z < 5.0) | ((z < 16.0) & (y > 8.0)))
    face = skin & front & ~neck & ~scalp
    eye = np.linalg.norm(np.stack([x, y, z], axis=1) - np.array([31.6, 1.0, 82.0]), axis=1)
    brow = skin & brow_mask(x, y, z)
    nose = face & (y < 8.0) & (y > -50.0) & (x < 8.0 + np.clip(-(y + 5.0) * 0.37, 0.0, 12.0)) & (z > 88.0)
    eyeball = mesh.parts == "eyeball"
    names: dict[str, NDArray[np.bool_]] = {
        "face": face,
        "eyeballs": eyeball,
        "iris": eyeball & (eye_angle(mesh) < 0.505),
        "sclera": eyeball & (eye_angle(mesh) >= 0.505),
        "lips": lips,
        "brows": brow,
        "nose": nose,
        "forehead": face & (y > 28.0),
        "cheeks": face & (y < -14.0) & (y > -85.0) & (x > 24.0),
        "chin": face & (y < -84.0) & (x < 26.0),
        "ears": mesh.parts == "ear",
        "neck": neck,
        "scalp": scalp,
        "mouth_inside": np.isin(mesh.parts, ["mouth", "tongue", "upper_teeth", "lower_teeth"]),
        "teeth": np.isin(mesh.parts, ["upper_teeth", "lower_teeth"]),
        "eye_region": skin & (eye < 24.0) & (x > 8.0),
        "jaw_contour": skin & (y < 30.0) & (y > -122.0) & (z > 8.0) & (x > outline_inner(y)),
        "rigid": face & (((x < 12.0) & (y > -20.0)) | (y > 38.0) | ((x > 50.0) & (y > -5.0))),
    }
    return {name: np.flatnonzero(chosen).astype(np.int32) for name, chosen in names.items()}


def jaw_line_height(x: Array) -> Array:
    """Height of the lower border of the jaw, from chin to angle, over the distance from the midline."""
    return np.interp(
        x, [0, 15, 30, 40, 48, 54, 60, 66, 72], [-116.5, -115.5, -112, -106, -99, -91, -82, -74, -66]
    )


def outline_inner(y: Array) -> Array:
    """How far inside the frontal outline a silhouette vertex may lie when the head turns."""
    return np.interp(y, [-122, -112, -100, -80, -40, 0, 30], [0, 0, 12, 26, 36, 42, 46])


def brow_mask(x: Array, y: Array, z: Array) -> NDArray[np.bool_]:
    centre = np.interp(x, [8, 14, 24, 35, 46, 57], [19.5, 20.5, 22.5, 23.8, 22.0, 15.5])
    half = np.interp(x, [8, 14, 35, 46, 57], [4.0, 4.6, 4.0, 3.0, 1.2])
    return (np.abs(y - centre) < half) & (x > 9.0) & (x < 57.0) & (z > 60.0)


def eye_angle(mesh: WholeMesh) -> Array:
    """Angle of eyeball vertices from the straight gaze, radians."""
    centre = np.where(mesh.points[:, :1] >= 0, 1.0, -1.0) * np.array([[EYE_CENTRE[0], 0.0, 0.0]])
    ray = mesh.points - centre - EYE_CENTRE * np.array([0.0, 1.0, 1.0])
    return np.asarray(
        np.arccos(np.clip(ray[:, 2] / np.maximum(np.linalg.norm(ray, axis=1), 1e-9), -1.0, 1.0))
    )
