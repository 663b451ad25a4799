"""Small files in the exact layout of every licensed face model, written from a face whose numbers are known.

A writer takes our conventions (millimetres, 0-based, counter-clockwise, modes times sigma, linear RGB) to
those of the format, so that a loader passes when it finds its way back: unit, index base, winding, sigma and
gamma are each wrong in a way that shows.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse
import torch
from toy import toy_model

from facefit.models.face_model import LinearFaceModel


@dataclass(frozen=True)
class Known:
    """The face in the files. Bases are orthonormal columns with their sigmas beside them."""

    mean: np.ndarray
    triangles: np.ndarray
    basis: np.ndarray
    sigma: np.ndarray
    expression_basis: np.ndarray
    expression_sigma: np.ndarray
    colour_srgb: np.ndarray
    colour_basis: np.ndarray
    colour_sigma: np.ndarray
    landmark_vertices: np.ndarray

    @property
    def vertices(self) -> int:
        return len(self.mean)


def known(modes: int = 3, seed: int = 0, stride: int = 1) -> Known:
    """The toy face with random orthonormal modes; `stride` 2 keeps every second row and column of its grid."""
    model = toy_model()
    rng = np.random.default_rng(seed)
    side = int(round(model.n_vertices**0.5))
    kept = np.arange(side * side).reshape(side, side)[::stride, ::stride]
    mean = model.mean.double().numpy()[kept.ravel()]
    marks = model.landmark_points(model.mean).numpy()
    size = mean.size

    def basis(count: int) -> np.ndarray:
        return np.linalg.qr(rng.normal(size=(size, count)))[0]

    return Known(
        mean=mean,
        triangles=model.topology.triangles if stride == 1 else _grid(len(kept)),
        basis=basis(modes),
        sigma=np.array([30.0, 20.0, 10.0])[:modes],
        expression_basis=basis(2),
        expression_sigma=np.array([15.0, 8.0]),
        colour_srgb=rng.uniform(0.3, 0.7, mean.shape),
        colour_basis=basis(2),
        colour_sigma=np.array([1.5, 0.8]),
        landmark_vertices=np.linalg.norm(mean[None] - marks[:, None], axis=2).argmin(axis=1),
    )


def _grid(side: int) -> np.ndarray:
    """Triangles of a square grid whose rows run downwards and columns to the subject's left."""
    a = np.arange(side * side).reshape(side, side)[:-1, :-1].ravel()
    return np.concatenate([np.stack([a, a + side, a + 1], 1), np.stack([a + 1, a + side, a + side + 1], 1)])


# -- Surrey
# -----------------------------------------------------------------------------------------------------


def write_surrey(path: Path, face: Known, version: int = 1, colour: bool = False) -> None:
    flat = face.triangles.astype("<i4").tobytes()
    data = struct.pack("<I", version)
    data += _matrix(face.mean.reshape(-1, 1)) + _matrix(face.basis) + _matrix(face.sigma[:, None] ** 2)
    data += struct.pack("<Q", len(face.triangles)) + flat
    if colour:
        data += _matrix(face.colour_srgb.reshape(-1, 1)) + _matrix(face.colour_basis)
        data += _matrix(face.colour_sigma[:, None] ** 2) + struct.pack("<Q", len(face.triangles)) + flat
    else:
        data += 3 * struct.pack("<ii", 0, 0) + struct.pack("<Q", 0)
    if version >= 2:
        data += b"\0" + struct.pack("<i", 1) + blendshapes(face)
    if version >= 3:
        names = {str(number + 1): vertex for number, vertex in enumerate(face.landmark_vertices)}
        data += b"\0" + struct.pack("<Q", len(names))
        data += b"".join(_text(name) + struct.pack("<i", vertex) for name, vertex in names.items())
    uv = np.stack([face.mean[:, 0], -face.mean[:, 1]], axis=1) / 300.0 + 0.5
    data += struct.pack("<Q", len(uv)) + uv.astype("<f8").tobytes()
    if version >= 4:
        data += struct.pack("<Q", len(face.triangles)) + flat
    path.write_bytes(data)


def blendshapes(face: Known) -> bytes:
    deltas = (face.expression_basis * face.expression_sigma).T
    return struct.pack("<Q", len(deltas)) + b"".join(
        _text(name) + _matrix(delta[:, None]) for name, delta in zip(("joy", "anger"), deltas, strict=True)
    )


def _matrix(array: np.ndarray) -> bytes:
    return struct.pack("<ii", *array.shape) + array.astype("<f4").tobytes(order="F")


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


# -- MATLAB: Basel 2009, Deep3D, LYHM
# ---------------------------------------------------------------------------


def write_bfm09(path: Path, face: Known, compressed: bool = False) -> None:
    variables = {
        "shapeMU": face.mean.reshape(-1, 1) * 1e3,
        "shapePC": face.basis,
        "shapeEV": face.sigma[:, None] * 1e3,
        "texMU": face.colour_srgb.reshape(-1, 1) * 255.0,
        "texPC": face.colour_basis,
        "texEV": face.colour_sigma[:, None] * 255.0,
    }
    single = {name: array.astype(np.float32) for name, array in variables.items()}
    inwards = face.triangles[:, [0, 2, 1]] + 1
    scipy.io.savemat(path, {**single, "tl": inwards.astype(np.float64)}, do_compression=compressed)


def write_bfm09_expressions(folder: Path, face: Known, members: np.ndarray) -> None:
    modes = face.expression_basis.T.reshape(-1, face.vertices, 3)[:, members]
    mean = np.full((len(members), 3), 77.0)
    data = struct.pack("<i", len(modes)) + mean.astype("<f4").tobytes() + modes.astype("<f4").tobytes()
    (folder / "Exp_Pca.bin").write_bytes(data)
    (folder / "std_exp.txt").write_text(" ".join(f"{s * 1e3:.6f}" for s in face.expression_sigma))
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": members[:, None] + 1.0})


def write_deep3d(path: Path, face: Known) -> None:
    arrays = {
        "meanshape": face.mean.reshape(1, -1) / 100.0,
        "meantex": face.colour_srgb.reshape(1, -1) * 255.0,
        "idBase": face.basis * face.sigma / 100.0,
        "exBase": face.expression_basis * face.expression_sigma / 100.0,
        "texBase": face.colour_basis * face.colour_sigma * 255.0,
        "tri": face.triangles + 1.0,
        "keypoints": face.landmark_vertices[None] + 1.0,
    }
    scipy.io.savemat(path, {name: array.astype(np.float32) for name, array in arrays.items()})


def write_lyhm(path: Path, face: Known) -> None:
    def pca(mean: np.ndarray, basis: np.ndarray, sigma: np.ndarray) -> dict[str, np.ndarray]:
        return {"mu": mean.reshape(1, -1), "eigVec": basis, "eigVal": sigma[:, None] ** 2}

    scipy.io.savemat(
        path,
        {
            "shp": pca(face.mean, face.basis, face.sigma),
            "tex": pca(face.colour_srgb, face.colour_basis, face.colour_sigma),
            "tri": {"faces": (face.triangles[:, [0, 2, 1]] + 1).astype(np.int32)},
        },
    )


# -- HDF5: Basel 2017 and 2019, AlbedoMM
# ------------------------------------------------------------------------


def write_bfm17(path: Path, face: Known, minor_version: int = 9, named: bool = True) -> None:
    """Version 8 multiplies the basis by sigma. The expression's mean is an offset of the neutral face."""
    offset = np.full_like(face.mean, 0.25)
    scaled = minor_version < 9
    with h5py.File(path, "w") as file:
        file["version/majorVersion"], file["version/minorVersion"] = 0, minor_version
        write_pca(file, "shape", face.mean - offset, face.basis, face.sigma, scaled)
        write_pca(file, "expression", offset, face.expression_basis, face.expression_sigma, scaled)
        write_pca(file, "color", face.colour_srgb, face.colour_basis, face.colour_sigma, scaled)
        file["shape/representer/points"] = face.mean.T
        file["shape/representer/cells"] = face.triangles.T.astype(np.float64)
        if named:
            file["metadata/landmarks/json"] = _landmark_json(face)


def write_albedo_mm(path: Path, face: Known) -> None:
    with h5py.File(path, "w") as file:
        write_pca(file, "diffuseAlbedo", face.colour_srgb, face.colour_basis, face.colour_sigma, scaled=False)
        write_pca(
            file, "specularAlbedo", face.colour_srgb / 4, face.colour_basis, face.colour_sigma, scaled=False
        )


def write_pca(
    file: h5py.File, group: str, mean: np.ndarray, basis: np.ndarray, sigma: np.ndarray, scaled: bool
) -> None:
    file[f"{group}/model/mean"] = mean.reshape(-1).astype(np.float32)
    stored = basis * sigma if scaled else basis
    file.create_dataset(f"{group}/model/pcaBasis", data=stored.astype(np.float32), compression="gzip")
    file[f"{group}/model/pcaVariance"] = (sigma**2).astype(np.float32)
    file[f"{group}/model/noiseVariance"] = np.zeros(1, np.float32)


def _landmark_json(face: Known) -> str:
    import json

    from facefit.models.landmark_map import packaged

    entries = [
        {"id": name, "coordinates": face.mean[face.landmark_vertices[int(number)]].tolist()}
        for number, name in packaged("bfm17.toml")["named"].items()
    ]
    return json.dumps(entries)


# -- FLAME
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chumpy:
    """Written as the object of chumpy that holds this array."""

    array: np.ndarray


@dataclass(frozen=True)
class Selection:
    """Written as chumpy's selection of some elements of another array."""

    source: Chumpy
    index: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """Written as a call of `name`, which an ordinary unpickler would make."""

    name: str
    arguments: tuple[Any, ...]


def flame_fields(face: Known) -> dict[str, Any]:
    """300 identity modes (all zero but the known ones), then the expressions; a jaw that carries the lower
    face.
    """
    modes = np.zeros((face.vertices, 3, 302))
    modes[:, :, : len(face.sigma)] = (face.basis * face.sigma).reshape(face.vertices, 3, -1) / 1e3
    modes[:, :, 300:] = (face.expression_basis * face.expression_sigma).reshape(face.vertices, 3, -1) / 1e3
    jaw = np.clip(0.5 - (face.mean[:, 1] + 40.0) / 16.0, 0.0, 1.0)
    weights = np.zeros((face.vertices, 5))
    weights[:, 2], weights[:, 1] = jaw, 1.0 - jaw
    regressor = np.zeros((5, face.vertices))
    regressor[:, face.landmark_vertices[[27, 8, 0, 45, 36]]] = np.eye(5)
    rng = np.random.default_rng(1)
    return {
        "v_template": Chumpy(face.mean / 1e3),
        "f": face.triangles.astype(np.uint32),
        "shapedirs": Chumpy(modes),
        "posedirs": rng.normal(0, 1e-4, (face.vertices, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "J": np.zeros((5, 3)),
        "weights": Chumpy(weights),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_flame(path: Path, face: Known) -> None:
    path.write_bytes(python2_pickle(flame_fields(face)))


def write_flame_embedding(path: Path, model: LinearFaceModel) -> None:
    """As DECA's: an array of one dictionary whose dynamic part holds tensors with a nested torch file each."""
    marks = model.topology.landmarks
    rows = np.tile(marks.triangles[:17], (79, 1))
    rows[:, 0] = np.arange(79)
    fields = {
        "static_lmk_faces_idx": marks.triangles[17:].astype(np.uint32),
        "static_lmk_bary_coords": marks.barycentric[17:].astype(np.float64),
        "dynamic_lmk_faces_idx": torch.from_numpy(rows),
        "dynamic_lmk_bary_coords": torch.from_numpy(np.tile(marks.barycentric[:17], (79, 1, 1))),
        "full_lmk_faces_idx": marks.triangles[None],
        "full_lmk_bary_coords": marks.barycentric[None].astype(np.float64),
    }
    whole = np.empty((), object)
    whole[()] = fields
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, whole, allow_pickle=True)
    path.write_bytes(buffer.getvalue())


def write_flame_texture(path: Path, face: Known, side: int = 16, modes: int = 2) -> None:
    """Blue, green, red in 0-255: blue rises to the right, green to the top, red is constant."""
    rows, columns = np.mgrid[0:side, 0:side]
    mean = np.stack([10.0 * columns, 10.0 * (side - 1 - rows), np.full((side, side), 90.0)], axis=2)
    uv = (face.mean[:, :2] - face.mean[:, :2].min(axis=0)) / np.ptp(face.mean[:, :2], axis=0)
    np.savez(
        path, mean=mean, tex_dir=np.ones((side, side, 3, modes)), vt=uv, ft=face.triangles.astype(np.uint32)
    )


def obj(face: Known) -> bytes:
    """The mesh as FLAME's `head_template.obj`: metres, texture coordinates, triangles counted from 1."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in face.mean / 1e3]
    lines += [f"vt {x / 200 + 0.5:.5f} {y / 300 + 0.5:.5f}" for x, y, _ in face.mean]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in triangle) for triangle in face.triangles]
    return "\n".join(lines).encode()


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 wrote it: byte strings, old module names."""
    return b"\x80\x02" + _emit(value) + b"."


def _emit(value: Any) -> bytes:
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int() if abs(value) < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            return b"\x8a\x08" + struct.pack("<q", value)
        case str() | bytes():
            raw = value.encode("latin-1") if isinstance(value, str) else value
            return b"T" + struct.pack("<I", len(raw)) + raw
        case tuple():
            return b"(" + b"".join(_emit(item) for item in value) + b"t"
        case list():
            return b"](" + b"".join(_emit(item) for item in value) + b"e"
        case Mapping():
            return b"}(" + b"".join(_emit(key) + _emit(item) for key, item in value.items()) + b"u"
        case Call():
            return _global(value.name) + _emit(value.arguments) + b"R"
        case Chumpy():
            return _reconstructed("chumpy.ch.Ch", {"x": value.array, "dirty_vars": None})
        case Selection():
            state = {"a": value.source, "idxs": value.index, "preferred_shape": value.shape}
            return _reconstructed("chumpy.reordering.Select", state)
        case np.ndarray():
            return _emit_array(value)
        case scipy.sparse.csc_matrix():
            parts = {"indptr": value.indptr, "indices": value.indices, "data": value.data}
            return _reconstructed("scipy.sparse.csc.csc_matrix", {"_shape": value.shape, **parts})
    raise TypeError(type(value))


def _global(name: str) -> bytes:
    module, attribute = name.rsplit(".", 1)
    return f"c{module}\n{attribute}\n".encode()


def _reconstructed(name: str, state: dict[str, Any]) -> bytes:
    call = _global("copy_reg._reconstructor") + b"(" + _global(name) + _global("__builtin__.object") + b"NtR"
    return call + _emit(state) + b"b"


def _emit_array(array: np.ndarray) -> bytes:
    made = (
        _global("numpy.core.multiarray._reconstruct")
        + b"("
        + _global("numpy.ndarray")
        + _emit((0,))
        + _emit("b")
    )
    dtype = _global("numpy.dtype") + _emit((array.dtype.str[1:], 0, 1)) + b"R"
    dtype += _emit((3, "<", None, None, None, -1, -1, 0)) + b"b"
    state = b"(" + _emit(1) + _emit(array.shape) + dtype + _emit(False) + _emit(array.tobytes()) + b"t"
    return made + b"tR" + state + b"b"
