"""Landmarks a published list leaves out, placed by warping an average face onto the ones it has.

Lists of morphable models often lack the jaw line, the brows or the corners of the inner lip. The 68 points of
an average face are moved by the thin-plate spline that brings the known ones home, and the missing ones are
dropped onto the nearest point of the mesh. For exact work, `facefit models annotate` asks the detector
instead.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from facefit.models.face_model import Landmarks
from facefit.models.landmark_map import packaged

# A similarity alone needs three points not on a line; with fewer than this many a warp means nothing.
ENOUGH = 6


@cache
def template() -> Float[np.ndarray, "68 3"]:
    return np.array(packaged("landmark_template.toml")["points"], float)


def completed(
    landmarks: Landmarks, vertices: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> Landmarks:
    """All 68 where at least six spread ones are known; otherwise the landmarks unchanged."""
    missing = np.setdiff1d(np.arange(68), landmarks.numbers)
    if not len(missing) or len(landmarks.numbers) < ENOUGH:
        return landmarks
    from scipy.interpolate import RBFInterpolator  # half a second to import, and only needed here

    known = (vertices[triangles[landmarks.triangles]] * landmarks.barycentric[:, :, None]).sum(axis=1)
    aligned = similarity(template()[landmarks.numbers], known, template())
    # Some smoothing, because two annotators never agree on the millimetre and a spline through both would
    # fold.
    try:
        warp = RBFInterpolator(aligned[landmarks.numbers], known, kernel="thin_plate_spline", smoothing=1.0)
        guess = warp(aligned[missing])
    except np.linalg.LinAlgError:
        guess = aligned[missing]
    hosts, weights = on_surface(guess, vertices, triangles)
    numbers = np.concatenate([landmarks.numbers, missing])
    order = np.argsort(numbers)
    return Landmarks(
        numbers[order],
        np.concatenate([landmarks.triangles, hosts])[order],
        np.concatenate([landmarks.barycentric, weights.astype(np.float32)])[order],
    )


def similarity(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 3"]:
    """`points` moved by the rotation, scale and shift that best take `source` to `target` (Umeyama 1991)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    u, s, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean))
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    scale = (s * flip).sum() / max(((source - source_mean) ** 2).sum(), 1e-12)
    return np.asarray(scale * (points - source_mean) @ (u * flip @ vt).T + target_mean)


def on_surface(
    points: Float[np.ndarray, "n 3"],
    vertices: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
    """The triangle and barycentric weights nearest to each point, among triangles with a near centroid."""
    corners = vertices[triangles]
    tree = cKDTree(corners.mean(axis=1))
    candidates = tree.query(points, k=min(24, len(triangles)))[1].reshape(len(points), -1)
    hosts = np.empty(len(points), np.int64)
    weights = np.empty((len(points), 3))
    for i, (point, near) in enumerate(zip(points, candidates, strict=True)):
        barycentric = closest_barycentric(point, corners[near])
        away = np.linalg.norm((corners[near] * barycentric[:, :, None]).sum(axis=1) - point, axis=1)
        best = int(away.argmin())
        hosts[i], weights[i] = near[best], barycentric[best]
    return hosts, weights


def closest_barycentric(
    point: Float[np.ndarray, "3"], corners: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "n 3"]:
    """Barycentric weights of the closest point of each triangle: inside, or on the nearest of its three
    edges.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-12)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    options = [np.stack([1.0 - v - w, v, w], axis=1)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        along = corners[:, j] - corners[:, i]
        t = ((point - corners[:, i]) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12)
        edge = np.zeros((len(corners), 3))
        edge[:, j] = np.clip(t, 0.0, 1.0)
        edge[:, i] = 1.0 - edge[:, j]
        options.append(edge)
    table = np.stack(options)
    away = np.linalg.norm((table[..., None] * corners).sum(axis=2) - point, axis=2)
    away[0, (options[0] < 0).any(axis=1)] = np.inf
    return np.asarray(table[away.argmin(axis=0), np.arange(len(corners))])
