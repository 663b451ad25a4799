"""Which part of a model's surface is the face, and how it fades towards the border of it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from facefit.mesh import border_edges
from facefit.models.face_model import LinearFaceModel
from facefit.photo_view import smoothstep

# A border that is no wider than this runs round an eye, the mouth or a nostril: the face does not end there.
WIDEST_OPENING_MM = 75.0


def face_vertices(model: LinearFaceModel) -> Bool[Tensor, "vertices"]:
    """True on the face, its eyeballs and mouth; everywhere for a model that names no region "face"."""
    shown = _skin(model)
    for name in ("eyeballs", "teeth", "mouth_inside"):
        if name in model.topology.regions:
            shown[model.topology.regions[name]] = True
    return torch.from_numpy(shown)


@lru_cache(maxsize=8)
def face_weight(model: LinearFaceModel, fade_mm: float) -> Float[Tensor, "vertices"]:
    """1 inside the face, 0 at its outline and beyond, rising smoothly over `fade_mm` of the mean face.

    Distance is straight, not along the surface: over a few centimetres of a forehead or a cheek they agree within
    1 %. Eyeballs, teeth and the inside of the mouth are fully shown. Kept for the model's next pictures.
    """
    shown, skin = face_vertices(model), _skin(model)
    outline = _outline(model, skin)
    weight = shown.float()
    if len(outline):
        points = model.mean.cpu().numpy()
        distance, _ = KDTree(points[outline]).query(points[skin])
        weight[torch.from_numpy(skin)] = smoothstep(torch.from_numpy(distance).float(), 0.0, fade_mm)
    return weight


def _skin(model: LinearFaceModel) -> Bool[np.ndarray, "vertices"]:
    regions = model.topology.regions
    skin = np.full(model.n_vertices, "face" not in regions)
    if "face" in regions:
        skin[regions["face"]] = True
    return skin


def _outline(model: LinearFaceModel, skin: Bool[np.ndarray, "vertices"]) -> Int[np.ndarray, "outline"]:
    """Vertices where the skin of the face ends: at other skin, or where the mesh is cut off."""
    triangles = model.topology.triangles
    edges = border_edges(triangles[skin[triangles].all(1)])
    ends = edges.T
    graph = coo_array((np.ones(len(edges)), (ends[0], ends[1])), shape=(model.n_vertices, model.n_vertices))
    _, label = connected_components(graph, directed=False)
    points, on_border = model.mean.cpu().numpy(), np.unique(edges)
    pieces = [on_border[label[on_border] == piece] for piece in np.unique(label[on_border])]
    wide = [piece for piece in pieces if np.ptp(points[piece], axis=0).max() > WIDEST_OPENING_MM]
    return np.concatenate(wide) if wide else np.zeros(0, dtype=np.int64)
