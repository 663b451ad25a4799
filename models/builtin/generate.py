"""The whole built-in model as plain arrays."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from facefit.models.builtin.albedo import albedo_modes
from facefit.models.builtin.expression import expression_shapes
from facefit.models.builtin.halfmesh import WholeMesh
from facefit.models.builtin.head import build_head
from facefit.models.builtin.identity import identity_modes
from facefit.models.builtin.landmarks import landmark_embedding, regions
from facefit.models.builtin.plane import Array

IDENTITY_MODES, ALBEDO_MODES = 80, 30


@lru_cache(maxsize=1)
def generate() -> dict[str, np.ndarray]:
    """Every array of the model, by name: see `facefit.models.builtin`.

    Millimetres; x to the subject's left, y up, z out of the nose; the origin lies midway between the ears at
    the height of the eyeball centres. Takes about a minute.
    """
    head = build_head()
    mesh, loops = head.mesh, head.layout.loops
    identity = identity_modes(mesh, IDENTITY_MODES)
    albedo = albedo_modes(mesh, loops, ALBEDO_MODES)
    shapes = expression_shapes(mesh, loops["eye"], loops["mouth"])
    embedding = landmark_embedding(mesh, loops["mouth"][0])
    border = np.unique(np.concatenate(loops["mouth"][:6]))
    return {
        "mean": mesh.points.astype(np.float32),
        "triangles": mesh.triangles.astype(np.int32),
        "uv": mesh.uv.astype(np.float32),
        "uv_triangles": mesh.uv_triangles.astype(np.int32),
        "mirror": mesh.mirror.astype(np.int32),
        "identity": both_sides(identity.modes, identity.is_odd, mesh, np.array([-1.0, 1.0, 1.0])),
        "expression": np.stack(list(shapes.values())).astype(np.float32),
        "expression_names": np.array(list(shapes)),
        "albedo": both_sides(albedo.modes, albedo.is_odd, mesh, np.ones(3)),
        "albedo_mean": both_sides(albedo.mean[None], np.array([False]), mesh, np.ones(3))[0],
        "landmark_triangles": embedding[0].astype(np.int32),
        "landmark_barycentric": embedding[1].astype(np.float32),
        **{f"region_{name}": members for name, members in regions(mesh, border).items()},
    }


def both_sides(modes: Array, is_odd: NDArray[np.bool_], mesh: WholeMesh, reflection: Array) -> np.ndarray:
    """Modes over the half mesh continued to the whole: mirrored where even, mirrored and negated where
    odd.
    """
    whole = np.zeros((len(modes), len(mesh.points), 3), dtype=np.float32)
    whole[:, : mesh.half_count] = modes
    right = np.arange(mesh.half_count, len(mesh.points))
    sign = np.where(is_odd, -1.0, 1.0)[:, None, None]
    whole[:, right] = sign * modes[:, mesh.mirror[right]] * reflection
    middle = np.flatnonzero(mesh.mirror == np.arange(len(mesh.points)))
    whole[:, middle] = 0.5 * (whole[:, middle] + sign * whole[:, middle] * reflection)
    return whole
