"""The Surrey Face Model in the binary files of eos (cereal archives, versions 1-4), millimetres.

A cereal binary archive has no magic number, type names or checksum, only values one after the other, so every
size is checked against the bytes that are left and bytes that follow the model are refused.

    u32 version; PCA shape, PCA colour: three matrices (i32 rows, i32 columns, float32 by columns: mean,
    orthonormal basis, variances), u64 n, n x 3 i32 triangles; from version 2 optional expressions (u8 absent,
    else i32 kind: 0 PCA, 1 blendshapes); from 3 optional landmarks; u64 n, n x 2 float64 texture coordinates,
    origin top-left; in 4 u64 n, n x 3 i32 texture triangles.

Source: P. Huber et al., "A Multiresolution 3D Morphable Face Model and Fitting Framework", VISAPP 2016; the
order of the members per version is that of eos's MorphableModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models.assemble import Parts, assemble, linearised_albedo, modes
from facefit.models.byte_reader import ByteReader
from facefit.models.cache import sha256_of
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource
from facefit.models.landmark_map import NO_LANDMARKS, landmarks_from_table, packaged, read_eos_list

MAX_BYTES = 1 << 30
VERSIONS = (1, 2, 3, 4)
# Published blendshapes are strong emotions; a photograph shows a part of one.
ACTIVATION_PER_SIGMA = 0.5
LANDMARK_FILE = "ibug_to_sfm.txt"


@dataclass(frozen=True)
class Pca:
    mean: Float[np.ndarray, "coordinates"]
    basis: Float[np.ndarray, "coordinates modes"]
    variance: Float[np.ndarray, "modes"]
    triangles: Int[np.ndarray, "triangles 3"]

    def scaled(self, path: Path) -> Float[np.ndarray, "modes vertices 3"]:
        norms = np.linalg.norm(self.basis, axis=0)
        if len(norms) and not np.allclose(norms, 1.0, atol=0.02):
            raise ModelFileError(
                f"{path}: its basis has columns of length {norms.min():.3g} to {norms.max():.3g}, "
                "an eos model has 1"
            )
        return modes(self.basis, np.sqrt(self.variance))


@dataclass(frozen=True)
class Blendshapes:
    names: tuple[str, ...]
    deltas: Float[np.ndarray, "modes coordinates"]


def looks_like(path: Path, head: bytes) -> bool:
    """A version, then a mean of 3 n rows and one column that fits into the file."""
    if len(head) < 12:
        return False
    version, rows, columns = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (0, 4, 8))
    fits = rows > 0 and rows % 3 == 0 and 12 + 4 * rows <= path.stat().st_size
    return version in VERSIONS and columns == 1 and fits


def load(path: Path) -> LinearFaceModel:
    """The model with the blendshapes and the landmark list that lie beside it, where they do."""
    reader = ByteReader(path, MAX_BYTES)
    version = reader.unsigned(4)
    if version not in VERSIONS:
        raise ModelFileError(
            f"{path}: archive version {version}, eos has written {VERSIONS[0]} to {VERSIONS[-1]}"
        )
    shape, colour = _pca(reader), _pca(reader)
    expression = _optional_expression(reader) if version >= 2 else None
    named = _optional_landmarks(reader) if version >= 3 else {}
    uv = reader.array("<f8", (reader.count(16, "texture coordinates"), 2), "texture coordinates")
    uv_triangles = _triangles(reader) if version >= 4 else shape.triangles
    reader.finish()
    vertices = _vertex_count(path, shape)
    if expression is None and (beside := _blendshape_file(path)) is not None:
        expression = read_blendshapes(beside)
    deltas, names, unit = _expressions(path, expression, vertices)
    albedo_mean, albedo = _albedo(path, colour, vertices)
    return assemble(
        path,
        ModelSource(
            "surrey",
            "University of Surrey, free for non-commercial use",
            "non-commercial",
            "Huber et al., A Multiresolution 3D Morphable Face Model and Fitting Framework, VISAPP 2016",
            sha256_of(path),
        ),
        Parts(
            mean=_mean(shape, expression),
            triangles=shape.triangles.astype(np.int64),
            identity=shape.scaled(path),
            expression=deltas,
            expression_names=names,
            expression_unit=unit,
            albedo_mean=albedo_mean,
            albedo=albedo,
            landmarks=_landmarks(path, shape.triangles, vertices, named),
            **_texture(path, uv, uv_triangles, len(shape.triangles)),
        ),
    )


def read_blendshapes(path: Path) -> Blendshapes:
    """eos's file of named blendshapes: u64 n, then per shape u64 length, name, matrix."""
    reader = ByteReader(path, MAX_BYTES)
    shapes = _blendshapes(reader)
    reader.finish()
    return shapes


def _pca(reader: ByteReader) -> Pca:
    mean, basis, variance = (
        _matrix(reader, "a mean"),
        _matrix(reader, "a basis"),
        _matrix(reader, "variances"),
    )
    if basis.size and (basis.shape != (mean.size, variance.size) or not (variance >= 0).all()):
        raise ModelFileError(
            f"{reader.path}: a mean of {mean.size}, a basis of {basis.shape} and "
            f"{variance.size} variances do not fit"
        )
    basis = basis.reshape(mean.size, variance.size)
    return Pca(mean.reshape(-1), basis, variance.reshape(-1), _triangles(reader))


def _matrix(reader: ByteReader, what: str) -> Float[np.ndarray, "rows columns"]:
    rows, columns = reader.signed(4), reader.signed(4)
    return reader.array("<f4", (columns, rows), what).T


def _triangles(reader: ByteReader) -> Int[np.ndarray, "triangles 3"]:
    return reader.array("<i4", (reader.count(12, "triangles"), 3), "triangles")


def _optional_expression(reader: ByteReader) -> Pca | Blendshapes | None:
    if reader.unsigned(1):
        return None
    kind = reader.signed(4)
    if kind not in (0, 1):
        raise ModelFileError(
            f"{reader.path}: expressions of unknown kind {kind}, expected 0 (PCA) or 1 (blendshapes)"
        )
    return _pca(reader) if kind == 0 else _blendshapes(reader)


def _blendshapes(reader: ByteReader) -> Blendshapes:
    names, deltas = [], []
    for _ in range(reader.count(16, "blendshapes")):
        names.append(_text(reader))
        deltas.append(_matrix(reader, f"blendshape {names[-1]!r}").reshape(-1))
    if len({delta.size for delta in deltas}) > 1:
        raise ModelFileError(f"{reader.path}: its blendshapes differ in size")
    return Blendshapes(tuple(names), np.stack(deltas) if deltas else np.zeros((0, 0), np.float32))


def _optional_landmarks(reader: ByteReader) -> dict[str, int]:
    if reader.unsigned(1):
        return {}
    return {_text(reader): reader.signed(4) for _ in range(reader.count(12, "landmarks"))}


def _text(reader: ByteReader) -> str:
    try:
        return reader.bytes(reader.count(1, "letters"), "a name").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{reader.path}: a name in it is no text") from error


def _vertex_count(path: Path, shape: Pca) -> int:
    if not shape.mean.size or shape.mean.size % 3 or not shape.basis.size:
        raise ModelFileError(f"{path}: its shape has {shape.mean.size} coordinates, expected 3 per vertex")
    return shape.mean.size // 3


def _mean(shape: Pca, expression: Pca | Blendshapes | None) -> Float[np.ndarray, "vertices 3"]:
    mean = shape.mean.astype(np.float64)
    # A PCA of expressions has a mean of its own, which belongs to the neutral shape; blendshapes have none.
    if isinstance(expression, Pca) and expression.mean.size == mean.size:
        mean = mean + expression.mean
    return mean.reshape(-1, 3)


def _expressions(
    path: Path, expression: Pca | Blendshapes | None, vertices: int
) -> tuple[Float[np.ndarray, "modes vertices 3"], tuple[str, ...], Float[np.ndarray, "modes"]]:
    if expression is None:
        return np.zeros((0, vertices, 3)), (), np.zeros(0)
    size = expression.mean.size if isinstance(expression, Pca) else expression.deltas.shape[1]
    if size != 3 * vertices:
        raise ModelFileError(f"{path}: its expressions have {size} coordinates, its shape {3 * vertices}")
    if isinstance(expression, Pca):
        scaled = expression.scaled(path)
        return scaled, tuple(f"expression{k:03d}" for k in range(len(scaled))), np.ones(len(scaled))
    unit = np.full(len(expression.names), ACTIVATION_PER_SIGMA)
    return ACTIVATION_PER_SIGMA * expression.deltas.reshape(-1, vertices, 3), expression.names, unit


def _albedo(
    path: Path, colour: Pca, vertices: int
) -> tuple[Float[np.ndarray, "vertices 3"] | None, Float[np.ndarray, "modes vertices 3"] | None]:
    """Linear RGB; None for the published shape-only model. eos stores sRGB in 0-1, older files in 0-255."""
    if not colour.mean.size:
        return None, None
    if colour.mean.size != 3 * vertices:
        raise ModelFileError(f"{path}: its colour has {colour.mean.size} numbers, its shape {3 * vertices}")
    full = 255.0 if colour.mean.max() > 2.0 else 1.0
    return linearised_albedo(colour.mean.reshape(-1, 3) / full, colour.scaled(path) / full)


def _texture(
    path: Path, uv: Float[np.ndarray, "uvs 2"], uv_triangles: Int[np.ndarray, "triangles 3"], triangles: int
) -> dict[str, Any]:
    if not len(uv):
        return {}
    if len(uv_triangles) != triangles or uv_triangles.min() < 0 or uv_triangles.max() >= len(uv):
        raise ModelFileError(f"{path}: its texture triangles do not fit its {len(uv)} texture coordinates")
    return {"uv": uv * [1.0, -1.0] + [0.0, 1.0], "uv_triangles": uv_triangles.astype(np.int64)}


def _blendshape_file(path: Path) -> Path | None:
    beside = path.with_name("expression_blendshapes_3448.bin")
    return beside if beside.is_file() and beside != path else None


def _landmarks(
    path: Path, triangles: Int[np.ndarray, "triangles 3"], vertices: int, named: dict[str, int]
) -> Landmarks:
    """From the model itself (version 3: iBUG numbers from 1 as names), else eos's list beside it over our
    own.
    """
    table: dict[str, Any] = {
        str(int(name) - 1): vertex for name, vertex in named.items() if name.isascii() and name.isdigit()
    }
    if not table:
        facts, beside = packaged("surrey.toml"), path.with_name(LANDMARK_FILE)
        table = facts["landmarks"] if vertices == facts["vertices"] else {}
        table = table | (read_eos_list(beside) if beside.is_file() else {})
    if not table or triangles.size == 0 or triangles.min() < 0 or triangles.max() >= vertices:
        return NO_LANDMARKS
    return landmarks_from_table(table, triangles.astype(np.int64), vertices, str(path))
