"""A result whose tensors lie in main memory, free of gradients: what every file is written from."""

from __future__ import annotations

from dataclasses import replace

import torch

from facefit.fitting.result import FitResult
from facefit.models.camera import Pose
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene


def on_cpu(result: FitResult) -> FitResult:
    """The same fit, ready to be turned into arrays; cheap when it lies there already."""
    model = result.model if result.model.mean.device.type == "cpu" else result.model.to("cpu")
    return replace(result, scene=_detached(result.scene.to("cpu")), model=model)


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
