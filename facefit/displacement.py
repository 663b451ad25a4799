"""Fine detail as maps over the texture's plane: displacement, normals and colour offsets; and as a dense mesh.

The maps belong to the mesh that is written beside them (mesh.obj, face.glb), whose vertices hold their part of the
offsets already: they say what is finer than that mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt16

from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.refinement import Refinement, quarter
from facefit.fitting.detail.stage import Detail
from facefit.fitting.result import FitResult
from facefit.fitting.surface_samples import face_triangles
from facefit.mesh import vertex_normals
from facefit.on_cpu import on_cpu
from facefit.ply import encode_ply
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import linear_to_srgb
from facefit.texture import Texels, padded

# A map of nothing has this scale, so that nobody divides by zero.
LEAST_SCALE_MM, LEAST_SCALE = 0.01, 0.01


@dataclass(frozen=True)
class DetailMaps:
    """Row 0 at the top (v = 1). What each value means is in `detail_entry`."""

    displacement: UInt16[np.ndarray, "size size"]
    normal: UInt8[np.ndarray, "size size 3"]
    texture_offset: UInt8[np.ndarray, "size size 3"]


def detail_entry(result: FitResult) -> dict[str, Any] | None:
    """What result.json says of the maps; None without detail."""
    detail = result.detail
    if detail is None:
        return None
    return {
        "vertices": detail.refinement.n_vertices,
        "rms_mm": float(np.sqrt(np.mean(detail.displacement_mm**2))),
        "displacement": {
            "file": "displacement.png",
            "scale_mm": displacement_scale_mm(detail),
            "meaning": "mm = (value - 32768) / 32767 * scale_mm, along the normals of mesh.obj, outwards; 16 bits",
        },
        "normal": {
            "file": "normal.png",
            "meaning": "tangent space of the texture coordinates, red along u, green along v (up), blue outwards; "
            "component = value / 127.5 - 1",
        },
        "texture_offset": {
            "file": "texture_offset.png",
            "scale": offset_scale(result),
            "meaning": "linear RGB = (value - 128) / 127 * scale, added to the model's fitted albedo",
        },
    }


def displacement_scale_mm(detail: Detail) -> float:
    return max(float(np.abs(detail.displacement_mm).max()), LEAST_SCALE_MM)


def offset_scale(result: FitResult) -> float:
    return max(float(np.abs(_albedo_offsets(result)).max()), LEAST_SCALE)


def detail_maps(
    result: FitResult,
    uv: Float[np.ndarray, "uvs 2"],
    uv_triangles: Int[np.ndarray, "triangles 3"],
    size: int,
) -> DetailMaps | None:
    """Rasterised over a texture layout of the result's model; None without detail."""
    result = on_cpu(result)
    detail = result.detail
    if detail is None:
        return None
    refinement = detail.refinement
    chosen = face_triangles(result.model.topology, result.model.n_vertices)
    fine_uv, fine_triangles = refined_layout(uv, uv_triangles[chosen], len(refinement.middles))
    texels = _texels(fine_uv, fine_triangles, refinement.triangles, size)
    normal = tangent_normals(result, detail, fine_uv, fine_triangles)
    values = np.column_stack([detail.displacement_mm, _albedo_offsets(result)])
    found = texels.mixed(torch.from_numpy(values).float())
    at_uv = _texels(fine_uv, fine_triangles, fine_triangles, size)
    bent = torch.nn.functional.normalize(at_uv.mixed(torch.from_numpy(normal).float()), dim=1)
    image = padded(texels.image(torch.cat([found, bent], 1)), texels.image(torch.ones(len(found), 1))).numpy()
    height = image[0] / displacement_scale_mm(detail)
    color = image[1:4] / offset_scale(result)
    return DetailMaps(
        displacement=(np.rint(height.clip(-1, 1) * 32767) + 32768).astype(np.uint16),
        normal=np.rint((image[4:7].clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0),
        texture_offset=(np.rint(color.clip(-1, 1) * 127) + 128).astype(np.uint8).transpose(1, 2, 0),
    )


def detailed_surface(
    result: FitResult,
) -> tuple[Float[np.ndarray, "fine 3"], Int[np.ndarray, "triangles 3"], Float[np.ndarray, "fine 3"]]:
    """Vertices (mm, model frame), triangles and sRGB albedo of the whole head with its detail."""
    result = on_cpu(result)
    detail, model = result.detail, result.model
    if detail is None:
        raise ValueError("this fit has no detail; fit with stages=DETAILED")
    points, normals, operators = _base(result, detail.refinement)
    vertices = points + detail.displacement_mm[:, None] * normals
    albedo = detail.refinement.carry(result.scene.surface_albedo(model).numpy()) + detail.albedo_offsets
    srgb = linear_to_srgb(torch.from_numpy(albedo).clamp(0, 1)).numpy()
    return vertices, detail.refinement.all_triangles, srgb


def detailed_ply(result: FitResult) -> bytes:
    """The same as a PLY file."""
    vertices, triangles, srgb = detailed_surface(result)
    comments = ("facefit: fitted head with its expression and fine detail, pose removed, millimetres",)
    return encode_ply(vertices, triangles, srgb, comments)


def refined_layout(
    uv: Float[np.ndarray, "uvs 2"], triangles: Int[np.ndarray, "triangles 3"], levels: int
) -> tuple[Float[np.ndarray, "fine 2"], Int[np.ndarray, "fine_triangles 3"]]:
    """Texture coordinates cut as `refine` cuts a mesh: triangle i of one is triangle i of the other."""
    fine = triangles.astype(np.int64)
    for _ in range(levels):
        fine, middles = quarter(fine, len(uv))
        uv = np.concatenate([uv, uv[middles].mean(1)])
    return uv, fine


def tangent_normals(
    result: FitResult,
    detail: Detail,
    uv: Float[np.ndarray, "fine 2"],
    uv_triangles: Int[np.ndarray, "fine_triangles 3"],
) -> Float[np.ndarray, "fine 3"]:
    """Per texture coordinate the detailed normal along u, along v and outwards of the base surface."""
    points, normals, operators = _base(result, detail.refinement)
    triangles = detail.refinement.triangles
    slope = operators.at_vertices(operators.gradient(detail.displacement_mm.astype(np.float64)))
    corner, plane = points[triangles], uv[uv_triangles]
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    (du1, dv1), (du2, dv2) = (plane[:, 1] - plane[:, 0]).T, (plane[:, 2] - plane[:, 0]).T
    turned = np.sign(du1 * dv2 - du2 * dv1)[:, None]
    along_u = (first * dv2[:, None] - second * dv1[:, None]) * turned
    summed, side = np.zeros((len(uv), 3)), np.zeros((len(uv), 1))
    vertex = np.zeros(len(uv), dtype=np.int64)
    for k in range(3):
        np.add.at(summed, uv_triangles[:, k], along_u)
        np.add.at(side, uv_triangles[:, k], turned)
        vertex[uv_triangles[:, k]] = triangles[:, k]
    n, bent = normals[vertex], normals[vertex] - slope[vertex]
    tangent = summed - (summed * n).sum(1, keepdims=True) * n
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    upward = np.cross(n, tangent) * np.where(side < 0, -1.0, 1.0)
    local = np.stack([(bent * axis).sum(1) for axis in (tangent, upward, n)], 1)
    unit: Float[np.ndarray, "fine 3"] = local / np.maximum(
        np.linalg.norm(local, axis=1, keepdims=True), 1e-12
    )
    return unit


def _base(
    result: FitResult, refinement: Refinement
) -> tuple[Float[np.ndarray, "fine 3"], Float[np.ndarray, "fine 3"], SurfaceOperators]:
    """The refined surface without displacement: points, unit normals, operators."""
    with torch.no_grad():
        shape = result.scene.shape(result.model)
        normals = vertex_normals(shape, result.model.triangles).numpy()
    points = refinement.positions(shape.numpy(), normals)
    return points, refinement.normals(normals), SurfaceOperators.of(points, refinement.triangles)


def _albedo_offsets(result: FitResult) -> Float[np.ndarray, "fine 3"]:
    """All of them: what the scene's vertices hold and the finer rest."""
    detail, own = result.detail, result.scene.albedo_offsets
    assert detail is not None
    return detail.albedo_offsets + (0 if own is None else detail.refinement.carry(own.detach().cpu().numpy()))


def _texels(
    uv: Float[np.ndarray, "fine 2"],
    uv_triangles: Int[np.ndarray, "fine_triangles 3"],
    corners: Int[np.ndarray, "fine_triangles 3"],
    size: int,
) -> Texels:
    """The plane's covered texels as mixtures of the corners' values."""
    pixels = torch.from_numpy(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size)
    flat = torch.ones(len(uv), dtype=torch.float64)
    fragments = rasterize(pixels, flat, torch.from_numpy(uv_triangles), size, size, cull_back=False)
    triangle = fragments.triangle.reshape(-1)
    covered = (triangle >= 0).nonzero()[:, 0]
    vertices = torch.from_numpy(corners)[triangle[covered].long()]
    return Texels(covered, vertices, fragments.barycentric.reshape(-1, 3)[covered], size)
