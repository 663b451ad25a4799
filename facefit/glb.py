"""A fitted face as glTF: the neutral person, the expressions as named morph targets, the photograph's camera."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

import facefit
from facefit.displacement import detail_maps
from facefit.expressions import arkit_groups, is_activation
from facefit.fitting.result import FitResult
from facefit.gltf import GltfCamera, GltfMesh, MorphTarget, encode_glb
from facefit.mesh import split_seams, vertex_normals
from facefit.texture import Texture

# Morph targets are kept in the model's order up to this many bytes; what is dropped of the fitted expression
# goes into the correction below. ARKit-like models fit easily, dense statistical ones of 50 000 vertices do
# not.
TARGET_BYTES = 5_000_000

# The name of the one target that is no expression: what the weights, clamped to 0-1, leave of the fitted
# expression.
CORRECTION = "fitCorrection"

# A correction smaller than this is left away, and smaller displacements of a target count as none.
NEGLIGIBLE_MM = 0.01

_OPENGL = np.diag([1.0, -1.0, -1.0])


def face_glb(result: FitResult, texture: Texture, extras: dict[str, Any]) -> bytes:
    """The bytes of face.glb: metres, the model frame (glTF's own: y up, the face looks along +z).

    With the weights in the file the mesh is the fitted, posed one in the model frame; at zero it is the
    neutral person. The camera node, not the mesh, carries the head's pose.
    """
    model, scene = result.model, result.scene
    with torch.no_grad():
        neutral = scene.neutral_shape(model)
        posed = scene.shape(model).numpy()
        normals = vertex_normals(neutral, model.triangles).numpy()
    base = neutral.numpy()
    split = split_seams(model.topology.triangles, texture.uv_triangles)
    targets = [
        MorphTarget(t.name, t.delta[split.vertex] / 1000, t.weight)
        for t in expression_targets(result, posed - base)
    ]
    maps = detail_maps(result, texture.uv, texture.uv_triangles, len(texture.srgb))
    mesh = GltfMesh(
        vertices_m=base[split.vertex] / 1000,
        normals=normals[split.vertex],
        uv=texture.uv[split.uv],
        triangles=split.triangles,
        texture=encode_jpeg(texture.srgb, quality=92),
        targets=targets,
        normal_map=None if maps is None else encode_jpeg(maps.normal, quality=95),
    )
    return encode_glb(mesh, photo_camera(result), "face", f"facefit {facefit.__version__}", extras)


def expression_targets(
    result: FitResult, deformation_mm: Float[np.ndarray, "vertices 3"], budget: int = TARGET_BYTES
) -> list[MorphTarget]:
    """A target per expression (ARKit's spelling, millimetres here), and one for what they leave of the
    deformation.

    At weight 1 an expression is the model's published shape: coefficient = weight / unit.
    """
    model = result.model
    unit = model.expression_unit.numpy()
    basis = model.expression_basis.numpy()
    activation = result.scene.expression.numpy() * unit
    targets, used, explained = [], 0, np.zeros_like(deformation_mm)
    for name, group in arkit_groups(model.expression_names).items():
        delta = sum(basis[k] / unit[k] for k in group)
        delta[np.abs(delta).max(1) < NEGLIGIBLE_MM] = 0
        moved = np.flatnonzero(delta.any(1))
        used += 12 * min(len(delta), 4 * len(moved) // 3)
        if used > budget:
            break
        weight = float(activation[group].mean())
        if is_activation(name):
            weight = min(max(weight, 0.0), 1.0)
        explained[moved] += weight * delta[moved]
        targets.append(MorphTarget(name, delta, weight))
    left = deformation_mm - explained
    if np.abs(left).max() > NEGLIGIBLE_MM:
        targets.append(MorphTarget(CORRECTION, left, 1.0))
    return targets


def photo_camera(result: FitResult) -> GltfCamera:
    """The camera of the photograph around a head at rest. glTF cannot shift a lens; the extras name the true
    centre.
    """
    camera, pose = result.scene.camera, result.scene.pose
    rotation = pose.camera_from_model.double().numpy()
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.T @ _OPENGL
    matrix[:3, 3] = -rotation.T @ pose.translation_mm.double().numpy() / 1000
    return GltfCamera(
        model_from_camera=matrix,
        vertical_fov_rad=2 * math.atan(0.5 * camera.height / float(camera.focal_px)),
        aspect=camera.width / camera.height,
        extras={
            "width_px": camera.width,
            "height_px": camera.height,
            "focal_px": float(camera.focal_px),
            "principal_point_px": [float(x) for x in camera.principal_point],
        },
    )


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
    return stream.getvalue()
