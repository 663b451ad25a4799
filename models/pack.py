"""facefit's own model file: one safetensors container with a TOML card in its metadata. It cannot run code.

The tensors carry the names of `LinearFaceModel`'s and `Topology`'s fields; a region is "region.NAME". The
card (metadata key "facefit") says format version, source, licence and expression names. A basis may be stored
as 16-bit integers with one scale per mode ("NAME.scale"): the error is at most 1/65534 of the mode's largest
number, i.e. below 0.001 mm for a mode that moves a vertex by 42 mm, and half the size of float32.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from facefit.errors import ModelFileError
from facefit.models.cache import atomic_path, sha256_of
from facefit.models.face_model import Landmarks, LicenceClass, LinearFaceModel, ModelSource, Topology
from facefit.models.restrict import restrict_topology

VERSION = 1
BASES = ("identity_basis", "expression_basis", "albedo_basis")
MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 4 << 20


def save_model(model: LinearFaceModel, path: Path | str, *, compact: bool = False) -> None:
    """Write a model as one file, atomically. `compact` stores the bases as 16-bit integers.

    A file that cannot be written is a `ModelFileError` too, because the models' folder is often the user's cache.
    """
    path = Path(path)
    tensors = _topology_tensors(model.topology)
    for name in ("mean", "albedo_mean", "expression_unit", *BASES):
        array = getattr(model, name).detach().cpu().numpy().astype(np.float32)
        if compact and name in BASES:
            array, scale = quantise(array)
            tensors[f"{name}.scale"] = scale
        tensors[name] = np.ascontiguousarray(array)
    try:
        with atomic_path(path) as part:
            save_file(tensors, part, metadata={"facefit": _card(model)})
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path}: cannot be written ({error}); FACEFIT_CACHE names another folder for models"
        ) from error


def load_pack(path: Path | str, region: str | None = None) -> LinearFaceModel:
    """Read what `save_model` wrote; anything else is a `ModelFileError`. `region` keeps only its vertices."""
    path = Path(path)
    card, tensors = read_tensors(path)
    source, names = _read_card(path, card)
    shape = _tensor(path, tensors, "mean").shape
    if len(shape) != 2 or shape[1] != 3:
        raise ModelFileError(f"{path}: 'mean' has shape {shape}, expected (vertices, 3)")
    topology = _read_topology(path, tensors, vertices=shape[0])
    if region is not None:
        topology = _keep_region(path, tensors, topology, region, vertices=shape[0])
    arrays = ("mean", "albedo_mean", "expression_unit", *BASES)
    floats = {name: torch.from_numpy(_floats(path, tensors, name)) for name in arrays}
    return LinearFaceModel(
        source=source if source.sha256 else replace(source, sha256=sha256_of(path)),
        topology=topology,
        expression_names=names,
        **floats,
    )


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The card and the raw arrays of a facefit safetensors file."""
    _check_header(path)
    try:
        with safe_open(path, framework="np") as file:
            card = tomllib.loads((file.metadata() or {}).get("facefit", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (
        SafetensorError,
        OSError,
        tomllib.TOMLDecodeError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise ModelFileError(f"{path}: not a readable facefit model file ({error})") from error
    if card.get("format") != "facefit-model":
        raise ModelFileError(f"{path}: a safetensors file, but it holds no facefit model")
    if card.get("version") != VERSION:
        raise ModelFileError(
            f"{path}: model file version {card.get('version')!r}, this facefit reads {VERSION}; "
            "convert it again"
        )
    return card, tensors


def is_pack(head: bytes) -> bool:
    """Do these first bytes begin a safetensors file? A little-endian header length, then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def quantise(
    basis: Float[np.ndarray, "modes vertices 3"],
) -> tuple[Int[np.ndarray, "modes vertices 3"], Float[np.ndarray, "modes"]]:
    """16-bit integers and the scale of each mode."""
    peak = np.abs(basis).max(axis=(1, 2), initial=0.0)
    scale = np.where(peak > 0, peak / 32767.0, 1.0).astype(np.float32)
    return np.rint(basis / scale[:, None, None]).astype(np.int16), scale


def _check_header(path: Path) -> None:
    """Refuse by size before a parser sees the file; the safetensors parser itself checks every tensor's
    extent.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    if size > MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: {size} bytes; a face model is at most {MAX_FILE_BYTES}")
    if not is_pack(head):
        raise ModelFileError(f"{path}: does not begin like a facefit model file (safetensors)")


def _card(model: LinearFaceModel) -> str:
    """The TOML card. JSON strings without ASCII escapes are TOML basic strings, so json.dumps writes them."""
    source = model.source
    entries = {
        "name": source.name,
        "licence": source.licence,
        "licence_class": source.licence_class,
        "citation": source.citation,
        "sha256": source.sha256,
    }
    lines = [
        'format = "facefit-model"',
        f"version = {VERSION}",
        'unit = "mm"',
        'albedo = "linear RGB"',
        "",
        "[source]",
    ]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    names = json.dumps(list(model.expression_names), ensure_ascii=False)
    return "\n".join([*lines, "", "[expressions]", f"names = {names}", ""])


def _topology_tensors(topology: Topology) -> dict[str, np.ndarray]:
    landmarks = topology.landmarks
    tensors = {
        "triangles": topology.triangles.astype(np.int32),
        "landmarks.numbers": landmarks.numbers.astype(np.int32),
        "landmarks.triangles": landmarks.triangles.astype(np.int32),
        "landmarks.barycentric": landmarks.barycentric.astype(np.float32),
    }
    if topology.uv is not None and topology.uv_triangles is not None:
        tensors["uv"] = topology.uv.astype(np.float32)
        tensors["uv_triangles"] = topology.uv_triangles.astype(np.int32)
    if topology.mirror is not None:
        tensors["mirror"] = topology.mirror.astype(np.int32)
    for name, members in topology.regions.items():
        tensors[f"region.{name}"] = members.astype(np.int32)
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _read_card(path: Path, card: dict[str, Any]) -> tuple[ModelSource, tuple[str, ...]]:
    try:
        entries = {key: str(value) for key, value in card["source"].items()}
        names = tuple(str(name) for name in card["expressions"]["names"])
        source = ModelSource(**entries)  # type: ignore[arg-type]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path}: its card lacks or misnames an entry: {error}") from error
    if source.licence_class not in get_args(LicenceClass):
        raise ModelFileError(
            f"{path}: licence class {source.licence_class!r} is none of {', '.join(get_args(LicenceClass))}"
        )
    return source, names


def _read_topology(path: Path, tensors: dict[str, np.ndarray], vertices: int) -> Topology:
    triangles = _indices(path, tensors, "triangles", (-1, 3), vertices)
    landmarks = Landmarks(
        _indices(path, tensors, "landmarks.numbers", (-1,), 68),
        _indices(path, tensors, "landmarks.triangles", (-1,), len(triangles)),
        _floats(path, tensors, "landmarks.barycentric").astype(np.float32),
    )
    count = len(landmarks.numbers)
    if landmarks.triangles.shape != (count,) or landmarks.barycentric.shape != (count, 3):
        raise ModelFileError(f"{path}: its landmark arrays differ in length")
    uv = uv_triangles = mirror = None
    if "uv" in tensors:
        uv = _floats(path, tensors, "uv")
        if uv.ndim != 2 or uv.shape[1] != 2:
            raise ModelFileError(f"{path}: 'uv' has shape {uv.shape}, expected (n, 2)")
        uv_triangles = _indices(path, tensors, "uv_triangles", (len(triangles), 3), len(uv))
    if "mirror" in tensors:
        mirror = _indices(path, tensors, "mirror", (vertices,), vertices)
    regions = {
        name.removeprefix("region."): _indices(path, tensors, name, (-1,), vertices)
        for name in tensors
        if name.startswith("region.")
    }
    return Topology(triangles, landmarks, uv, uv_triangles, mirror, regions)


def _keep_region(
    path: Path, tensors: dict[str, np.ndarray], topology: Topology, region: str, vertices: int
) -> Topology:
    """Cut the stored arrays to a region, before they are expanded to floats; returns its topology."""
    if region not in topology.regions:
        raise ModelFileError(f"{path}: lacks the region {region!r}")
    keep = topology.regions[region]
    for name in ("mean", "albedo_mean", *BASES):
        if _tensor(path, tensors, name).shape[-2:] != (vertices, 3):
            raise ModelFileError(
                f"{path}: {name!r} has shape {tensors[name].shape}, expected (..., {vertices}, 3)"
            )
        tensors[name] = tensors[name][..., keep, :]
    return restrict_topology(topology, keep, vertices)


def _floats(path: Path, tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A tensor as float32, its 16-bit form expanded; NaN and infinity are refused."""
    array = _tensor(path, tensors, name)
    if f"{name}.scale" in tensors:
        scale = tensors[f"{name}.scale"]
        if array.dtype != np.int16 or array.ndim != 3 or scale.shape != (len(array),):
            raise ModelFileError(f"{path}: {name!r} and its scale do not fit ({array.shape}, {scale.shape})")
        with np.errstate(invalid="ignore", over="ignore"):
            array = array * scale.astype(np.float32)[:, None, None]
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise ModelFileError(f"{path}: {name!r} has type {array.dtype}, expected floating point numbers")
    if not np.isfinite(array).all():
        raise ModelFileError(f"{path}: {name!r} holds NaN or infinite numbers")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _indices(
    path: Path, tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...], limit: int
) -> Int[np.ndarray, "..."]:
    """A tensor of indices in [0, limit) of the given shape (-1 = any length), as int64."""
    array = _tensor(path, tensors, name)
    fits = array.ndim == len(shape) and all(
        want in (-1, got) for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.issubdtype(array.dtype, np.integer):
        raise ModelFileError(f"{path}: {name!r} is {array.dtype} {array.shape}, expected integers {shape}")
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise ModelFileError(f"{path}: {name!r} holds an index outside 0..{limit - 1}")
    return array.astype(np.int64)


def _tensor(path: Path, tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise ModelFileError(f"{path}: {name!r} is missing; the file is not a complete facefit model")
    return tensors[name]
