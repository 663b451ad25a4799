"""Everything that explains a photograph, as one immutable value; its only passage to a vector and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import Lighting

# The blocks a fit may free, in the order in which they are packed.
BLOCKS = ("rotation", "translation", "focal", "identity", "expression", "albedo", "lighting", "offsets")


# Compared and hashed as the one object it is; comparing tensors by value has no single answer.
@dataclass(frozen=True, eq=False)
class Scene:
    """Identity, expression and albedo coefficients (standard deviations), pose, camera, light, offsets (mm).

    `offsets` are per-vertex displacements in the model frame, added to the model's shape, and `albedo_offsets`
    differences of linear RGB, added to its albedo; None means none.
    """

    identity: Float[Tensor, "identity"]
    expression: Float[Tensor, "expression"]
    albedo: Float[Tensor, "albedo"]
    pose: Pose
    camera: Camera
    lighting: Lighting
    offsets: Float[Tensor, "vertices 3"] | None = None
    albedo_offsets: Float[Tensor, "vertices 3"] | None = None

    @staticmethod
    def neutral(model: LinearFaceModel, camera: Camera, distance_mm: float = 600.0) -> Scene:
        """The mean face, frontal, in the middle of the picture, in ambient light."""
        return Scene(
            identity=torch.zeros(model.n_identity),
            expression=torch.zeros(model.n_expression),
            albedo=torch.zeros(model.n_albedo),
            pose=Pose.frontal(distance_mm),
            camera=camera,
            lighting=Lighting.ambient(1.0),
        )

    def shape(self, model: LinearFaceModel) -> Float[Tensor, "vertices 3"]:
        """The surface in the model frame, mm: identity, expression and offsets, without pose."""
        vertices = model.vertices(self.identity, self.expression)
        return vertices if self.offsets is None else vertices + self.offsets

    def neutral_shape(self, model: LinearFaceModel) -> Float[Tensor, "vertices 3"]:
        """The same person without expression."""
        vertices = model.vertices(self.identity, torch.zeros_like(self.expression))
        return vertices if self.offsets is None else vertices + self.offsets

    def surface_albedo(self, model: LinearFaceModel) -> Float[Tensor, "vertices 3"]:
        """Diffuse reflectance per vertex in linear RGB: the model's and its offsets; not clamped."""
        albedo = model.albedo(self.albedo)
        return albedo if self.albedo_offsets is None else albedo + self.albedo_offsets

    def block(self, name: str) -> Float[Tensor, "n"]:
        """One block as a flat vector; the focal length as its logarithm, which keeps it positive."""
        match name:
            case "rotation":
                return self.pose.rotation
            case "translation":
                return self.pose.translation_mm
            case "focal":
                return self.camera.focal_px.log().reshape(1)
            case "identity":
                return self.identity
            case "expression":
                return self.expression
            case "albedo":
                return self.albedo
            case "lighting":
                return self.lighting.coefficients.reshape(-1)
            case "offsets":
                if self.offsets is None:
                    raise ValueError(
                        "this scene has no offsets to free; start from zeros of shape (vertices, 3)"
                    )
                return self.offsets.reshape(-1)
        raise ValueError(f"a scene has no block {name!r}; it has {', '.join(BLOCKS)}")

    def size(self, name: str) -> int:
        """How many numbers a block has."""
        match name:
            case "rotation" | "translation":
                return 3
            case "focal":
                return 1
            case "lighting":
                return 27
        return self.block(name).numel()

    def layout(self, free: tuple[str, ...]) -> dict[str, slice]:
        """Where each freed block lies in the packed vector."""
        slices, start = {}, 0
        for name in BLOCKS:
            if name in free:
                stop = start + self.size(name)
                slices[name] = slice(start, stop)
                start = stop
        if len(slices) < len(free) and (unknown := set(free) - set(BLOCKS)):
            raise ValueError(f"a scene has no block {', '.join(sorted(unknown))}; it has {', '.join(BLOCKS)}")
        return slices

    def pack(self, free: tuple[str, ...]) -> Float[Tensor, "unknowns"]:
        """The freed blocks as one vector, in the order of `BLOCKS`."""
        blocks = [self.block(name) for name in self.layout(free)]
        return torch.cat(blocks) if blocks else self.identity.new_zeros(0)

    def with_packed(self, free: tuple[str, ...], x: Float[Tensor, "unknowns"]) -> Scene:
        """This scene with the freed blocks read from `x`; differentiable in `x`."""
        part = {name: x[where] for name, where in self.layout(free).items()}
        pose = Pose(
            part.get("rotation", self.pose.rotation), part.get("translation", self.pose.translation_mm)
        )
        camera = self.camera
        if "focal" in part:
            camera = camera.with_focal(part["focal"][0].exp())
        lighting = self.lighting
        if "lighting" in part:
            lighting = Lighting(part["lighting"].reshape(9, 3))
        offsets = self.offsets
        if "offsets" in part:
            offsets = part["offsets"].reshape(-1, 3)
        return replace(
            self,
            identity=part.get("identity", self.identity),
            expression=part.get("expression", self.expression),
            albedo=part.get("albedo", self.albedo),
            pose=pose,
            camera=camera,
            lighting=lighting,
            offsets=offsets,
        )

    def with_lighting(self, lighting: Lighting) -> Scene:
        return replace(self, lighting=lighting)

    def with_pose(self, pose: Pose) -> Scene:
        return replace(self, pose=pose)

    def to(self, device: torch.device | str) -> Scene:
        return replace(
            self,
            identity=self.identity.to(device),
            expression=self.expression.to(device),
            albedo=self.albedo.to(device),
            pose=Pose(self.pose.rotation.to(device), self.pose.translation_mm.to(device)),
            camera=replace(
                self.camera,
                focal_px=self.camera.focal_px.to(device),
                principal_point=self.camera.principal_point.to(device),
            ),
            lighting=Lighting(self.lighting.coefficients.to(device)),
            offsets=None if self.offsets is None else self.offsets.to(device),
            albedo_offsets=None if self.albedo_offsets is None else self.albedo_offsets.to(device),
        )
