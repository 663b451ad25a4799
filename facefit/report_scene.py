"""The fitted head as the report's viewer reads it: small integers in one block of bytes, and a directory of
them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from facefit.expressions import is_activation, part_of
from facefit.face_weight import face_vertices
from facefit.fitting.result import FitResult
from facefit.glb import CORRECTION, expression_targets
from facefit.mesh import split_seams, vertex_normals
from facefit.rendering.shade import linear_to_srgb
from facefit.result_trust import vertex_doubt_mm
from facefit.texture import Texture

# As glb.TARGET_BYTES, counted in its 12 bytes a vertex; 8 are used here, and a third more in base64.
TARGET_BYTES = 4_000_000


class _Block:
    """Little-endian arrays one after another, each aligned to four bytes, addressed as [type, offset,
    length].
    """

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, array: np.ndarray) -> list[Any]:
        self.data += b"\0" * (-len(self.data) % 4)
        entry = [array.dtype.name, len(self.data), int(array.size)]
        self.data += array.astype(array.dtype.newbyteorder("<")).tobytes()
        return entry


def viewer_scene(result: FitResult, texture: Texture) -> tuple[dict[str, Any], bytes]:
    """The directory (plain JSON) and the bytes.

    Positions are the neutral head in mm, 16 bits over its bounding box (a step of about 0.005 mm);
    displacements are 16 bits over each target's largest component, and only of the vertices that move.
    """
    model, scene = result.model, result.scene
    with torch.no_grad():
        neutral = scene.neutral_shape(model).numpy()
        deformation = scene.shape(model).numpy() - neutral
        srgb = linear_to_srgb(scene.surface_albedo(model).clamp(0, 1)).numpy()
        rotation = scene.pose.camera_from_model.numpy() * [[1], [-1], [-1]]  # OpenGL's camera axes
        light = scene.lighting.coefficients.numpy()
        face = face_vertices(model).numpy()
        normals = vertex_normals(scene.shape(model), model.triangles)[face]
        irradiance = scene.lighting.irradiance(normals).numpy()
    block = _Block()
    split = split_seams(model.topology.triangles, texture.uv_triangles)
    index = np.dtype(np.uint16 if len(split.vertex) <= 65535 else np.uint32)
    low, high = neutral.min(0), neutral.max(0)
    step = float((high - low).max()) / 65535
    quantised = np.rint((neutral - low) / step).astype(np.uint16)
    targets = []
    for target in expression_targets(result, deformation, TARGET_BYTES):
        rows = np.flatnonzero(target.delta.any(1))
        moved = target.delta[rows]
        scale = float(np.abs(moved).max()) / 32767 if len(rows) else 1.0
        targets.append(
            {
                "name": target.name,
                "part": None if target.name == CORRECTION else part_of(target.name),
                "range": [0, 1] if is_activation(target.name) else [-3, 3],
                "fitted": round(target.weight, 4),
                "rows": block.add(rows.astype(index)),
                "values": block.add(np.rint(moved / scale).astype(np.int16).ravel()),
                "scale": scale,
            }
        )
    directory = {
        "vertices": {"low": low.tolist(), "step": step, "data": block.add(quantised.ravel())},
        "vertex": block.add(split.vertex.astype(index)),
        "uv": block.add(np.rint(texture.uv[split.uv].clip(0, 1) * 65535).astype(np.uint16).ravel()),
        "triangles": block.add(split.triangles.astype(index).ravel()),
        "color": block.add((srgb.clip(0, 1) * 255 + 0.5).astype(np.uint8).ravel()),
        "doubt": _doubt(result, block),
        "targets": targets,
        "rotation": rotation.round(6).tolist(),
        "light": light.round(6).tolist(),
        # What the photograph's light does to the face: on average, and at most (per mille of outliers aside).
        "exposure": float(irradiance.mean()),
        "ceiling": float(np.quantile(irradiance, 0.999)),
        "focus": _focus(neutral[face]),
    }
    return directory, bytes(block.data)


def _doubt(result: FitResult, block: _Block) -> dict[str, Any] | None:
    """How far each vertex may be off along its normal, 0 to 255 over the face's range; None where it is unknown."""
    doubt = vertex_doubt_mm(result)
    if doubt is None:
        return None
    low, top = np.quantile(doubt[face_vertices(result.model).numpy()], [0.01, 0.98])
    share = ((doubt - low) / max(top - low, 1e-3)).clip(0, 1)
    return {
        "low_mm": float(low),
        "top_mm": float(top),
        "data": block.add((share * 255 + 0.5).astype(np.uint8)),
    }


def _focus(face: Float[np.ndarray, "points 3"]) -> dict[str, Any]:
    """What the viewer shows when it opens: the face, with some of the head around it."""
    low, high = face.min(0), face.max(0)
    middle = (low + high) / 2 - [0, 0, 0.3 * (high[2] - low[2])]
    return {"middle": middle.tolist(), "radius": 0.78 * float((high - low).max())}
