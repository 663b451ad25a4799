"""Vertices, texture coordinates and polygons of a Wavefront OBJ file, read fast and with limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facefit.errors import ModelFileError

MAX_BYTES = 64 << 20
MAX_CORNERS = 8


@dataclass(frozen=True)
class Polygons:
    """Polygons of up to 8 corners, padded with -1; indices count from 0."""

    vertex: Int[np.ndarray, "polygons corners"]
    uv: Int[np.ndarray, "polygons corners"]


def read_lines(path: Path) -> list[bytes]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelFileError(f"{path}: {size} bytes; an OBJ of a face model has at most {MAX_BYTES}")
        return path.read_bytes().splitlines()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error


def rows(path: Path, lines: list[bytes], keyword: bytes, width: int) -> Float[np.ndarray, "rows width"]:
    """The numbers of every line that begins with `keyword`, `width` of them per line."""
    start = keyword + b" "
    texts = [line[len(start) :] for line in lines if line.startswith(start)]
    try:
        numbers = np.array(b" ".join(texts).split(), dtype=np.float64)
    except ValueError as error:
        raise ModelFileError(f"{path}: a '{keyword.decode()}' line holds no number ({error})") from error
    if numbers.size != width * len(texts):
        raise ModelFileError(
            f"{path}: its {len(texts)} '{keyword.decode()}' lines hold {numbers.size} numbers, "
            f"expected {width} each"
        )
    if not np.isfinite(numbers).all():
        raise ModelFileError(f"{path}: a '{keyword.decode()}' line holds NaN or an infinite number")
    return numbers.reshape(-1, width)


def polygons(path: Path, lines: list[bytes]) -> Polygons:
    """Every 'f' line, whose corners must read "vertex/uv" or "vertex/uv/normal"."""
    faces = [line.split()[1:] for line in lines if line.startswith(b"f ")]
    corners = [len(face) for face in faces]
    if not faces or min(corners) < 3 or max(corners) > MAX_CORNERS:
        raise ModelFileError(f"{path}: an OBJ of a face model has polygons of 3 to {MAX_CORNERS} corners")
    filled = np.arange(MAX_CORNERS) < np.array(corners)[:, None]
    vertex = np.full(filled.shape, -1, np.int64)
    uv = np.full(filled.shape, -1, np.int64)
    try:
        pairs = np.array([corner.split(b"/")[:2] for face in faces for corner in face], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ModelFileError(f"{path}: an 'f' line has a corner that is not 'vertex/uv' ({error})") from error
    if pairs.ndim != 2 or pairs.min() < 1:
        raise ModelFileError(f"{path}: an 'f' line has a corner that is not 'vertex/uv', counted from 1")
    vertex[filled], uv[filled] = pairs[:, 0] - 1, pairs[:, 1] - 1
    return Polygons(vertex, uv)


def triangulate(
    faces: Polygons, vertices: Float[np.ndarray, "vertices 3"]
) -> tuple[Int[np.ndarray, "triangles 3"], Int[np.ndarray, "triangles 3"]]:
    """Triangles and their texture triangles. Quads split along the shorter diagonal, larger polygons as a
    fan.

    The shorter diagonal follows the surface better, and unlike "always the first" it treats the two halves of
    a symmetric face alike.
    """
    order = np.tile(np.arange(MAX_CORNERS), (len(faces.vertex), 1))
    quad = (faces.vertex[:, 3] >= 0) & (faces.vertex[:, 4] < 0)
    a, b, c, d = (vertices[faces.vertex[:, k]] for k in range(4))
    shorter_bd = np.linalg.norm(b - d, axis=1) < np.linalg.norm(a - c, axis=1) - 1e-9
    order[quad & shorter_bd, :4] = [1, 2, 3, 0]
    vertex = np.take_along_axis(faces.vertex, order, axis=1)
    uv = np.take_along_axis(faces.uv, order, axis=1)
    fans = [(vertex[:, [0, k, k + 1]], uv[:, [0, k, k + 1]]) for k in range(1, MAX_CORNERS - 1)]
    real = [fan[0][:, 2] >= 0 for fan in fans]
    return (
        np.concatenate([fan[0][keep] for fan, keep in zip(fans, real, strict=True)]),
        np.concatenate([fan[1][keep] for fan, keep in zip(fans, real, strict=True)]),
    )
