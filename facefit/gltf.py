"""A minimal glTF 2.0 binary writer: one textured mesh with named morph targets, seen by one camera.

Knows arrays and the file format, no face. Lengths are metres, y up; texture coordinates arrive with their
origin bottom-left, as in OBJ, and are turned to glTF's top-left here. Source: Khronos Group, "glTF 2.0
Specification".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

FLOAT, USHORT, UINT = 5126, 5123, 5125
VERTICES, INDICES = 34962, 34963
_COMPONENT = {np.dtype(np.float32): FLOAT, np.dtype(np.uint16): USHORT, np.dtype(np.uint32): UINT}
_SHAPE = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}

# A displacement below a micrometre is numerical dust of the model's file; dropping it keeps targets sparse.
NEGLIGIBLE_M = 1e-6


@dataclass(frozen=True)
class MorphTarget:
    """A named displacement of every vertex at weight 1, in its mesh's unit, and the weight the file opens with."""

    name: str
    delta: Float[np.ndarray, "vertices 3"]
    weight: float


@dataclass(frozen=True)
class GltfMesh:
    """One vertex per (position, texture coordinate); counter-clockwise triangles; an encoded PNG or JPEG
    texture. `normal_map` is one in tangent space, green up, for detail finer than the vertices.
    """

    vertices_m: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    uv: Float[np.ndarray, "vertices 2"]
    triangles: Int[np.ndarray, "triangles 3"]
    texture: bytes
    targets: Sequence[MorphTarget] = ()
    normal_map: bytes | None = None


@dataclass(frozen=True)
class GltfCamera:
    """A pinhole at `model_from_camera` (glTF camera axes: x right, y up, looking along -z; metres)."""

    model_from_camera: Float[np.ndarray, "4 4"]
    vertical_fov_rad: float
    aspect: float
    extras: Mapping[str, Any]


class _Buffer:
    """The binary chunk and the accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(entry if target is None else {**entry, "target": target})
        self.data += data
        return len(self.views) - 1

    def _accessor(self, array: np.ndarray, bounds: bool, **where: Any) -> int:
        channels = 1 if array.ndim == 1 else array.shape[1]
        entry = {
            "componentType": _COMPONENT[array.dtype],
            "count": len(array),
            "type": _SHAPE[channels],
            **where,
        }
        if bounds:
            entry["min"], entry["max"] = array.min(0).tolist(), array.max(0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def dense(self, array: np.ndarray, target: int = VERTICES, bounds: bool = False) -> int:
        return self._accessor(array, bounds, bufferView=self.view(array.tobytes(), target))

    def sparse(self, array: Float[np.ndarray, "vertices 3"]) -> int:
        """Only the rows that are not zero, where that is smaller than all of them."""
        rows = np.flatnonzero(np.abs(array).max(1) > NEGLIGIBLE_M)
        index_type = np.uint16 if len(array) <= 65535 else np.uint32
        if len(rows) * (12 + np.dtype(index_type).itemsize) >= array.nbytes:
            return self.dense(array, bounds=True)
        if not len(rows):
            rows = np.zeros(1, np.int64)  # a sparse accessor must name at least one row
        kept = np.zeros_like(array)
        kept[rows] = array[rows]
        return self._accessor(
            kept,
            bounds=True,
            sparse={
                "count": len(rows),
                "indices": {
                    "bufferView": self.view(rows.astype(index_type).tobytes()),
                    "componentType": _COMPONENT[np.dtype(index_type)],
                },
                "values": {"bufferView": self.view(kept[rows].tobytes())},
            },
        )


def encode_glb(
    mesh: GltfMesh, camera: GltfCamera, name: str, generator: str, extras: Mapping[str, Any]
) -> bytes:
    """The bytes of a .glb file. `extras` is stored with the scene, plain JSON."""
    buffer = _Buffer()
    index_type = np.uint16 if len(mesh.vertices_m) <= 65535 else np.uint32
    uv = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], 1).astype(np.float32)
    primitive: dict[str, Any] = {
        "attributes": {
            "POSITION": buffer.dense(mesh.vertices_m.astype(np.float32), bounds=True),
            "NORMAL": buffer.dense(_unit(mesh.normals)),
            "TEXCOORD_0": buffer.dense(uv),
        },
        "indices": buffer.dense(mesh.triangles.astype(index_type).ravel(), INDICES),
        "material": 0,
        "mode": 4,
    }
    shape: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if mesh.targets:
        primitive["targets"] = [{"POSITION": buffer.sparse(t.delta.astype(np.float32))} for t in mesh.targets]
        shape["weights"] = [float(t.weight) for t in mesh.targets]
        # Not in the specification, but where Blender, three.js and Unity read the names from.
        shape["extras"] = {"targetNames": [t.name for t in mesh.targets]}
    images = [_image(buffer, mesh.texture, f"{name} albedo")]
    bumps: dict[str, Any] = {}
    if mesh.normal_map is not None:
        images.append(_image(buffer, mesh.normal_map, f"{name} normals"))
        bumps["normalTexture"] = {"index": 1}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": generator},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0, 1], "extras": dict(extras)}],
        "nodes": [
            {"name": name, "mesh": 0},
            {"name": "photograph", "camera": 0, **_placement(camera.model_from_camera)},
        ],
        "meshes": [shape],
        "cameras": [
            {
                "name": "photograph",
                "type": "perspective",
                "perspective": {
                    "yfov": camera.vertical_fov_rad,
                    "aspectRatio": camera.aspect,
                    "znear": 0.01,
                    "zfar": 100.0,
                },
                "extras": dict(camera.extras),
            }
        ],
        "materials": [
            {
                "name": "skin",
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.6,
                },
                **bumps,
            }
        ],
        "textures": [{"source": number, "sampler": 0} for number in range(len(images))],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": images,
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return _container(
        json.dumps(document, allow_nan=False, separators=(",", ":")).encode(), bytes(buffer.data)
    )


def _image(buffer: _Buffer, encoded: bytes, name: str) -> dict[str, Any]:
    mime = "image/png" if encoded.startswith(b"\x89PNG") else "image/jpeg"
    return {"bufferView": buffer.view(encoded), "mimeType": mime, "name": name}


def _container(text: bytes, binary: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total)
    return b"".join(
        [
            header,
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(binary), b"BIN\0"),
            binary,
        ]
    )


def _unit(normals: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
    """Unit in float32, as the specification asks; a vertex of no triangle points forward."""
    normals = np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 0.5, normals, [0.0, 0.0, 1.0])
    unit: Float[np.ndarray, "vertices 3"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _placement(matrix: Float[np.ndarray, "4 4"]) -> dict[str, list[float]]:
    """A rigid 4 x 4 matrix as translation and quaternion (x, y, z, w)."""
    return {"translation": matrix[:3, 3].tolist(), "rotation": quaternion(matrix[:3, :3]).tolist()}


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """The unit quaternion (x, y, z, w) of a rotation matrix, with w >= 0.

    From the largest of the four squared components, so that no small number divides (Shepperd 1978).
    """
    r = rotation
    diagonal = np.diag(r)
    squares = 1 + np.array(
        [2 * diagonal[i] - diagonal.sum() for i in range(3)] + [diagonal.sum()]
    )  # four times the square of x, y, z, w
    largest = int(squares.argmax())
    if largest == 3:
        q = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]])
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q = np.empty(4)
        q[i], q[j], q[k], q[3] = squares[i], r[j, i] + r[i, j], r[k, i] + r[i, k], r[k, j] - r[j, k]
    unit: Float[np.ndarray, "4"] = q / math.sqrt(float(q @ q))
    return -unit if unit[3] < 0 else unit
