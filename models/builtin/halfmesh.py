"""A growing half mesh: vertices, triangles with their texture corners, and the name of the part each vertex
belongs to.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from facefit.models.builtin.plane import Array

Ints = NDArray[np.int64]


@dataclass
class HalfMesh:
    """Left half with the midline (x = 0); `mirrored` makes the whole head of it."""

    points: Array = field(default_factory=lambda: np.zeros((0, 3)))
    triangles: Ints = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    uv: Array = field(default_factory=lambda: np.zeros((0, 2)))
    uv_triangles: Ints = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    parts: list[str] = field(default_factory=list)

    def add_vertices(self, points: Array, part: str) -> Ints:
        start = len(self.points)
        self.points = np.concatenate([self.points, np.asarray(points, dtype=np.float64).reshape(-1, 3)])
        self.parts += [part] * (len(self.points) - start)
        return np.arange(start, len(self.points))

    def add_triangles(self, triangles: Ints, corners: dict[int, int] | Ints, uv: Array) -> None:
        """Triangles whose vertex v has its texture corner at `uv[corners[v]]` in an island of these
        triangles' own.
        """
        lookup = np.full(len(self.points), -1, dtype=np.int64)
        items = (
            corners
            if isinstance(corners, dict)
            else dict(zip(corners.tolist(), range(len(corners)), strict=True))
        )
        lookup[list(items.keys())] = list(items.values())
        self.uv_triangles = np.concatenate([self.uv_triangles, lookup[triangles] + len(self.uv)])
        self.uv = np.concatenate([self.uv, uv])
        self.triangles = np.concatenate([self.triangles, triangles])

    def tube(
        self,
        loops: list[Ints],
        closed: bool,
        uv_loops: list[Array],
        cap: int | None = None,
        cap_uv: Array | None = None,
    ) -> None:
        """Bands between successive loops of equal length, wound to continue the mesh at the first;
        optionally capped by a vertex.
        """
        first = loops[0]
        steps = len(first) if closed else len(first) - 1
        i = np.arange(steps)
        j = (i + 1) % len(first)
        triangles = []
        for a, b in zip(loops[:-1], loops[1:], strict=True):
            short = np.linalg.norm(self.points[a[i]] - self.points[b[j]], axis=1) <= np.linalg.norm(
                self.points[a[j]] - self.points[b[i]], axis=1
            )
            one = np.where(short[:, None], np.stack([a[i], a[j], b[j]], 1), np.stack([a[i], a[j], b[i]], 1))
            two = np.where(short[:, None], np.stack([a[i], b[j], b[i]], 1), np.stack([a[j], b[j], b[i]], 1))
            triangles += [one, two]
        corners = list(np.concatenate(loops))
        uv = np.concatenate(uv_loops)
        if cap is not None and cap_uv is not None:
            last = loops[-1]
            triangles.append(np.stack([last[i], last[j], np.full(steps, cap)], axis=1))
            corners.append(cap)
            uv = np.concatenate([uv, cap_uv[None]])
        band = np.concatenate(triangles)
        if self._has_directed_edge(int(first[0]), int(first[1])):
            band = band[:, [0, 2, 1]]
        self.add_triangles(band, np.array(corners), uv)

    def _has_directed_edge(self, a: int, b: int) -> bool:
        t = self.triangles
        return any(bool(((t[:, k] == a) & (t[:, (k + 1) % 3] == b)).any()) for k in range(3))


@dataclass(frozen=True)
class WholeMesh:
    points: Array
    triangles: Ints
    uv: Array
    uv_triangles: Ints
    parts: NDArray[np.str_]
    mirror: Ints
    half_count: int
    """Vertices 0 to half_count - 1 are the left half with the midline."""


def mirrored(half: HalfMesh, uv_mirror_islands: Array) -> WholeMesh:
    """Both halves. `uv_mirror_islands` (uv, 2) gives each half texture corner's place on the right side."""
    points = half.points.copy()
    middle = np.abs(points[:, 0]) < 1e-9
    points[middle, 0] = 0.0
    count = len(points)
    twin = np.arange(count)
    twin[~middle] = count + np.arange((~middle).sum())
    right = points[~middle] * np.array([-1.0, 1.0, 1.0])
    mirror = np.concatenate([twin, np.flatnonzero(~middle)])
    flipped = twin[half.triangles][:, [0, 2, 1]]
    shared = np.linalg.norm(half.uv - uv_mirror_islands, axis=1) < 1e-9
    uv_twin = np.arange(len(half.uv))
    uv_twin[~shared] = len(half.uv) + np.arange((~shared).sum())
    return WholeMesh(
        points=np.concatenate([points, right]),
        triangles=np.concatenate([half.triangles, flipped]),
        uv=np.concatenate([half.uv, uv_mirror_islands[~shared]]),
        uv_triangles=np.concatenate([half.uv_triangles, uv_twin[half.uv_triangles][:, [0, 2, 1]]]),
        parts=np.concatenate([np.array(half.parts), np.array(half.parts)[~middle]]),
        mirror=mirror,
        half_count=count,
    )
