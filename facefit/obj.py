"""Wavefront OBJ and MTL text: positions, texture coordinates, normals, one textured material."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def encode_obj(
    vertices: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    uv: Float[np.ndarray, "uvs 2"] | None = None,
    uv_triangles: Int[np.ndarray, "triangles 3"] | None = None,
    normals: Float[np.ndarray, "vertices 3"] | None = None,
    material_file: str | None = None,
    comments: tuple[str, ...] = (),
) -> str:
    """The text of an OBJ file. Indices start at 1; `uv` has its origin bottom-left, as OBJ wants it.

    Vertices keep their order, so that the file stays in correspondence with the model. Colours per vertex are
    an unofficial extension that breaks strict readers and are left to PLY.
    """
    parts = ["".join(f"# {_one_line(comment)}\n" for comment in comments)]
    if material_file is not None:
        parts.append(f"mtllib {material_file}\n")
    parts.append(_rows("v %.4f %.4f %.4f\n", vertices))
    if uv is not None:
        parts.append(_rows("vt %.6f %.6f\n", uv))
    if normals is not None:
        parts.append(_rows("vn %.4f %.4f %.4f\n", normals))
    if material_file is not None:
        parts.append("usemtl skin\n")
    corner = [triangles] if uv_triangles is None else [triangles, uv_triangles]
    slash = {(False, False): "%d", (True, False): "%d/%d", (False, True): "%d//%d", (True, True): "%d/%d/%d"}
    if normals is not None:
        corner.append(triangles)
    form = slash[(uv_triangles is not None, normals is not None)]
    interleaved = np.stack(corner, 2).reshape(len(triangles), -1) + 1
    parts.append(_rows(f"f {form} {form} {form}\n", interleaved))
    return "".join(parts)


def encode_mtl(texture_file: str) -> str:
    """A matt material `skin` whose diffuse colour is the texture."""
    return (
        # Without ambient, which some readers would add to the texture.
        f"newmtl skin\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {texture_file}\n"
    )


def _rows(row: str, table: np.ndarray) -> str:
    # One format of the whole table is five times faster than one per row.
    return (row * len(table)) % tuple(table.ravel().tolist())


def _one_line(text: str) -> str:
    """A comment must not start a new statement, whatever a file name holds."""
    return " ".join(text.split())
