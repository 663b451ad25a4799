"""Where scene, model and renderer meet: the picture a scene predicts."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from facefit.mesh import vertex_normals
from facefit.models.camera import Camera
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.mouth_light import mouth_light
from facefit.rendering.interpolate import differentiable_barycentric, interpolate
from facefit.rendering.rasterize import Fragments, rasterize
from facefit.rendering.shade import eight_bits, lambertian, linear_to_srgb


@dataclass(frozen=True)
class Picture:
    """A rendered face: sRGB `color`, linear `albedo` and `irradiance`, `normals` in the model frame, mm.

    Outside `covered` colours and normals are zero and `depth` is infinite.
    """

    color: Float[Tensor, "height width 3"]
    albedo: Float[Tensor, "height width 3"]
    irradiance: Float[Tensor, "height width 3"]
    normals: Float[Tensor, "height width 3"]
    fragments: Fragments

    @property
    def covered(self) -> Bool[Tensor, "height width"]:
        return self.fragments.covered

    @property
    def depth(self) -> Float[Tensor, "height width"]:
        return self.fragments.depth

    @property
    def triangle(self) -> Int[Tensor, "height width"]:
        return self.fragments.triangle

    def __repr__(self) -> str:
        height, width, _ = self.color.shape
        share = 100 * float(self.covered.float().mean())
        return f"<Picture {width} x {height} px, {share:.0f} % of them face>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        stream = BytesIO()
        Image.fromarray(eight_bits(self.color)).save(stream, "PNG")
        return stream.getvalue()


def project(scene: Scene, points_model: Float[Tensor, "points 3"]) -> Float[Tensor, "points 2"]:
    """Points of the model frame to pixels of the photograph."""
    return scene.camera.project(scene.pose.apply(points_model))


def render(
    scene: Scene,
    model: LinearFaceModel,
    width: int | None = None,
    height: int | None = None,
    vertices: Float[Tensor, "vertices 3"] | None = None,
    albedo: Float[Tensor, "vertices 3"] | None = None,
) -> Picture:
    """The picture of a scene, at the camera's own size or scaled to `width` x `height`.

    Differentiable in every part of the scene wherever visibility does not change. `vertices` (model frame)
    and `albedo` (linear RGB) replace the model's own. Behind the lips it is darkened by the light they take.
    """
    width = scene.camera.width if width is None else width
    height = scene.camera.height if height is None else height
    vertices = scene.shape(model) if vertices is None else vertices
    albedo = scene.surface_albedo(model) if albedo is None else albedo
    camera_points = scene.pose.apply(vertices)
    pixels = scene.camera.project(camera_points) * _scale(scene.camera, width, height).to(vertices)
    depth = camera_points[:, 2]
    fragments = rasterize(pixels, depth, model.triangles, height, width)
    if torch.is_grad_enabled() and (pixels.requires_grad or depth.requires_grad):
        fragments = differentiable_barycentric(fragments, pixels, depth, model.triangles)

    light = mouth_light(model, vertices)
    seen_albedo = albedo if light is None else albedo * light[:, None]
    attributes = torch.cat([vertex_normals(vertices, model.triangles), seen_albedo], dim=1)
    maps = interpolate(fragments, attributes, model.triangles)
    normals = torch.nn.functional.normalize(maps[..., :3], dim=-1)
    irradiance = scene.lighting.irradiance(normals.reshape(-1, 3)).reshape(height, width, 3)
    irradiance = irradiance * fragments.covered[..., None]
    color = linear_to_srgb(lambertian(maps[..., 3:], irradiance))
    return Picture(color, maps[..., 3:], irradiance, normals, fragments)


def _scale(camera: Camera, width: int, height: int) -> Float[Tensor, "2"]:
    return torch.tensor([width / camera.width, height / camera.height])
