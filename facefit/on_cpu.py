"""A result whose tensors lie in main memory, free of gradients: what every file is written from."""

from __future__ import annotations

from dataclasses import replace

import torch

from facefit.fitting.result import FitResult
from facefit.models.camera import Pose
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene


def on_cpu(result: FitResult) -> FitResult:
    """The same fit, ready to be turned into arrays; itself when it is, with what it has worked out already."""
    if not _is_one(result):
        kind = type(result).__name__
        raise TypeError(f"a {kind} is not the fit of one photograph: of several, give one of its `results`")
    if all(_ready(tensor) for tensor in _tensors(result)):
        return result
    model = result.model if result.model.mean.device.type == "cpu" else result.model.to("cpu")
    return replace(result, scene=_detached(result.scene.to("cpu")), model=model)


def _is_one(result: object) -> bool:
    return isinstance(result, FitResult)


def _tensors(result: FitResult) -> list[torch.Tensor]:
    scene = result.scene
    optional = [tensor for tensor in (scene.offsets, scene.albedo_offsets) if tensor is not None]
    pose, camera = scene.pose, scene.camera
    return [
        result.model.mean,
        scene.identity,
        scene.expression,
        scene.albedo,
        pose.rotation,
        pose.translation_mm,
        camera.focal_px,
        camera.principal_point,
        scene.lighting.coefficients,
        *optional,
    ]


def _ready(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and not tensor.requires_grad and tensor.dtype == torch.float32


def _detached(scene: Scene) -> Scene:
    def plain(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().float()

    return Scene(
        identity=plain(scene.identity),
        expression=plain(scene.expression),
        albedo=plain(scene.albedo),
        pose=Pose(plain(scene.pose.rotation), plain(scene.pose.translation_mm)),
        camera=replace(
            scene.camera,
            focal_px=plain(scene.camera.focal_px),
            principal_point=plain(scene.camera.principal_point),
        ),
        lighting=Lighting(plain(scene.lighting.coefficients)),
        offsets=None if scene.offsets is None else plain(scene.offsets),
        albedo_offsets=None if scene.albedo_offsets is None else plain(scene.albedo_offsets),
    )
