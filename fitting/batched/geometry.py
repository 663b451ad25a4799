"""Scenes of many photographs as tensors with a leading photograph axis, and how their points project.

The arithmetic is that of the single fit, term by term; only the layout differs, so that a GPU has enough to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.models.camera import FACING
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints

# The packed order of a scene; every photograph has all of them, and a stage frees some.
ORDER = ("rotation", "translation", "focal", "identity", "expression", "albedo", "lighting")
GEOMETRY = ORDER[:5]
COLOUR = ORDER[5:]


@dataclass(frozen=True, eq=False)
class Scenes:
    """The packed vectors of B scenes (log focal length, light colour fastest) and their principal points."""

    x: Float[Tensor, "photos unknowns"]
    centre: Float[Tensor, "photos 2"]
    layout: dict[str, slice]

    @staticmethod
    def of(scenes: list[Scene], device: torch.device | str) -> Scenes:
        x = torch.stack([scene.pack(ORDER) for scene in scenes]).to(device)
        centre = torch.stack([scene.camera.principal_point for scene in scenes]).to(device)
        return Scenes(x, centre, scenes[0].layout(ORDER))

    def __getitem__(self, block: str) -> Float[Tensor, "photos n"]:
        return self.x[:, self.layout[block]]

    @property
    def shape(self) -> Float[Tensor, "photos shape"]:
        """Identity and expression side by side, as the gathered bases have them."""
        return self.x[:, self.layout["identity"].start : self.layout["expression"].stop]

    @property
    def light(self) -> Float[Tensor, "photos 9 3"]:
        return self["lighting"].reshape(-1, 9, 3)

    @property
    def focal(self) -> Float[Tensor, "photos"]:
        return self["focal"][:, 0].exp()

    def with_x(self, x: Float[Tensor, "photos unknowns"]) -> Scenes:
        return Scenes(x, self.centre, self.layout)

    def columns(self, blocks: tuple[str, ...]) -> Int[Tensor, "n"]:
        """Where the blocks lie in the packed vector, one after the other in the packed order."""
        found = [
            torch.arange(self.layout[b].start, self.layout[b].stop, device=self.x.device)
            for b in ORDER
            if b in blocks
        ]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=self.x.device)


def skew(v: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """[v]x with [v]x u = v x u."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape, 3)


def camera_rotations(
    w: Float[Tensor, "photos 3"],
) -> tuple[Float[Tensor, "photos 3 3"], Float[Tensor, "photos 3 3"]]:
    """`Pose.camera_from_model` and the right Jacobian of SO(3) for each rotation vector."""
    angle2 = (w * w).sum(-1)[:, None, None]
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - angle2 / 24, (1 - torch.cos(angle)) / safe)
    c = torch.where(small, 1 / 6 - angle2 / 120, (angle - torch.sin(angle)) / (safe * angle))
    cross = skew(w)
    square = cross @ cross
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    facing = torch.tensor(FACING, dtype=w.dtype, device=w.device)
    return facing @ (eye + a * cross + b * square), eye - b * cross + c * square


@dataclass(frozen=True, eq=False)
class Projected:
    """Points of each photograph in the model frame, in camera axes and in pixels, with the motion between."""

    model: Float[Tensor, "photos points 3"]
    camera: Float[Tensor, "photos points 3"]
    pixels: Float[Tensor, "photos points 2"]
    rotation: Float[Tensor, "photos 3 3"]
    right_jacobian: Float[Tensor, "photos 3 3"]
    focal: Float[Tensor, "photos"]
    centre: Float[Tensor, "photos 2"]

    def by_model_point(self) -> Float[Tensor, "photos points 2 3"]:
        """How a pixel moves with its point in the model frame."""
        return self.by_camera_point() @ self.rotation[:, None]

    def by_camera_point(self) -> Float[Tensor, "photos points 2 3"]:
        z = self.camera[..., 2]
        relative = self.pixels - self.centre[:, None]
        zero, scale = torch.zeros_like(z), self.focal[:, None] / z
        first = torch.stack([scale, zero, -relative[..., 0] / z], -1)
        second = torch.stack([zero, scale, -relative[..., 1] / z], -1)
        return torch.stack([first, second], -2)

    def by_rigid(self) -> Float[Tensor, "photos points 2 7"]:
        """How a pixel moves with rotation vector, translation and log focal length."""
        rotation = -self.by_model_point() @ skew(self.model) @ self.right_jacobian[:, None]
        relative = (self.pixels - self.centre[:, None])[..., None]
        return torch.cat([rotation, self.by_camera_point(), relative], -1)


def project(scenes: Scenes, points: Float[Tensor, "photos points 3"]) -> Projected:
    """Points of the model frame to pixels of each photograph."""
    rotation, right_jacobian = camera_rotations(scenes["rotation"])
    camera = points @ rotation.transpose(1, 2) + scenes["translation"][:, None]
    focal = scenes.focal
    pixels = focal[:, None, None] * camera[..., :2] / camera[..., 2:] + scenes.centre[:, None]
    return Projected(points, camera, pixels, rotation, right_jacobian, focal, scenes.centre)


def points_at(scenes: Scenes, points: SurfacePoints) -> Float[Tensor, "photos points 3"]:
    """Fixed surface points of each photograph's face, model frame."""
    mean, basis = points.mean.to(scenes.x), points.basis.to(scenes.x)
    return mean + torch.einsum("pik,bk->bpi", basis, scenes.shape)
