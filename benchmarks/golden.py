"""A scan and a prediction made from formulas, with the published NoW evaluation's own figures on them.

No licensed data is needed to know that an installation measures what the published evaluation measures.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Similarity
from facefit.benchmarks.now import Prediction, Scan

Array = Float[np.ndarray, "..."]

# Median, mean, population standard deviation and largest, mm: the published evaluation's output on the pair.
PUBLISHED = {
    "non-metrical": (0.357527, 0.379782, 0.242800, 2.111887),
    "metrical": (0.438370, 0.510739, 0.390041, 3.137150),
}
NOW_LANDMARKS = np.array([[-46, 32], [-18, 31], [18, 31], [46, 32], [0, -13], [-23, -36], [23, -36]], float)


def relief(x: Array, y: Array, width: float, height: float, depth: float, nose: float) -> Array:
    """Half an ellipsoid with a nose and two eye sockets."""
    return np.asarray(
        depth * np.sqrt(np.maximum(0, 1 - 0.5 * (x / width) ** 2 - 0.5 * (y / height) ** 2))
        + nose * np.exp(-(x**2 + (y + 5) ** 2) / (2 * 15**2))
        - 0.25 * nose * np.exp(-((np.abs(x) - 30) ** 2 + (y - 30) ** 2) / (2 * 12**2))
    )


def relief_mesh(n: int, width: float, height: float, *surface: float) -> SurfaceMesh:
    u = np.linspace(-1, 1, n)
    x, y = np.meshgrid(u * width, u * height, indexing="xy")
    points = np.column_stack([x.ravel(), y.ravel(), relief(x, y, *surface).ravel()])
    i = np.arange(n * n).reshape(n, n)
    a, b, c, e = (part.ravel() for part in (i[:-1, :-1], i[:-1, 1:], i[1:, :-1], i[1:, 1:]))
    return SurfaceMesh(points, np.concatenate([np.column_stack([a, b, c]), np.column_stack([b, e, c])]))


def relief_landmarks(at: Array, *surface: float) -> Array:
    return np.column_stack([at, relief(at[:, 0], at[:, 1], *surface)])


def golden_scan() -> Scan:
    shape = (100, 120, 70, 22)
    return Scan(relief_mesh(121, 100, 120, *shape), relief_landmarks(NOW_LANDMARKS, *shape))


def golden_prediction() -> Prediction:
    """In metres, in a pose as of a camera."""
    shape = (104, 118, 66, 26)
    mesh = relief_mesh(81, 110, 130, *shape)
    landmarks = relief_landmarks(NOW_LANDMARKS * [1.02, 0.98], *shape)
    pose = Rotation.from_rotvec([0.10, -0.20, 0.05]).as_matrix()
    move = Similarity(1e-3, pose, np.array([10, 20, 600]) * 1e-3)
    return Prediction(SurfaceMesh(move.apply(mesh.vertices), mesh.triangles), move.apply(landmarks))
