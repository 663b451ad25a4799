"""What a model can say at best: its mean face and the best fit of its identity modes to scans, NoW protocol.

The floor uses the scan itself, so it is a lower bound for any reconstruction with this model, not a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from facefit.benchmarks.alignment import cross_matrix
from facefit.benchmarks.estimate import as_prediction, mean_face, model_facts, model_label, model_named
from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths, procrustes
from facefit.benchmarks.now import IBUG_OF_NOW, Dataset, Prediction, Scan, crop_ball, measure
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import median_interval, pooled
from facefit.errors import FacefitError

# A scan point is believed to this many millimetres against a prior of one standard deviation per coefficient:
# ten thousand points of 0.1 mm leave almost nothing of the prior, and the fit still has one answer.
POINT_SIGMA_MM = 0.1
# Sliding along the surface costs a tenth of leaving it: enough to keep flat regions from wandering.
TANGENT_WEIGHT = 0.1
MOST_POINTS = 4000
IDENTITIES = 200
# A vertex of the fitted model this near to the scan is on its surface; others (back of the eyeball) have no
# truth.
ON_SCAN_MM = 1.0
# A surface hit from a vertex within this distance hides it from outside.
FREE_MM = 60.0


@dataclass(frozen=True)
class Projection:
    """A model's surface as near to a scan as it goes: `shape` in the model frame, `placed` on the scan."""

    coefficients: Float[np.ndarray, "identity"]
    shape: Float[np.ndarray, "vertices 3"]
    similarity: Similarity

    @property
    def placed(self) -> Float[np.ndarray, "vertices 3"]:
        return self.similarity.apply(self.shape)


def project(model: Any, scan: Scan, *, steps: int = 30, point_sigma_mm: float = POINT_SIGMA_MM) -> Projection:
    """Mean + modes + similarity, fitted to the cropped scan by Gauss-Newton on point-to-surface distance.

    Every step renews the closest points and solves for all coefficients, rotation, translation and scale at
    once; the residual of a point is its distance along the surface's normal and, at a tenth of the weight,
    across it.
    """
    mean = model.mean.double().cpu().numpy()
    # Single precision for the many sums of products: rounding of 1e-6 mm against residuals of 1e-2.
    basis = model.identity_basis.float().cpu().numpy()
    triangles = np.asarray(model.topology.triangles, np.int64)
    points = scan.scored
    points = points[:: max(1, len(points) // MOST_POINTS)]
    z = np.zeros(len(basis))
    similarity = procrustes(mean_landmarks(model), scan.landmarks)
    previous = np.inf
    for _ in range(steps):
        shape = mean + np.tensordot(z, basis, 1)
        local = similarity.inverse.apply(points)
        at, weights, normals = attach(shape, triangles, local)
        rest = np.einsum("nk,nkc->nc", weights, shape[at])
        error = float(np.mean(lengths(local - rest) ** 2)) * similarity.scale**2
        if previous - error < 1e-3 * previous:
            break
        previous = error
        modes = sum(weights[:, k, None].astype(np.float32) * basis[:, at[:, k]] for k in range(3))
        delta, motion = step(modes, rest, normals, local, z, point_sigma_mm / similarity.scale)
        z = z + delta
        similarity = motion.then(similarity)
    return Projection(z, mean + np.tensordot(z, basis, 1), similarity)


def mean_landmarks(model: Any) -> Float[np.ndarray, "7 3"]:
    points = model.landmark_points(model.mean).double().cpu().numpy()
    at = {int(n): i for i, n in enumerate(model.topology.landmarks.numbers)}
    return np.asarray(points[[at[n] for n in IBUG_OF_NOW]])


def attach(
    shape: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"], points: Points
) -> tuple[Int[np.ndarray, "points 3"], Float[np.ndarray, "points 3"], Points]:
    """Closest surface points: their triangles' vertices, barycentric weights, and unit normals."""
    surface = Surface(SurfaceMesh(shape, triangles), threads=1)
    if len(surface.corners) != len(triangles):
        corners = shape[triangles]
        area = lengths(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
        triangles = triangles[area > 1e-12 * float(np.abs(shape - shape.mean(0)).max()) ** 2]
    closest, triangle = surface.closest(points)
    a, b, c = (surface.corners[triangle, k] for k in range(3))
    normal = np.cross(b - a, c - a)
    double_area = lengths(normal)
    unit = normal / double_area[:, None]
    at_a = (np.cross(c - b, closest - b) * unit).sum(1) / double_area
    at_b = (np.cross(a - c, closest - c) * unit).sum(1) / double_area
    return triangles[triangle], np.column_stack([at_a, at_b, 1 - at_a - at_b]), unit


def step(
    modes: Float[np.ndarray, "modes points 3"],
    rest: Points,
    normals: Points,
    target: Points,
    z: Float[np.ndarray, "modes"],
    sigma: float,
) -> tuple[Float[np.ndarray, "modes"], Similarity]:
    """One Gauss-Newton step for coefficients and a small similarity after them, in the model frame."""
    n, m = len(rest), len(z)
    jacobian = np.empty((n, 3, m + 7), np.float32)
    jacobian[:, :, :m] = np.moveaxis(modes, 0, 2)
    for k in range(3):
        jacobian[:, :, m + k] = rest @ cross_matrix(np.eye(3)[k]).T
        jacobian[:, :, m + 3 + k] = np.eye(3)[k]
    jacobian[:, :, m + 6] = rest
    gap = target - rest
    along = np.einsum("nc,ncu->nu", normals.astype(np.float32), jacobian)
    off = np.einsum("nc,nc->n", normals, gap)
    # |gap|^2 weighted w across and 1 along the normal is w |gap|^2 + (1 - w) (normal . gap)^2.
    w = TANGENT_WEIGHT**2
    flat = jacobian.reshape(3 * n, m + 7)
    normal_matrix = w * flat.T @ flat + (1 - w) * along.T @ along
    gradient = w * flat.T @ gap.reshape(-1) + (1 - w) * along.T @ off
    normal_matrix, gradient = normal_matrix.astype(np.float64) / sigma**2, gradient / sigma**2
    normal_matrix[np.arange(m), np.arange(m)] += 1.0
    gradient[:m] -= z
    normal_matrix[np.arange(m + 7), np.arange(m + 7)] *= 1 + 1e-9
    x = np.linalg.solve(normal_matrix, gradient)
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(x[m : m + 3]).as_matrix()
    return x[:m], Similarity(float(np.exp(x[m + 6])), rotation, x[m + 3 : m + 6])


@dataclass(frozen=True)
class SpaceWork:
    """Project one subject's scan; the last part of an item's key is the subject.

    `data` is a folder in NoW's layout, or the name of a model whose random identities serve as scans; then
    the subject is the seed.
    """

    data: Path | str
    model: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        model, subject = model_named(self.model), key.rsplit("/", 1)[-1]
        scan = (
            Dataset(self.data).scan(subject)
            if isinstance(self.data, Path)
            else identity(self.data, int(subject))
        )
        face = mean_face(self.model).prediction
        best = project(model, scan)
        marks = best.similarity.apply(mean_landmarks(model))
        floor = measure(Prediction(SurfaceMesh(best.placed, face.mesh.triangles), marks), scan, threads=1)
        mean = measure(face, scan, threads=1)
        metrical = measure(face, scan, "metrical", threads=1)
        row = {
            "mean face median": float(np.median(mean.distances)),
            "floor median": float(np.median(floor.distances)),
            "largest coefficient": float(np.abs(best.coefficients).max(initial=0.0)),
            "coefficients": best.coefficients,
        }
        centre, radius = crop_ball(scan.landmarks)
        near = Surface(scan.mesh, threads=1).distance(best.placed) < ON_SCAN_MM
        arrays = {
            "non-metrical": mean.distances, "metrical": metrical.distances, "floor": floor.distances,
            "placed": best.placed, "scored": near & (lengths(best.placed - centre) <= radius),
        }  # fmt: skip
        return row, {n: a if a.dtype == bool else a.astype(np.float32) for n, a in arrays.items()}


def identity(model_name: str, seed: int) -> Scan:
    """A random identity of a model as a scan: the vertices that nothing of the head hides from outside."""
    import torch

    model = model_named(model_name)
    coefficients = torch.from_numpy(np.random.default_rng(seed).normal(size=model.n_identity)).float()
    face = as_prediction(model, model.vertices(coefficients, torch.zeros(0)))
    outer = outside(face.mesh)
    number = np.cumsum(outer) - 1
    triangles = number[face.mesh.triangles[outer[face.mesh.triangles].all(1)]]
    return Scan(SurfaceMesh(face.mesh.vertices[outer], triangles), face.landmarks)


def outside(mesh: SurfaceMesh) -> Bool[np.ndarray, "vertices"]:
    """Vertices from which a ray along the normal leaves the head: not the back of the eye, not the throat."""
    import torch

    from facefit.mesh import vertex_normals

    vertices, triangles = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.triangles)
    normals = vertex_normals(vertices, triangles).numpy()
    rays = np.column_stack([mesh.vertices + 0.05 * normals, normals]).astype(np.float32)
    return Surface(mesh).first_hit(rays) > FREE_MM


COLUMNS = {
    "prediction": "prediction", "images": "scans", "median": "median", "interval": "95 % of median",
    "mean": "mean", "std": "std",
}  # fmt: skip


def evaluate_model_space(
    data: Path | str, out: Path, *, model: str, limit: int | None = None, jobs: int = 1
) -> Report:
    """Mean face and floor over the subjects of a folder in NoW's layout, or identities of a model."""
    subjects: Sequence[str] = [f"{seed:05d}" for seed in range(limit or IDENTITIES)]
    if isinstance(data, Path):
        subjects = list(dict.fromkeys(image.subject for image in Dataset(data).images()))[:limit]
    name = data.name if isinstance(data, Path) else f"identities of {model_label(data)}"
    settings = {"benchmark": "model-space", "data": name, **model_facts(model)}
    run = Run(out, settings, ("models", "benchmarks"))
    rows = run_items(run, subjects, SpaceWork(data, model), jobs=jobs, label=f"space of {model_label(model)}")
    good = {row["item"]: run.arrays(row["item"]) for row in rows if row["error"] is None}
    if not good:
        raise FacefitError(f"no scan could be fitted; the first one says: {rows[0]['error']}")
    names = {
        "non-metrical": "mean face",
        "metrical": "mean face, metrical",
        "floor": "floor of the identity space",
    }
    table = [
        {
            "prediction": f"{model_label(model)} {title}",
            **pooled([arrays[name] for arrays in good.values()]),
            "interval": median_interval({s: [arrays[name]] for s, arrays in good.items()}),
        }
        for name, title in names.items()
    ]
    report = Report(
        f"Model space on {name}, NoW protocol, mm, vertices pooled.",
        settings,
        rows,
        table,
        COLUMNS,
        {title: [arrays[name] for arrays in good.values()] for name, title in names.items()},
    )
    report.write(out)
    return report
