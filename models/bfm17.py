"""The Basel Face Models of 2017 and 2019, and any other statismo or scalismo file (`.h5`), millimetres.

    /shape /color /expression, each: model/{mean, pcaBasis, pcaVariance}, representer/{points, cells}
    /metadata/landmarks/json: named points on the mean face beside the file, model2019_textureMapping.json:
    {"triangles", "textureMapping": {"pointData", "triangles"}}

`pcaVariance` is a variance. Since statismo 0.9 the basis is orthonormal; version 0.8 stored it multiplied by
the standard deviations, which is told by the version number and by the columns' lengths. The mean of
/expression is a small offset that belongs to the neutral face. Colour is sRGB in 0-1.

Source: T. Gerig et al., "Morphable Face Models - An Open Framework", FG 2018; the layout is statismo's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models import hdf5
from facefit.models.assemble import Parts, assemble, linearised_albedo, modes
from facefit.models.cache import sha256_of
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource
from facefit.models.landmark_map import NO_LANDMARKS, landmarks_from_table, packaged
from facefit.models.landmark_transfer import on_surface

TEXTURE = "model2019_textureMapping.json"
MAX_TEXTURE_BYTES = 1 << 26


def looks_like(path: Path) -> bool:
    with hdf5.opened(path) as file:
        return hdf5.has(path, file, "shape/model/mean")


def load(path: Path) -> LinearFaceModel:
    return assemble(path, source(path), read_parts(path))


def source(path: Path) -> ModelSource:
    return ModelSource(
        "bfm",
        "University of Basel, academic use only, by registration",
        "academic",
        "Gerig et al., Morphable Face Models - An Open Framework, FG 2018",
        sha256_of(path),
    )


def read_parts(path: Path) -> Parts:
    """Everything but the finishing touches, so that another albedo can take the place of the file's own."""
    with hdf5.opened(path) as file:
        mean, identity = read_pca(path, file, "shape")
        triangles = _triangles(path, file, len(mean))
        expression = None
        if hdf5.has(path, file, "expression/model/mean"):
            offset, expression = read_pca(path, file, "expression")
            if offset.shape != mean.shape:
                raise ModelFileError(f"{path}: expressions of {len(offset)} vertices, a shape of {len(mean)}")
            mean = mean + offset
        albedo_mean = albedo = None
        if hdf5.has(path, file, "color/model/mean"):
            colour, colour_modes = read_pca(path, file, "color")
            if colour.shape != mean.shape:
                raise ModelFileError(f"{path}: a colour of {len(colour)} vertices, a shape of {len(mean)}")
            albedo_mean, albedo = linearised_albedo(colour, colour_modes)
        landmarks = _landmarks(path, file, mean, triangles)
    uv = _texture(path, triangles)
    return Parts(
        mean=mean,
        triangles=triangles,
        identity=identity,
        expression=expression,
        albedo_mean=albedo_mean,
        albedo=albedo,
        landmarks=landmarks,
        uv=None if uv is None else uv[0],
        uv_triangles=None if uv is None else uv[1],
    )


def read_pca(
    path: Path, file: h5py.File, group: str
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """Mean and modes of one part, the modes times their standard deviations."""
    mean = hdf5.numbers(path, file, f"{group}/model/mean", (None,)).astype(np.float64)
    if not len(mean) or len(mean) % 3:
        raise ModelFileError(
            f"{path}: the mean of /{group} has {len(mean)} numbers, expected three per vertex"
        )
    basis = hdf5.numbers(path, file, f"{group}/model/pcaBasis", (len(mean), None)).astype(np.float32)
    variance = hdf5.numbers(path, file, f"{group}/model/pcaVariance", (basis.shape[1],)).astype(np.float64)
    if not (np.isfinite(variance) & (variance >= 0)).all():
        raise ModelFileError(f"{path}: a variance of /{group} is negative or no number")
    scaled = _is_scaled(path, file, group, basis, np.sqrt(variance))
    return mean.reshape(-1, 3), modes(basis, None if scaled else np.sqrt(variance))


def _is_scaled(
    path: Path,
    file: h5py.File,
    group: str,
    basis: Float[np.ndarray, "coordinates modes"],
    sigma: Float[np.ndarray, "modes"],
) -> bool:
    """Is the basis already multiplied by sigma? Its columns' lengths decide; the version breaks a tie."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(basis.astype(np.float64), axis=0)
        unit = np.allclose(lengths, 1.0, atol=0.05)
        scaled = np.allclose(lengths, sigma, rtol=0.05, atol=1e-6)
    if unit and scaled:
        return _minor_version(path, file) < 9
    if not unit and not scaled:
        raise ModelFileError(
            f"{path}: the columns of /{group}/model/pcaBasis are neither of length 1 nor of "
            "their standard deviations"
        )
    return bool(scaled)


def _minor_version(path: Path, file: h5py.File) -> int:
    found = hdf5.dataset(path, file, "version/minorVersion")
    return 9 if found is None or found.shape not in ((), (1,)) else int(np.asarray(found[()]).reshape(-1)[0])


def _triangles(path: Path, file: h5py.File, vertices: int) -> Int[np.ndarray, "triangles 3"]:
    """Of the new representer (3, F), possibly stored as floating point, or of the old one."""
    for name in ("shape/representer/cells", "shape/representer/reference-mesh/triangle-list"):
        if hdf5.has(path, file, name):
            cells = hdf5.numbers(path, file, name, (None, None))
            cells = cells.T if cells.shape[0] == 3 else cells
            if not cells.size or not (float(cells.min()) >= 0 and float(cells.max()) < vertices):
                raise ModelFileError(f"{path}: {name!r} names vertices outside 0 to {vertices - 1}")
            return np.ascontiguousarray(cells, dtype=np.int64)
    raise ModelFileError(f"{path}: has no /shape/representer/cells")


def _landmarks(
    path: Path,
    file: h5py.File,
    mean: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
) -> Landmarks:
    """The published list where the mesh is that of 2017, else the points the file names itself."""
    facts = packaged("bfm17.toml")
    if len(mean) in facts["vertices"]:
        only_bfm = facts["landmarks_bfm_only"] if len(mean) == facts["vertices"][0] else {}
        return landmarks_from_table(facts["landmarks"] | only_bfm, triangles, len(mean), "bfm17.toml")
    document = hdf5.text(path, file, "metadata/landmarks/json")
    points = {} if document is None else _named_points(path, document)
    known = {int(number): points[name] for number, name in facts["named"].items() if name in points}
    if not known:
        return NO_LANDMARKS
    hosts, weights = on_surface(np.array(list(known.values())), mean, triangles)
    return Landmarks(np.array(list(known), np.int64), hosts, weights.astype(np.float32))


def _named_points(path: Path, document: str) -> dict[str, list[float]]:
    """scalismo's landmark list: [{"id": name, "coordinates": [x, y, z]}, ...]."""
    try:
        entries: Any = json.loads(document)
        points = {str(entry["id"]): [float(x) for x in entry["coordinates"]] for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: /metadata/landmarks/json is no list of landmarks ({error})") from error
    if any(len(point) != 3 or not np.isfinite(point).all() for point in points.values()):
        raise ModelFileError(f"{path}: a landmark in /metadata/landmarks/json has not three coordinates")
    return points


def _texture(
    path: Path, triangles: Int[np.ndarray, "triangles 3"]
) -> tuple[Float[np.ndarray, "uvs 2"], Int[np.ndarray, "triangles 3"]] | None:
    """Texture coordinates of the 2019 model (origin bottom-left); None for a mesh that is not the one they
    are for.
    """
    beside = path.with_name(TEXTURE)
    if not beside.is_file():
        return None
    try:
        if beside.stat().st_size > MAX_TEXTURE_BYTES:
            raise ModelFileError(f"{beside}: larger than the {MAX_TEXTURE_BYTES} bytes such a file can have")
        document: Any = json.loads(beside.read_text(encoding="utf-8"))
        ours = np.array(document["triangles"], np.int64)
        uv = np.array(document["textureMapping"]["pointData"], np.float64)
        uv_triangles = np.array(document["textureMapping"]["triangles"], np.int64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{beside}: no texture mapping of the Basel Face Model ({error})") from error
    if ours.shape != triangles.shape or (ours != triangles).any():
        return None
    fits = (
        uv.ndim == 2 and uv.shape[1] == 2 and uv_triangles.shape == triangles.shape and np.isfinite(uv).all()
    )
    if not fits or uv_triangles.min() < 0 or uv_triangles.max() >= len(uv):
        raise ModelFileError(f"{beside}: its texture triangles do not fit its {len(uv)} coordinates")
    return uv, uv_triangles
