"""Distances and errors: point to surface, landmarks, rotations; and the similarity of corresponding points.

Everything here is protocol-free arithmetic in double precision; which points, which surface and which average
is the business of the protocol that calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.errors import FacefitError

Points = Float[np.ndarray, "points 3"]


def open3d() -> Any:
    """open3d, imported when a distance is first asked for; where it is missing, a sentence."""
    try:
        import open3d as module
    except (ImportError, OSError) as error:
        raise FacefitError(
            f"benchmarks measure distances with open3d, which does not import here ({error}): "
            "pip install 'facefit[bench]'; on a bare Linux also apt-get install libusb-1.0-0 libgl1 libgomp1"
        ) from error
    return module


def closest_on_triangles(points: Points, a: Points, b: Points, c: Points) -> Points:
    """The point of triangle i (corners a[i], b[i], c[i]) closest to points[i]: face, edge or corner.

    Source: Ericson, "Real-Time Collision Detection", 2005, section 5.1.5 (Voronoi regions of the triangle).
    """
    ab, ac, ap = b - a, c - a, points - a
    d1, d2 = _dot(ab, ap), _dot(ac, ap)
    bp, cp = points - b, points - c
    d3, d4, d5, d6 = _dot(ab, bp), _dot(ac, bp), _dot(ab, cp), _dot(ac, cp)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = 1.0 / (va + vb + vc)
        v, w = vb * inside, vc * inside
        on_bc = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        on_ac, on_ab = d2 / (d2 - d6), d1 / (d1 - d3)
    zero, one = np.zeros_like(d1), np.ones_like(d1)
    # From the face to the corners: a later, more special region overrules an earlier one.
    regions = (
        ((va <= 0) & (d4 - d3 >= 0) & (d5 - d6 >= 0), 1 - on_bc, on_bc),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), zero, on_ac),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), on_ab, zero),
        ((d6 >= 0) & (d5 <= d6), zero, one),
        ((d3 >= 0) & (d4 <= d3), one, zero),
        ((d1 <= 0) & (d2 <= 0), zero, zero),
    )
    for where, at_b, at_c in regions:
        v, w = np.where(where, at_b, v), np.where(where, at_c, w)
    return np.asarray(a + v[:, None] * ab + w[:, None] * ac)


def _dot(a: Points, b: Points) -> Float[np.ndarray, "points"]:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def lengths(vectors: Points) -> Float[np.ndarray, "points"]:
    return np.asarray(np.linalg.norm(vectors, axis=1))


class Surface:
    """A mesh that answers which of its points is closest.

    open3d (Embree) chooses the triangle in single precision; the point on it is then computed in double, so
    distances are exact to the rounding of the input. Triangles without area are left out.
    """

    def __init__(self, mesh: SurfaceMesh, threads: int = 0) -> None:
        corners = mesh.vertices[mesh.triangles]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        scale = float(np.abs(mesh.vertices - mesh.vertices.mean(0)).max()) if len(mesh.vertices) else 0.0
        self.corners = corners[area > 1e-12 * scale**2]
        if len(self.corners) == 0:
            raise FacefitError("the mesh has no triangle with an area, so it has no surface to measure to")
        self.centre = mesh.vertices.mean(0)
        self._threads = threads
        core = open3d().core
        self._scene = open3d().t.geometry.RaycastingScene(nthreads=threads)
        self._tensor = core.Tensor.from_numpy
        soup = np.ascontiguousarray((self.corners - self.centre).reshape(-1, 3), np.float32)
        index = np.arange(len(soup), dtype=np.uint32).reshape(-1, 3)
        self._scene.add_triangles(self._tensor(soup), self._tensor(index))

    def closest(self, points: Points) -> tuple[Points, Int[np.ndarray, "points"]]:
        """The closest surface points and their triangles (numbered without the degenerate ones)."""
        query = self._tensor(np.ascontiguousarray(points - self.centre, np.float32))
        found = self._scene.compute_closest_points(query, nthreads=self._threads)
        triangle = found["primitive_ids"].numpy().astype(np.int64)
        a, b, c = (self.corners[triangle, k] for k in range(3))
        return closest_on_triangles(points, a, b, c), triangle

    def first_hit(self, rays: Float[np.ndarray, "rays 6"]) -> Float[np.ndarray, "rays"]:
        """How far each ray (origin, unit direction) goes until it meets the surface; infinite if never."""
        moved = np.column_stack([rays[:, :3] - self.centre, rays[:, 3:]])
        sent = self._tensor(np.ascontiguousarray(moved, np.float32))
        return np.asarray(self._scene.cast_rays(sent, nthreads=self._threads)["t_hit"].numpy())

    def distance(self, points: Points) -> Float[np.ndarray, "points"]:
        return lengths(points - self.closest(points)[0])


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation; a protocol may allow `rotation` to reflect."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def apply(self, points: Points) -> Points:
        return np.asarray(self.scale * points @ self.rotation.T + self.translation)

    def then(self, other: Similarity) -> Similarity:
        return Similarity(
            other.scale * self.scale,
            other.rotation @ self.rotation,
            other.scale * other.rotation @ self.translation + other.translation,
        )

    @property
    def inverse(self) -> Similarity:
        back = self.rotation.T
        return Similarity(1 / self.scale, back, -(back @ self.translation) / self.scale)


def procrustes(source: Points, target: Points, *, scale: bool = True, reflection: bool = False) -> Similarity:
    """The similarity that brings `source` onto the corresponding `target` with the least squared distance.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI
    1991, equations 39-42; with `reflection` the sign correction is left out (Schoenemann 1966).
    """
    from_mean, to_mean = source.mean(0), target.mean(0)
    x, y = source - from_mean, target - to_mean
    u, singular, vt = np.linalg.svd(y.T @ x)
    signs = np.ones(3)
    if not reflection and np.linalg.det(u @ vt) < 0:
        signs[2] = -1.0
    rotation = (u * signs) @ vt
    spread = float((x**2).sum())
    if spread == 0.0:
        raise FacefitError("all points to be aligned are one and the same point")
    factor = float((singular * signs).sum()) / spread if scale else 1.0
    return Similarity(factor, rotation, to_mean - factor * rotation @ from_mean)


def correspondence_error(predicted: Points, truth: Points, inside: np.ndarray) -> Float[np.ndarray, "inside"]:
    """Distances of corresponding vertices after the similarity that makes their squares least, mm."""
    fitted = procrustes(predicted[inside], truth[inside])
    return lengths(fitted.apply(predicted[inside]) - truth[inside])


def angle_between_deg(a: Float[np.ndarray, "3 3"], b: Float[np.ndarray, "3 3"]) -> float:
    """Angle of the rotation that takes one orientation to the other."""
    difference = a @ b.T
    sine = np.linalg.norm(difference - difference.T) / math.sqrt(8)
    return math.degrees(math.atan2(float(sine), (float(np.trace(difference)) - 1) / 2))


def landmark_error(
    found: Float[np.ndarray, "n 2"], truth: Float[np.ndarray, "n 2"], normaliser: float
) -> float:
    """Normalised mean error: mean Euclidean distance of corresponding points over a length, in per cent."""
    if normaliser <= 0:
        raise FacefitError("landmark errors are divided by a length, which is zero here")
    return float(np.linalg.norm(found - truth, axis=1).mean() / normaliser * 100)


def outer_eye_distance(landmarks68: Float[np.ndarray, "68 2"]) -> float:
    return float(np.linalg.norm(landmarks68[36] - landmarks68[45]))
