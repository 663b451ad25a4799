"""The dense photometric term for many photographs at once, in torch; `residuals.photometric` is its oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facefit.fitting.batched.geometry import COLOUR, GEOMETRY, Projected, Scenes, project
from facefit.fitting.batched.terms import AbstractTerm
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.residuals.photometric import VISIBILITY_STEPS, worth
from facefit.fitting.surface_samples import SurfaceSamples
from facefit.fitting.visibility import GRAZING_COSINE, HIDDEN_MM, VISIBILITY_PX
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import irradiance_basis
from facefit.rendering.rasterize import nearest_depth
from facefit.rendering.shade import linear_to_srgb


@dataclass(frozen=True, eq=False)
class Levels:
    """One pyramid level of each photograph, padded to a common size; `size` is its own."""

    image: Float[Tensor, "photos height width 3"]
    usable: Bool[Tensor, "photos height width"]
    size: Int[Tensor, "photos"]
    scale: Float[Tensor, "photos"]
    origin: Float[Tensor, "photos 2"]

    @staticmethod
    def of(levels: Sequence[PyramidLevel], device: torch.device | str) -> Levels:
        sizes = [len(level.image) for level in levels]
        side = max(sizes)
        image = np.zeros((len(levels), side, side, 3), dtype=np.float32)
        usable = np.zeros((len(levels), side, side), dtype=bool)
        for b, level in enumerate(levels):
            image[b, : sizes[b], : sizes[b]] = level.image
            usable[b, : sizes[b], : sizes[b]] = level.usable
        return Levels(
            torch.from_numpy(image).to(device),
            torch.from_numpy(usable).to(device),
            torch.tensor(sizes, device=device),
            torch.tensor([level.scale for level in levels], device=device),
            torch.tensor(np.stack([level.origin for level in levels]), dtype=torch.float32, device=device),
        )


@dataclass(frozen=True, eq=False)
class Gathered:
    """A model's surface samples on a device, and its mean shape for visibility."""

    geometry_mean: Float[Tensor, "samples 9"]
    geometry_basis: Float[Tensor, "samples 9 shape"]
    albedo_mean: Float[Tensor, "samples 3"]
    albedo_basis: Float[Tensor, "samples 3 albedo"]
    area_mm2: Float[Tensor, "samples"]
    core: Bool[Tensor, "samples"]
    corner: Int[Tensor, "samples 3"]
    barycentric: Float[Tensor, "samples 3"]
    mean: Float[Tensor, "vertices 3"]
    basis: Float[Tensor, "shape coordinates"]
    triangles: Int[Tensor, "triangles 3"]

    @staticmethod
    def of(model: LinearFaceModel, samples: SurfaceSamples, device: torch.device | str) -> Gathered:
        def on(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        basis = torch.cat([model.identity_basis, model.expression_basis]).flatten(1)
        return Gathered(
            on(samples.geometry_mean),
            on(samples.geometry_basis),
            on(samples.albedo_mean),
            on(samples.albedo_basis),
            on(samples.area_mm2).float(),
            on(samples.core),
            on(model.topology.triangles[samples.triangles].astype(np.int64)),
            on(samples.barycentric).float(),
            model.mean.to(device),
            basis.to(device),
            model.triangles.to(device),
        )


@dataclass(frozen=True, eq=False)
class PhotometricTerm(AbstractTerm):
    """Predicted minus observed sRGB at every sample of every photograph; hidden ones have weight zero."""

    samples: Gathered
    levels: Levels
    independent: float
    core_only: bool
    with_geometry: bool
    sigma_floor: float = 0.002
    share: Float[Tensor, "photos samples"] | None = None
    weight: Float[Tensor, "photos samples"] | None = None
    age: int = 0

    @property
    def blocks(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*GEOMETRY, *COLOUR) if self.with_geometry else COLOUR

    def freeze(self, scenes: Scenes) -> PhotometricTerm:
        if self.share is not None and self.age + 1 < VISIBILITY_STEPS:
            share, age = self.share, self.age + 1
        else:
            footprint = self.footprint(scenes)
            share, age = footprint / footprint.sum(1, keepdim=True).clamp(min=1e-12), 0
        error = (self.differences(scenes) ** 2).mean(-1).sqrt()
        seen = share > 0
        core = seen & self.samples.core
        counted = torch.where(core.any(1, keepdim=True), core, seen)
        nan = torch.full_like(error, torch.nan)
        median = torch.where(counted, error, nan).nanquantile(0.5, 1).nan_to_num()
        sigma = (1.3 * median).clamp(min=self.sigma_floor)[:, None]
        robust = 1 / (1 + (error / (2.5 * sigma)) ** 2) ** 2
        independent = torch.tensor([[worth(self.independent, size)] for size in sigma[:, 0].tolist()])
        independent = independent.to(share.device)
        return replace(self, share=share, age=age, weight=(independent * share * robust).sqrt() / sigma)

    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]:
        assert self.weight is not None
        return (self.weight[..., None] * self.differences(scenes)).flatten(1)

    def differences(self, scenes: Scenes) -> Float[Tensor, "photos samples 3"]:
        state = self._state(scenes)
        return (state.predicted - state.observed) * state.inside[..., None]

    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]:
        assert self.weight is not None
        state = self._state(scenes)
        scale = (self.weight * state.inside)[..., None]
        values = (scale * (state.predicted - state.observed)).flatten(1)
        slope = scale * state.slope
        shade = (slope * state.light)[..., None] * self.samples.albedo_basis
        factor = slope * state.albedo
        light = torch.zeros(*factor.shape, 9, 3, device=factor.device)
        for c in range(3):
            light[:, :, c, :, c] = factor[:, :, c, None] * state.harmonics
        parts = [shade, light.flatten(-2)]
        if self.with_geometry:
            parts = [*self._by_geometry(scenes, state, scale, factor), *parts]
        return values, torch.cat(parts, -1).flatten(1, 2)

    def for_curvature(
        self, jacobian: Float[Tensor, "photos rows columns"]
    ) -> Float[Tensor, "photos rows columns"]:
        """As the single fit's step: of what shape does to a sample's three channels, only their main direction."""
        if not self.with_geometry:
            return jacobian
        shape = slice(7, 7 + self.samples.geometry_basis.shape[2])
        part = jacobian[..., shape]
        part = part.reshape(len(part), -1, 3, part.shape[2])
        power = part @ part.transpose(-1, -2)
        # Squaring a matrix four times leaves of it the direction of its largest eigenvalue.
        for _ in range(4):
            power = power / power.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-30)
            power = power @ power
        largest = power.diagonal(dim1=-2, dim2=-1).argmax(-1)
        main = power.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 3))
        main = torch.nn.functional.normalize(main, dim=-1)
        jacobian = jacobian.clone()
        jacobian[..., shape] = (main.transpose(-1, -2) @ (main @ part)).flatten(1, 2)
        return jacobian

    def _by_geometry(
        self, scenes: Scenes, state: State, scale: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Derivative by rotation, translation, focal and by the shape coefficients."""
        by_pixel = -scale[..., None] * state.gradient * self.levels.scale[:, None, None, None]
        rigid = by_pixel @ state.seen.by_rigid()
        by_point = by_pixel @ state.seen.by_model_point()
        # d colour = q . dn with n = m / |m|, m = a x b: da . (b x q) + db . (q x a), q across n and over |m|.
        dn = torch.einsum("bskj,bkc->bscj", harmonics_slope(state.normal), scenes.light)
        along = (dn * state.normal[:, :, None]).sum(-1, keepdim=True) * state.normal[:, :, None]
        q = factor[..., None] * (dn - along) / state.length[..., None, None]
        a, b = state.geometry[..., None, 3:6].expand_as(q), state.geometry[..., None, 6:9].expand_as(q)
        rows = torch.cat([by_point, torch.linalg.cross(b, q), torch.linalg.cross(q, a)], -1)
        photos, samples = rows.shape[:2]
        # One product per sample over all photographs: (3 photos, 9) by (9, shape).
        tall = rows.permute(1, 0, 2, 3).reshape(samples, photos * 3, 9)
        shape = torch.bmm(tall, self.samples.geometry_basis)
        return rigid, shape.reshape(samples, photos, 3, -1).permute(1, 0, 2, 3)

    def _state(self, scenes: Scenes) -> State:
        s = self.samples
        geometry = s.geometry_mean + torch.einsum("sik,bk->bsi", s.geometry_basis, scenes.shape)
        albedo = s.albedo_mean + torch.einsum("sik,bk->bsi", s.albedo_basis, scenes["albedo"])
        m = torch.linalg.cross(geometry[..., 3:6], geometry[..., 6:9])
        length = m.norm(dim=-1).clamp(min=1e-12)
        normal = m / length[..., None]
        harmonics = irradiance_basis(normal)
        light = harmonics @ scenes.light
        linear = albedo * light
        predicted = linear_to_srgb(linear)
        curve = (predicted + 0.055) / linear.clamp(min=1e-9) / 2.4
        slope = torch.where(linear <= 0.0031308, torch.full_like(linear, 12.92), curve)
        slope = torch.where(linear > 1, torch.full_like(linear, 1.055 / 2.4), slope)
        seen = project(scenes, geometry[..., :3])
        texel = (seen.pixels - self.levels.origin[:, None]) * self.levels.scale[:, None, None] - 0.5
        observed, gradient, inside = read_spline(self.levels, texel)
        inside = inside & (seen.camera[..., 2] > 1)
        return State(
            geometry,
            albedo,
            normal,
            length,
            harmonics,
            light,
            predicted,
            slope,
            seen,
            observed,
            gradient,
            inside,
        )

    def footprint(self, scenes: Scenes) -> Float[Tensor, "photos samples"]:
        """Texels each visible sample covers; zero for those that are hidden, turned away or outside."""
        s, photos = self.samples, len(scenes.x)
        vertices = (s.mean.reshape(-1) + scenes.shape @ s.basis).reshape(photos, -1, 3)
        seen = project(scenes, vertices)
        texels = (seen.pixels - self.levels.origin[:, None]) * self.levels.scale[:, None, None]
        size = self.levels.size
        # In units of the photograph: all levels ask the same z-buffer.
        in_photo = size / self.levels.scale
        shrink = torch.clamp(VISIBILITY_PX / in_photo, max=1.0)
        side = torch.round(in_photo * shrink).clamp(min=1)
        coarse = texels * (shrink / self.levels.scale)[:, None, None]
        depth = nearest_depth(coarse, seen.camera[..., 2], s.triangles, int(side.max()))
        corners = seen.camera[:, s.corner]
        point = (corners * s.barycentric[..., None]).sum(2)
        normal = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        normal = torch.nn.functional.normalize(normal, dim=-1)
        cosine = -(normal * point).sum(-1) / point.norm(dim=-1)
        pixel = scenes.focal[:, None, None] * point[..., :2] / point[..., 2:] + scenes.centre[:, None]
        texel = (pixel - self.levels.origin[:, None]) * self.levels.scale[:, None, None]
        limit = (size[:, None, None] - 1.5).to(texel)
        inside = ((texel >= 1.5) & (texel < limit)).all(-1) & (cosine > GRAZING_COSINE)
        if self.core_only:
            inside &= s.core
        column, row = texel.nan_to_num().clamp(0, self.levels.usable.shape[1] - 1).long().unbind(-1)
        photo = torch.arange(photos, device=texel.device)[:, None]
        seen_at = texel.nan_to_num() * (shrink / self.levels.scale)[:, None, None]
        place, line = seen_at.clamp(0, depth.shape[1] - 1).long().unbind(-1)
        buffered = depth[photo, line, place]
        usable = self.levels.usable[photo, row, column]
        visible = inside & usable & (point[..., 2] <= buffered + HIDDEN_MM)
        focal = (scenes.focal * self.levels.scale)[:, None]
        return torch.where(visible, s.area_mm2 * cosine * (focal / point[..., 2]) ** 2, 0.0)


@dataclass(frozen=True, eq=False)
class State:
    """Everything known of the samples at given scenes."""

    geometry: Tensor
    albedo: Tensor
    normal: Tensor
    length: Tensor
    harmonics: Tensor
    light: Tensor
    predicted: Tensor
    slope: Tensor
    seen: Projected
    observed: Tensor
    gradient: Tensor
    inside: Tensor


def harmonics_slope(normal: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9 3"]:
    """Derivative of `irradiance_basis` by the normal."""
    x, y, z = normal.unbind(-1)
    zero = torch.zeros_like(x)
    b1 = torch.full_like(x, 2 / 3 * math.sqrt(3 / (4 * math.pi)))
    b2 = 1 / 8 * math.sqrt(15 / math.pi)
    b20 = 1 / 16 * math.sqrt(5 / math.pi)
    rows = [
        (zero, zero, zero),
        (zero, b1, zero),
        (zero, zero, b1),
        (b1, zero, zero),
        (b2 * y, b2 * x, zero),
        (zero, b2 * z, b2 * y),
        (zero, zero, 6 * b20 * z),
        (b2 * z, zero, b2 * x),
        (b2 * x, -b2 * y, zero),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def read_spline(
    levels: Levels, texel: Float[Tensor, "photos n 2"]
) -> tuple[Float[Tensor, "photos n 3"], Float[Tensor, "photos n 3 2"], Bool[Tensor, "photos n"]]:
    """Value and gradient (by texel) of each photograph's cubic B-spline; what lies within two texels of the border
    reads 0."""
    x, y = texel.unbind(-1)
    limit = (levels.size[:, None] - 2).to(x)
    inside = (x >= 1) & (y >= 1) & (x < limit) & (y < limit)
    x, y = torch.where(inside, x, torch.ones_like(x)), torch.where(inside, y, torch.ones_like(y))
    column, row = x.floor().long(), y.floor().long()
    (wx, sx), (wy, sy) = _spline(x - column), _spline(y - row)
    photos, side = levels.image.shape[:2]
    flat = levels.image.reshape(photos, -1, 3)
    value = torch.zeros(*x.shape, 3, device=x.device)
    gradient = torch.zeros(*x.shape, 3, 2, device=x.device)
    for i in range(4):
        for j in range(4):
            index = ((row - 1 + i).clamp(max=side - 1) * side + (column - 1 + j).clamp(max=side - 1))[
                ..., None
            ]
            colour = flat.gather(1, index.expand(-1, -1, 3))
            value += (wy[i] * wx[j])[..., None] * colour
            gradient[..., 0] += (wy[i] * sx[j])[..., None] * colour
            gradient[..., 1] += (sy[i] * wx[j])[..., None] * colour
    kept = inside[..., None]
    return value * kept, gradient * kept[..., None], inside


def _spline(t: Float[Tensor, "*n"]) -> tuple[list[Tensor], list[Tensor]]:
    """Cubic B-spline weights of the four texels around a point, and their slopes."""
    s = 1 - t
    weights = [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
    slopes = [-0.5 * s**2, 1.5 * t**2 - 2 * t, -1.5 * s**2 + 2 * s, 0.5 * t**2]
    return weights, slopes
