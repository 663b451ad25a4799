"""Colours for FLAME from the texture models in circulation, sampled at the vertices; and its texture
coordinates.

All three are 512 x 512 images with 3 channels in the order blue, green, red:
    FLAME_texture.npz                        mean, tex_dir (..., 200), vt, ft; sRGB in 0-255
    FLAME_albedo_from_BFM.npz                MU, PC (flat), vt and ft in some copies; sRGB in 0-1
    albedoModel2020_FLAME_albedoPart.npz     MU, PC (..., 145), vt, ft; linear in 0-1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models import npy_file, obj_text
from facefit.models.assemble import linearised_albedo


@dataclass(frozen=True)
class Kind:
    """One of the published files: its name, its keys, its full scale, and whether it is linear."""

    file: str
    mean: str
    basis: str
    full: float
    linear: bool


TEMPLATE = "head_template.obj"
# The most physical one first.
KINDS = (
    Kind("albedoModel2020_FLAME_albedoPart.npz", "MU", "PC", 1.0, True),
    Kind("FLAME_texture.npz", "mean", "tex_dir", 255.0, False),
    Kind("FLAME_albedo_from_BFM.npz", "MU", "PC", 1.0, False),
)


@dataclass(frozen=True)
class Look:
    """Albedo in linear RGB per vertex, and texture coordinates with their origin bottom-left."""

    mean: Float[np.ndarray, "vertices 3"]
    modes: Float[np.ndarray, "modes vertices 3"]
    uv: Float[np.ndarray, "uvs 2"]
    uv_triangles: Int[np.ndarray, "triangles 3"]


def beside(model: Path, triangles: Int[np.ndarray, "triangles 3"], vertices: int) -> Look | None:
    """From the first of the texture files in the model's folder, if anything there says where texels belong."""
    template = template_uv(model, triangles)
    for kind in KINDS:
        path = model.with_name(kind.file)
        if path.is_file() and (template is not None or {"vt", "ft"} <= npy_file.names(path)):
            return read(path, kind, triangles, vertices, template)
    return None


def template_uv(
    model: Path, triangles: Int[np.ndarray, "triangles 3"]
) -> tuple[Float[np.ndarray, "uvs 2"], Int[np.ndarray, "triangles 3"]] | None:
    """Texture coordinates of `head_template.obj`, which FLAME's tools bring along; None without it."""
    path = model.with_name(TEMPLATE)
    if not path.is_file():
        return None
    lines = obj_text.read_lines(path)
    uv, faces = obj_text.rows(path, lines, b"vt", 2), obj_text.polygons(path, lines)
    if faces.uv.shape[0] != len(triangles) or (faces.uv[:, 3] >= 0).any() or faces.uv.max() >= len(uv):
        raise ModelFileError(
            f"{path}: its {len(faces.uv)} faces do not fit the model's {len(triangles)} triangles"
        )
    return uv, faces.uv[:, :3]


def read(
    path: Path,
    kind: Kind,
    triangles: Int[np.ndarray, "triangles 3"],
    vertices: int,
    template: tuple[Float[np.ndarray, "uvs 2"], Int[np.ndarray, "triangles 3"]] | None = None,
) -> Look:
    """One texture file; its own texture coordinates come before the template's."""
    arrays = npy_file.read_npz(path, frozenset((kind.mean, kind.basis, "vt", "ft")))
    if template is not None and not {"vt", "ft"} <= arrays.keys():
        arrays["vt"], arrays["ft"] = template
    if missing := {kind.mean, kind.basis, "vt", "ft"} - arrays.keys():
        raise ModelFileError(f"{path}: {', '.join(sorted(missing))} missing; it is no {kind.file}")
    uv, uv_triangles = arrays["vt"], arrays["ft"]
    if (
        uv.ndim != 2
        or uv.shape[1] != 2
        or uv_triangles.shape != triangles.shape
        or not _indexes(uv_triangles, len(uv))
    ):
        raise ModelFileError(f"{path}: 'vt' {uv.shape} and 'ft' {uv_triangles.shape} do not fit this model")
    if not np.isfinite(uv).all():
        raise ModelFileError(f"{path}: 'vt' holds NaN or infinite numbers")
    mean = arrays[kind.mean]
    side = int(round((mean.size / 3) ** 0.5))
    if mean.size != 3 * side * side or side < 2 or arrays[kind.basis].size % mean.size:
        raise ModelFileError(f"{path}: {kind.mean!r} {mean.shape} is no square image of three channels")
    uv_of_vertex = np.zeros((vertices, 2))
    uv_of_vertex[triangles] = uv[uv_triangles]
    weights = _bilinear(uv_of_vertex, side)
    blue_first = (weights[0][..., None] * mean.reshape(-1, 3)[weights[1]]).sum(axis=1) / kind.full
    basis = arrays[kind.basis].reshape(side * side, 3, -1)
    modes = (
        sum(weights[0][:, corner, None, None] * basis[weights[1][:, corner]] for corner in range(4))
        / kind.full
    )
    colour, colour_modes = blue_first[:, ::-1], np.moveaxis(modes[:, ::-1], -1, 0)
    if not (np.isfinite(colour).all() and np.isfinite(colour_modes).all()):
        raise ModelFileError(f"{path}: holds NaN or infinite numbers")
    if not kind.linear:
        colour, colour_modes = linearised_albedo(colour, colour_modes)
    return Look(colour, colour_modes, uv, uv_triangles.astype(np.int64))


def _bilinear(
    uv: Float[np.ndarray, "vertices 2"], side: int
) -> tuple[Float[np.ndarray, "vertices 4"], Int[np.ndarray, "vertices 4"]]:
    """Weights and texels about each texture coordinate; row 0 of the image is at the top, v = 1."""
    x = np.clip(uv[:, 0] * side - 0.5, 0.0, side - 1.0)
    y = np.clip((1.0 - uv[:, 1]) * side - 0.5, 0.0, side - 1.0)
    left, top = np.minimum(x.astype(int), side - 2), np.minimum(y.astype(int), side - 2)
    s, t = x - left, y - top
    weights = np.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t], axis=1)
    corner = top * side + left
    return weights, np.stack([corner, corner + 1, corner + side, corner + side + 1], axis=1)


def _indexes(values: np.ndarray, limit: int) -> bool:
    return (
        values.dtype.kind in "iu" and values.size > 0 and int(values.min()) >= 0 and int(values.max()) < limit
    )
