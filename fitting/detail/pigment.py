"""What is not shape: differences of colour between a photograph and its scene, smooth or fine, as texture offsets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import diags_array
from scipy.sparse.linalg import splu

from facefit.fitting.detail.offsets import conjugate_gradients
from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.refinement import Refinement
from facefit.fitting.detail.seen import SeenSurface
from facefit.fitting.detail.shading import log_color, robust
from facefit.fitting.detail.skin import smoothstep
from facefit.models.lighting import Lighting

# Over this length along the surface differences of colour are taken for pigment and light, not for shape.
SMOOTH_MM = 8.0
# Texture offsets are smooth over about a pixel of an ordinary photograph,
FINE_MM = 0.7
# and drawn to zero by this part of what the photograph says where it is seen well.
FORGETTING = 0.02
# Log differences beyond this are no pigment: hair, shadow, highlights, other things.
LARGEST = 1.5


def log_difference(
    surface: SeenSurface, lighting: Lighting, height: Float[np.ndarray, "vertices"] | None = None
) -> Float[np.ndarray, "triangles 3"]:
    """Log colour of the photograph minus that of the scene, its surface displaced by `height` mm."""
    gradient = None if height is None else surface.operators.gradient(height)
    difference = surface.log_color - log_color(surface, lighting, gradient)
    return np.asarray(np.clip(difference, -LARGEST, LARGEST))


def smooth_pigment(
    surface: SeenSurface,
    refinement: Refinement,
    base: SurfaceOperators,
    difference: Float[np.ndarray, "triangles 3"],
    rounds: int = 3,
) -> Float[np.ndarray, "coarse 3"]:
    """The part of a log difference that varies over centimetres, by equation 11's smoothness on the `base` mesh.

    A few rounds of robust weights keep brows, folds and strands of hair from pulling it.
    """
    operators = surface.operators
    used = np.flatnonzero(base.vertex_area > 0)
    prior = (base.stiffness * SMOOTH_MM**2 + base.mass(1e-4))[used][:, used]
    trust = surface.seen * surface.skin * operators.area
    weight, found = trust, np.zeros((len(base.vertex_area), 3))
    for _ in range(rounds):
        # Weights lumped at the vertices, which lie far closer than SMOOTH_MM.
        weighed = np.column_stack([weight, weight[:, None] * difference])
        gathered = (refinement.weights.T @ (operators.thirds.T @ weighed))[used]
        matrix = (prior + diags_array(gathered[:, 0])).tocsc()
        factor = splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        found[used] = factor.solve(gathered[:, 1:])
        left = (difference - operators.at_triangles(refinement.carry(found))).mean(1)
        weight = trust * robust(left, 0.2)
    return found


def fine_pigment(
    operators: SurfaceOperators,
    seen: Float[np.ndarray, "triangles"],
    difference: Float[np.ndarray, "triangles 3"],
) -> Float[np.ndarray, "vertices 3"]:
    """A log difference as a field on the refined vertices, fading towards where the surface is not seen."""
    weight = seen * operators.area
    gathered = np.asarray(operators.thirds.T @ np.column_stack([weight, weight[:, None] * difference]))
    free = np.flatnonzero(gathered[:, 0] > 0)
    known = diags_array(gathered[:, 0] + FORGETTING * operators.vertex_area)
    matrix = (operators.stiffness * FINE_MM**2 + known)[free][:, free].tocsr()
    found = np.zeros((operators.n_vertices, 3))
    for channel in range(3):
        found[free, channel] = conjugate_gradients([], matrix, gathered[free, 1 + channel])
    return found


def fading(
    refinement: Refinement,
    operators: SurfaceOperators,
    seen: Float[np.ndarray, "triangles"],
    moving: Float[np.ndarray, "coarse"],
) -> Float[np.ndarray, "fine"]:
    """0-1: 1 where all around is seen, down to 0 over an edge of the coarse mesh where a mask begins.

    `moving` is 0 at the coarse vertices that must stay as they are.
    """
    around = refinement.gather(operators.at_vertices(seen), operators.vertex_area)
    share: Float[np.ndarray, "fine"] = refinement.carry(smoothstep(around, 0.5, 1.0) * moving)
    return share
