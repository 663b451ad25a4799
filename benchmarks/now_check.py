"""Mistakes that cost predictions their NoW figure without any error: each is detected and named.

Known from the questions that users of the published evaluation asked: a tightly cropped mesh, landmarks in
another order, an expression left in, a file in another unit, a mirrored mesh.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from facefit.benchmarks.meshfiles import SurfaceMesh
from facefit.benchmarks.metrics import Points, Surface, lengths, procrustes
from facefit.benchmarks.now import MM_PER_UNIT, Measurement, Prediction, Scan

# A scan vertex whose nearest point lies on the mesh's rim, farther than this, has no surface to be compared
# with.
BEYOND_RIM_MM = 1.0
RIM_SHARE = 0.02
# Seven landmarks of one face agree with another's to 2-5 mm (rms); 9 mm is no longer a face in that order.
LANDMARK_RMS_MM = 9.0
# A face 20 % too large or small is outside the population (head sizes vary by 4 %).
SIZE_RANGE = (0.8, 1.25)
# Identity is one per subject: what the mouth moves more than the rest of the face between its images, mm.
EXPRESSION_MM = 1.0

NAMES = {
    "right outer eye": 0, "right inner eye": 1, "left inner eye": 2, "left outer eye": 3, "nose base": 4,
    "right mouth corner": 5, "left mouth corner": 6,
}  # fmt: skip


def traps(prediction: Prediction, scan: Scan, measured: Measurement, unit: str = "mm") -> dict[str, str]:
    """Name of the trap -> what was seen and what to do. Empty when nothing is suspicious."""
    found = {
        "landmark order": landmark_order(prediction.landmarks, scan.landmarks),
        "mirrored": mirrored(prediction, scan.landmarks),
        "unit": wrong_unit(prediction.landmarks, scan.landmarks, unit),
        "cropped mesh": cropped(prediction.mesh, scan, measured),
    }
    if found["landmark order"]:
        # With the landmarks in a wrong order the alignment, and with it every other sign, means nothing.
        return {"landmark order": found["landmark order"]}
    return {name: sentence for name, sentence in found.items() if sentence}


def landmark_rms(predicted: Points, truth: Points) -> float:
    fitted = procrustes(predicted, truth)
    return float(np.sqrt((lengths(fitted.apply(predicted) - truth) ** 2).mean()))


def landmark_order(predicted: Points, truth: Points) -> str | None:
    """Is there an order of the seven points that fits far better than the given one, without a reflection?"""
    given = landmark_rms(predicted, truth)
    if given < LANDMARK_RMS_MM or np.linalg.matrix_rank(predicted - predicted.mean(0), 1e-9) < 2:
        return None
    best = best_order(predicted, truth)
    rms = landmark_rms(predicted[best], truth)
    names = list(NAMES)
    if rms > LANDMARK_RMS_MM:
        return (
            f"the landmarks do not form a face in any order (rms {given:.0f} mm, in the best order "
            f"{rms:.0f} mm): they are to be {', '.join(names)}"
        )
    if best == [3, 2, 1, 0, 4, 6, 5]:
        return None  # left and right exchanged: that is the mirror's business
    moved = [f"{names[k]} is given as number {best[k]}" for k in range(7) if best[k] != k]
    return (
        f"the landmarks are in another order (rms {given:.0f} mm, in NoW's order {rms:.1f} mm): "
        f"{'; '.join(moved)}"
    )


def best_order(predicted: Points, truth: Points) -> list[int]:
    """The order of `predicted` that correlates best with `truth` under a rotation, of all 5040."""
    orders = np.array(list(itertools.permutations(range(len(truth)))))
    x, y = predicted - predicted.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(np.einsum("nc,knd->kcd", y, x[orders]))
    s[:, 2] *= np.sign(np.linalg.det(u @ vt))
    return [int(k) for k in orders[s.sum(1).argmax()]]


def mirrored(prediction: Prediction, truth: Points) -> str | None:
    """Does only a reflection fit the landmarks? The protocol allows it, and so hides the mistake."""
    with_reflection = procrustes(prediction.landmarks, truth, reflection=True)
    if np.linalg.det(with_reflection.rotation) > 0:
        return None
    if inside_out(prediction.mesh):
        return "the mesh is mirrored (its triangles face inwards): an axis has the wrong sign"
    return "the landmarks of the right and the left side are exchanged, or the whole face is mirrored"


def inside_out(mesh: SurfaceMesh) -> bool:
    """Do the triangles face the middle of the mesh, by area?"""
    corners = mesh.vertices[mesh.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return float((normal * (corners.mean(1) - mesh.vertices.mean(0))).sum()) < 0


def wrong_unit(predicted: Points, truth: Points, unit: str) -> str | None:
    size = procrustes(predicted, truth, reflection=True).scale / MM_PER_UNIT[unit]
    if SIZE_RANGE[0] <= size <= SIZE_RANGE[1]:
        return None
    other = {u: size * MM_PER_UNIT[unit] / k for u, k in MM_PER_UNIT.items()}
    fits = [u for u, s in other.items() if SIZE_RANGE[0] <= s <= SIZE_RANGE[1]]
    if fits:
        return f"the file is in {fits[0]}, not in {unit}: metrical figures are wrong without --unit {fits[0]}"
    return (
        f"the face is {1 / size:.3g} times as large as the scan's in {unit}, and no common unit explains it: "
        "metrical figures mean nothing"
    )


def cropped(mesh: SurfaceMesh, scan: Scan, measured: Measurement) -> str | None:
    """What share of the scored scan has nothing in front of it but the rim of the prediction?"""
    placed = SurfaceMesh(measured.transform.apply(mesh.vertices), mesh.triangles)
    rim = rim_vertices(mesh.triangles, len(mesh.vertices))
    if not rim.any():
        return None
    points = scan.scored
    surface = Surface(placed, threads=1)
    closest, _ = surface.closest(points)
    rim_points = placed.vertices[rim]
    # Within one edge length of a rim vertex: the closest point lies on the rim, not beside it.
    from scipy.spatial import cKDTree

    edge = float(np.median(lengths(surface.corners[:, 1] - surface.corners[:, 0])))
    near_rim, _ = cKDTree(rim_points).query(closest)
    beyond = (near_rim < edge) & (measured.distances > BEYOND_RIM_MM)
    share = float(beyond.mean())
    if share < RIM_SHARE:
        return None
    reach = float(np.percentile(lengths(rim_points - scan.landmarks[4]), 10))
    return (
        f"{100 * share:.0f} % of the scored scan lies beyond the rim of the mesh (which comes as near as "
        f"{reach:.0f} mm to the base of the nose): hand in the whole face, at least 105 mm around it; a "
        "crop at 90 mm costs 0.17 mm"
    )


def rim_vertices(triangles: Int[np.ndarray, "t 3"], count: int) -> Bool[np.ndarray, "count"]:
    """Vertices of the longest rim: edges that belong to one triangle only."""
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    unique, times = np.unique(edges, axis=0, return_counts=True)
    rim = np.zeros(count, bool)
    open_edges = unique[times == 1]
    if len(open_edges) == 0:
        return rim
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(open_edges)), (open_edges[:, 0], open_edges[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    # Eyes and mouth are holes too; the outline of the face is the rim with the most vertices.
    rim[label == np.bincount(label[open_edges[:, 0]]).argmax()] = True
    return rim


def expression_left_in(
    predictions: Mapping[str, Prediction], neutral: Sequence[str], expressive: Sequence[str]
) -> str | None:
    """Over one subject's predictions of one topology: does the mouth move with the photograph?

    Shapes are laid over each other by the upper face. Expressive photographs may move the mouth more than
    neutral ones do, by an identity that is estimated differently; a millimetre more is an expression.
    """
    if not neutral or not expressive:
        return None
    if len({len(p.mesh.vertices) for p in predictions.values()}) != 1:
        return None
    reference = predictions[neutral[0]]
    mouth = _near(reference, [5, 6], 30.0)
    upper = _near(reference, [0, 1, 2, 3], 30.0)
    if mouth.sum() < 10 or upper.sum() < 10:
        return None

    def moved(key: str) -> float:
        vertices = predictions[key].mesh.vertices
        fitted = procrustes(vertices[upper], reference.mesh.vertices[upper])
        gap = lengths(fitted.apply(vertices) - reference.mesh.vertices) * _mm_per_unit(reference)
        return float(np.mean(gap[mouth]) - np.mean(gap[upper]))

    # With a single neutral photograph nobody knows how much its identity alone would vary.
    calm = max([moved(k) for k in neutral[1:]], default=2 * EXPRESSION_MM)
    loud = max(moved(k) for k in expressive)
    if loud - calm < EXPRESSION_MM:
        return None
    return (
        f"the mouth moves by {loud:.1f} mm with the photograph (neutral ones: {calm:.1f}): an expression "
        "was left in. NoW wants the neutral face, expression coefficients at zero"
    )


def _mm_per_unit(prediction: Prediction) -> float:
    """From the outer-eye distance, which is 90 mm in everybody: good enough for a threshold."""
    return 90.0 / float(np.linalg.norm(prediction.landmarks[0] - prediction.landmarks[3]))


def _near(prediction: Prediction, landmarks: list[int], radius_mm: float) -> Bool[np.ndarray, "vertices"]:
    radius = radius_mm / _mm_per_unit(prediction)
    gaps: Float[np.ndarray, "vertices landmarks"] = np.linalg.norm(
        prediction.mesh.vertices[:, None] - prediction.landmarks[landmarks], axis=2
    )
    return np.asarray(gaps.min(1) < radius)
