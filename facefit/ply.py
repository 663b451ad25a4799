"""Binary little-endian PLY with 8-bit vertex colours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def encode_ply(
    vertices: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    srgb: Float[np.ndarray, "vertices 3"],
    comments: tuple[str, ...] = (),
) -> bytes:
    """The bytes of a PLY file; `srgb` in 0-1, values outside are clamped."""
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {' '.join(comment.split())}" for comment in comments]
    lines += [f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    points = np.empty(len(vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points["xyz"] = vertices
    points["rgb"] = (np.nan_to_num(srgb).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    return "\n".join(lines).encode("ascii", "replace") + points.tobytes() + faces.tobytes()
