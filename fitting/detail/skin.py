"""Where on a face shading tells shape: skin, away from hair, lips, eyes and the border of the face region."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from facefit.fitting.surface_samples import face_triangles
from facefit.models.face_model import LinearFaceModel

# Parts whose brightness is pigment, hair or gloss, by any of the names that models give them.
NOT_SKIN = ("brows", "left_brow", "right_brow", "lips", "left_eyelids", "right_eyelids")
# Nearer to such a part than the first (the fit may be off by that much) nothing is believed, beyond the second all.
NEAR_MM = (2.0, 7.0)
# The same from the border of the face, where detail must have faded out.
BORDER_MM = (0.0, 6.0)


@lru_cache(maxsize=4)
def bare_skin(model: LinearFaceModel) -> Float[np.ndarray, "vertices"]:
    """Per vertex 1 on bare skin, falling smoothly to 0 at what is not, and beyond the face. Kept for the next fits."""
    topology, mean = model.topology, model.mean.numpy()
    regions = [topology.regions[name] for name in NOT_SKIN if name in topology.regions]
    weight = np.zeros(model.n_vertices)
    weight[topology.region("face")] = 1.0
    for members, (near, far) in (
        (np.concatenate(regions) if regions else np.empty(0, np.int64), NEAR_MM),
        (border(topology.triangles[face_triangles(topology, model.n_vertices)]), BORDER_MM),
    ):
        if len(members):
            distance = np.asarray(cKDTree(mean[members]).query(mean)[0])
            weight *= smoothstep(distance, near, far)
    return weight


def border(triangles: Int[np.ndarray, "triangles 3"]) -> Int[np.ndarray, "n"]:
    """Vertices on edges of one triangle only. The rims of eyes, mouth and nostrils are among them."""
    sides = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    edges, times = np.unique(sides, axis=0, return_counts=True)
    return np.unique(edges[times == 1])


def smoothstep(x: Float[np.ndarray, "*shape"], low: float, high: float) -> Float[np.ndarray, "*shape"]:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    step: Float[np.ndarray, "*shape"] = t * t * (3 - 2 * t)
    return step
