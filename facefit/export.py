"""Everything a run leaves behind: one call writes the folder, another a single file by its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from facefit.atomic import write_atomically
from facefit.displacement import detail_maps, detailed_ply
from facefit.errors import FacefitError
from facefit.fitting.result import FitResult
from facefit.glb import face_glb
from facefit.mesh import vertex_normals
from facefit.obj import encode_mtl, encode_obj
from facefit.on_cpu import on_cpu
from facefit.overlay import overlay
from facefit.ply import encode_ply
from facefit.rendering.shade import linear_to_srgb
from facefit.report import report_html
from facefit.result_json import encode_json, parameter_arrays, result_dict
from facefit.texture import DEFAULT_SIZE, Texture, bake_texture

_FRAME = (
    "millimetres, model frame: x to the subject's left, y up, z out of the nose; the pose is in result.json"
)


def write_results(result: FitResult, folder: Path, texture_size: int = DEFAULT_SIZE) -> list[tuple[str, str]]:
    """Write every file of a run into an existing folder; gives each file's name and what it is in one phrase.

    Not atomic: hand in a temporary folder and rename it. OSError (disk full, no permission) passes through.
    """
    result = on_cpu(result)
    texture = bake_texture(result, texture_size)
    described = result_dict(result)
    files: list[tuple[str, str, str | bytes]] = [
        ("report.html", "the fit to look at and to play with, offline", report_html(result, texture)),
        ("overlay.png", "the fitted face over the photograph", encode_png(overlay(result))),
        (
            "face.glb",
            "textured head with named expressions and the photo's camera",
            _glb(result, texture, described),
        ),
        ("mesh.obj", "the head with its expression, textured", _posed_obj(result, texture, "mesh.mtl")),
        ("mesh.mtl", "material of mesh.obj", encode_mtl("mesh.png")),
        ("mesh.png", "skin texture without the photo's light", encode_png(texture.srgb)),
        ("neutral.obj", "the head without expression", neutral_obj(result)),
        ("mesh.ply", "the head with colours per vertex", _ply(result)),
        ("params.npz", "all parameters as arrays", _npz(result)),
        ("result.json", "all parameters with names and units, camera, landmarks", encode_json(described)),
    ]
    if result.inliers is not None:
        files.append(("mask.png", "black where something hides the face", _mask(result.inliers)))
    files += _detail_files(result, texture)
    for name, _, content in files:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [(name, phrase) for name, phrase, _ in files]


def export(result: FitResult, path: str | os.PathLike[str], texture_size: int = DEFAULT_SIZE) -> None:
    """Write one file; its suffix says what: .glb, .obj (with .mtl and .png beside it), .ply, .json, .npz,
    .png (the overlay) or .html (the report). The file is complete or not there at all. Meshes are in mm, the model
    frame, .glb in metres.
    """
    target, result = Path(path), on_cpu(result)
    suffix = target.suffix.lower()
    if suffix == ".obj":
        texture = bake_texture(result, texture_size)
        # Readers disagree on file names with spaces inside OBJ and MTL, so its companions have none.
        stem = "_".join(target.stem.split())
        material, picture = target.with_name(f"{stem}.mtl"), target.with_name(f"{stem}.png")
        write_atomically(picture, encode_png(texture.srgb))
        write_atomically(material, encode_mtl(picture.name).encode())
        write_atomically(target, _posed_obj(result, texture, material.name).encode())
        return
    if suffix not in _WRITERS:
        known = ", ".join(sorted([*_WRITERS, ".obj"]))
        raise FacefitError(f"{target.name}: no file of kind {suffix!r} can be written; there are {known}")
    content = _WRITERS[suffix](result, texture_size)
    write_atomically(target, content.encode() if isinstance(content, str) else content)


def encode_png(image: np.ndarray) -> bytes:
    """Light compression: five times faster than the default for a tenth more bytes."""
    stream = BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=2)
    return stream.getvalue()


def _mask(inliers: np.ndarray) -> bytes:
    return encode_png(inliers.astype(np.uint8) * 255)


def _detail_files(result: FitResult, texture: Texture) -> list[tuple[str, str, str | bytes]]:
    """What there is only after a fit with detail."""
    maps = detail_maps(result, texture.uv, texture.uv_triangles, len(texture.srgb))
    if maps is None:
        return []
    return [
        (
            "displacement.png",
            "fine displacements over the texture's plane, 16 bits",
            encode_png(maps.displacement),
        ),
        ("normal.png", "the same as a normal map", encode_png(maps.normal)),
        ("texture_offset.png", "differences from the model's albedo", encode_png(maps.texture_offset)),
        ("detail.ply", "dense mesh of the head with its fine detail", detailed_ply(result)),
    ]


def _posed_obj(result: FitResult, texture: Texture, material_file: str) -> str:
    vertices, normals = _surface(result, neutral=False)
    comments = (f"facefit: fitted head with its expression, pose removed; {_FRAME}",)
    return encode_obj(
        vertices,
        result.model.topology.triangles,
        texture.uv,
        texture.uv_triangles,
        normals,
        material_file,
        comments,
    )


def neutral_obj(result: FitResult) -> str:
    """The text of neutral.obj."""
    vertices, normals = _surface(result, neutral=True)
    comments = (f"facefit: fitted head, expression and pose removed; {_FRAME}",)
    return encode_obj(vertices, result.model.topology.triangles, normals=normals, comments=comments)


def _ply(result: FitResult) -> bytes:
    vertices, _ = _surface(result, neutral=False)
    with torch.no_grad():
        srgb = linear_to_srgb(result.scene.surface_albedo(result.model).clamp(0, 1)).numpy()
    comments = (
        f"facefit: fitted head with its expression, pose removed, colours are the fitted albedo; {_FRAME}",
    )
    return encode_ply(vertices, result.model.topology.triangles, srgb, comments)


def _npz(result: FitResult) -> bytes:
    stream = BytesIO()
    np.savez(stream, **parameter_arrays(result))  # type: ignore[arg-type]
    return stream.getvalue()


def _glb(result: FitResult, texture: Texture, described: dict[str, Any]) -> bytes:
    chosen = ("facefit", "model", "pose", "parameters", "scale")
    extras = {name: described[name] for name in chosen}
    # Whose they are limits what the file may be used for, as the model does; their places do not belong here.
    extras["landmarks"] = {name: described["landmarks"][name] for name in ("by", "licence_class")}
    return face_glb(result, texture, extras)


def _surface(
    result: FitResult, neutral: bool
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "vertices 3"]]:
    scene, model = result.scene, result.model
    with torch.no_grad():
        vertices = scene.neutral_shape(model) if neutral else scene.shape(model)
        return vertices.numpy(), vertex_normals(vertices, model.triangles).numpy()


_WRITERS: dict[str, Callable[[FitResult, int], str | bytes]] = {
    ".glb": lambda result, size: _glb(result, bake_texture(result, size), result_dict(result)),
    ".html": lambda result, size: report_html(result, bake_texture(result, size)),
    ".json": lambda result, _: encode_json(result_dict(result)),
    ".npz": lambda result, _: _npz(result),
    ".ply": lambda result, _: _ply(result),
    ".png": lambda result, _: encode_png(overlay(result)),
}
