"""FLAME 2020, 2023 and 2023 Open: `generic_model.pkl`, `flame2023.pkl`, `flame2023_Open.pkl`; unit metre.

The files are Python 2 pickles with objects of chumpy inside; they are read without running anything
(`safe_pickle`). Identity and expression are already in standard deviations. Landmarks, texture coordinates
and colours are in other files, used when they lie in the same folder: `landmark_embedding.npy`;
`FLAME_texture.npz`, `FLAME_albedo_from_BFM.npz` or `albedoModel2020_FLAME_albedoPart.npz` (see
`flame_texture`).

Source: T. Li et al., "Learning a model of facial shape and expression from 4D scans", SIGGRAPH Asia 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models import flame_texture, npy_file
from facefit.models.assemble import Parts, assemble
from facefit.models.cache import sha256_of
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource
from facefit.models.flame_pose import JOINTS, Flame
from facefit.models.landmark_map import NO_LANDMARKS
from facefit.models.pickle_arrays import array, objects
from facefit.models.safe_pickle import UnsafePickle, parse

MAX_BYTES = 1 << 30
MM_PER_UNIT = 1000.0
IDENTITY_MODES = 300
EMBEDDING = "landmark_embedding.npy"
MAX_YAW_DEG = 39


def looks_like(head: bytes) -> bool:
    """A pickle of protocol 2 or later, or the text protocol's dictionary."""
    return (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(
        (b"(dp", b"(d")
    )


def load(path: Path) -> LinearFaceModel:
    """The linear model the fit uses: identity; expressions, jaw and eyes; see `flame_pose` for what that
    leaves out.
    """
    flame = load_exact(path)
    identities = min(IDENTITY_MODES, len(flame.shape_basis))
    expressions = flame.shape_basis[identities:]
    turns, turn_names, turn_units = flame.linear_modes()
    names = tuple(f"expression{k:03d}" for k in range(len(expressions))) + turn_names
    triangles = flame.triangles.numpy()
    mean = flame.template.double().numpy()
    look = flame_texture.beside(path, triangles, len(mean))
    uv = (look.uv, look.uv_triangles) if look is not None else flame_texture.template_uv(path, triangles)
    return assemble(
        path,
        _source(path),
        Parts(
            mean=mean,
            triangles=triangles,
            identity=flame.shape_basis[:identities].numpy(),
            expression=torch.cat([expressions, turns]).numpy(),
            expression_names=names,
            expression_unit=torch.cat([torch.ones(len(expressions)), turn_units]).numpy(),
            albedo_mean=None if look is None else look.mean,
            albedo=None if look is None else look.modes,
            uv=None if uv is None else uv[0],
            uv_triangles=None if uv is None else uv[1],
            landmarks=_landmarks(path, len(triangles)),
        ),
    )


def load_exact(path: Path) -> Flame:
    """The model with its joints, for evaluation and posing."""
    fields = _fields(path)
    template = _floats(path, fields, "v_template", (None, 3)) * MM_PER_UNIT
    vertices = len(template)
    shapes = _floats(path, fields, "shapedirs", (vertices, 3, None)) * MM_PER_UNIT
    corrections = _floats(path, fields, "posedirs", (vertices, 3, 9 * (len(JOINTS) - 1))) * MM_PER_UNIT
    regressor = _floats(path, fields, "J_regressor", (len(JOINTS), vertices))
    weights = _floats(path, fields, "weights", (vertices, len(JOINTS)))
    tree = _array(path, fields, "kintree_table", (2, len(JOINTS)))
    triangles = _array(path, fields, "f", (None, 3))
    if triangles.dtype.kind not in "iu" or not triangles.size or int(triangles.max()) >= vertices:
        raise ModelFileError(f"{path}: 'f' must hold indices of the {vertices} vertices")
    # The root's parent is a huge unsigned number in the published files; the others come before their
    # children.
    parents = (-1, *(int(p) for p in tree[0, 1:]))
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise ModelFileError(f"{path}: 'kintree_table' is no tree of {len(JOINTS)} joints, parents first")

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    return Flame(
        template=tensor(template),
        shape_basis=tensor(shapes.transpose(2, 0, 1)),
        pose_basis=tensor(corrections.transpose(2, 0, 1)),
        joint_regressor=tensor(regressor),
        weights=tensor(weights),
        parents=parents,
        triangles=torch.from_numpy(np.ascontiguousarray(triangles, dtype=np.int64)),
    )


def contour_row(yaw_deg: float) -> int:
    """Which row of the dynamic contour belongs to a head turned by this angle (positive: to the subject's
    left).

    Rows 0-39 are 0 to 39 degrees, rows 40-78 are -1 to -39.
    """
    turn = int(round(max(-MAX_YAW_DEG, min(MAX_YAW_DEG, yaw_deg))))
    return turn if turn >= 0 else MAX_YAW_DEG - turn


def dynamic_contour(path: Path, yaw_deg: float, n_triangles: int) -> Landmarks | None:
    """The seventeen jaw points at this yaw, from the embedding beside the model; None without one."""
    embedding = _embedding(path)
    if embedding is None or "dynamic_lmk_faces_idx" not in embedding:
        return None
    where = path.with_name(EMBEDDING)
    hosts = _array(where, embedding, "dynamic_lmk_faces_idx", (None, 17))
    weights = _floats(where, embedding, "dynamic_lmk_bary_coords", (len(hosts), 17, 3))
    row = contour_row(yaw_deg)
    if row >= len(hosts):
        raise ModelFileError(
            f"{where}: its dynamic contour has {len(hosts)} rows, expected {2 * MAX_YAW_DEG + 1}"
        )
    return _checked(where, np.arange(17), hosts[row], weights[row], n_triangles)


def _source(path: Path) -> ModelSource:
    is_open = "open" in path.stem.lower()
    licence = (
        "CC-BY 4.0, Max Planck Institute (FLAME 2023 Open)"
        if is_open
        else "Max Planck Institute, non-commercial"
    )
    return ModelSource(
        "flame",
        licence,
        "free" if is_open else "non-commercial",
        "Li et al., Learning a model of facial shape and expression from 4D scans, SIGGRAPH Asia 2017",
        sha256_of(path),
    )


def _fields(path: Path) -> dict[Any, Any]:
    fields = _parsed(path, _read(path))
    if not isinstance(fields, dict):
        raise ModelFileError(
            f"{path}: the pickle holds a {type(fields).__name__}, a FLAME model is a dictionary"
        )
    if "v_template" not in fields or "shapedirs" not in fields:
        known = ", ".join(sorted(str(key) for key in fields)[:8])
        raise ModelFileError(f"{path}: no FLAME model, its pickle holds {known or 'nothing'}")
    return fields


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: {path.stat().st_size} bytes, a FLAME file has at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return parse(data)
    except UnsafePickle as error:
        raise ModelFileError(f"{path}: {error}") from error


def _array(path: Path, fields: dict[Any, Any], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    if name not in fields:
        raise ModelFileError(f"{path}: {name!r} is missing")
    try:
        value = array(fields[name])
    except UnsafePickle as error:
        raise ModelFileError(f"{path}: {name!r}: {error}") from error
    if value.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, value.shape, strict=True)):
        wanted = ", ".join("n" if want is None else str(want) for want in shape)
        raise ModelFileError(f"{path}: {name!r} has shape {value.shape}, a FLAME model has ({wanted})")
    return value


def _floats(path: Path, fields: dict[Any, Any], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    value = _array(path, fields, name, shape)
    # 1e3 metres: beyond lies no face, and the arithmetic on it would overflow later.
    if value.dtype.kind not in "fiu" or (
        value.size and not float(np.abs(value.astype(np.float64)).max()) < 1e3
    ):
        raise ModelFileError(f"{path}: {name!r} holds NaN, infinite or absurdly large numbers")
    return value.astype(np.float64)


def _embedding(path: Path) -> dict[Any, Any] | None:
    """The dictionary in `landmark_embedding.npy`, an array of one object."""
    where = path.with_name(EMBEDDING)
    if not where.is_file():
        return None
    description, _, _, body = npy_file.header(where, _read(where))
    if description != "|O":
        raise ModelFileError(f"{where}: holds {description!r}, expected the object a FLAME embedding is")
    try:
        value = objects(parse(bytes(body)))
    except UnsafePickle as error:
        raise ModelFileError(f"{where}: {error}") from error
    if len(value) != 1 or not isinstance(value[0], dict):
        raise ModelFileError(f"{where}: no dictionary of landmarks")
    return value[0]


def _landmarks(path: Path, n_triangles: int) -> Landmarks:
    """All 68 with the frontal contour; or the 51 of the inner face."""
    embedding, where = _embedding(path), path.with_name(EMBEDDING)
    if embedding is None:
        return NO_LANDMARKS
    if "full_lmk_faces_idx" in embedding:
        hosts = _array(where, embedding, "full_lmk_faces_idx", (1, 68))[0]
        weights = _floats(where, embedding, "full_lmk_bary_coords", (1, 68, 3))[0]
        return _checked(where, np.arange(68), hosts, weights, n_triangles)
    hosts = _array(where, embedding, "static_lmk_faces_idx", (51,))
    weights = _floats(where, embedding, "static_lmk_bary_coords", (51, 3))
    return _checked(where, np.arange(17, 68), hosts, weights, n_triangles)


def _checked(
    path: Path,
    numbers: Int[np.ndarray, "n"],
    hosts: Int[np.ndarray, "n"],
    weights: Float[np.ndarray, "n 3"],
    n_triangles: int,
) -> Landmarks:
    whole = hosts.dtype.kind in "iu" and int(hosts.min()) >= 0 and int(hosts.max()) < n_triangles
    if not whole or not np.allclose(weights.sum(axis=1), 1.0, atol=1e-2):
        raise ModelFileError(
            f"{path}: a landmark names a triangle outside 0 to {n_triangles - 1}, or bad weights"
        )
    return Landmarks(numbers.astype(np.int64), hosts.astype(np.int64), weights.astype(np.float32))
