"""The dense photometric term: predicted against observed colour at points fixed on the surface.

The surface-sample view of Blanz and Vetter's ("Face Recognition Based on Fitting a 3D Morphable Model", PAMI 2003)
cost: a few thousand points of the surface rather than all pixels, each projected into the photograph and shaded from
nine spherical harmonics. The derivative goes through the image gradient and through the shading normal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facefit.fitting.projection import rotation_of
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.residual import AbstractResidual, NormalEquations, Total, add_to, cost, normal_equations
from facefit.fitting.residuals.landmarks import GEOMETRY
from facefit.fitting.same import Same
from facefit.fitting.surface_samples import SurfaceSamples
from facefit.fitting.visibility import visible_samples
from facefit.kernels.photometric import (
    FACTORS,
    expand_kernel,
    gradient_kernel,
    photometric_kernel,
    sample_geometry,
    turned_rows_kernel,
)
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.rendering.shade import lambertian, linear_to_srgb

COLOUR = ("albedo", "lighting")

# What the model cannot say is shared by neighbouring samples: all samples together are worth about this many
# independent observations. Too few and every face stays near the mean; too many and the face bends to explain
# shadows and blemishes (on path-traced heads shape is best at 20 to 40, and worse than landmarks alone at 300).
INDEPENDENT = 25.0
# An error no larger than a camera's noise, 1 % of full scale averaged over a level's texels, is every sample's own:
# there the samples count this many times as much. A picture that the model can explain deserves it (own renderings: a
# fit leaves 0.57 of the mean face's error without, 0.48 with); photographs, with errors ten times as large, do not.
CAMERA_NOISE, NOISE_WORTH = 0.003, 4.0
# Visibility changes slowly: it is renewed every so many linearisations.
VISIBILITY_STEPS = 3
# A step may miss 1 % of the shape's curvature where the prior's is the larger. A photograph that is believed more than
# this decides by itself, also along what only a second mix of the channels sees: there the missing curvature made
# steps too long (own renderings without a prior: 60 steps instead of 20).
NEARLY_UP_TO = NOISE_WORTH * INDEPENDENT


@dataclass(frozen=True)
class Frozen:
    """The discrete choices at one scene: which samples count, and how much (square root of the weight over sigma).
    `age` counts the linearisations since the samples were chosen.
    """

    chosen: Int[np.ndarray, "n"]
    share: Float[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]
    sigma: float = 1.0
    inliers: float = 0.0
    age: int = 0


@dataclass(frozen=True)
class PhotometricResidual(AbstractResidual):
    """Predicted minus observed sRGB at surface samples, whitened.

    What the model cannot say (pores, shadows, highlights, hair) is an error of some 0.03 to 0.1 that neighbouring
    samples share: the samples together count as `independent` observations however many there are (more where hardly
    more than noise is left, see `worth`), each by the area of the picture it covers. The error's size is estimated
    from the residuals (median absolute deviation, at least `sigma_floor`) in the core of the face, where hair is rare,
    and samples beyond it are scaled down by Geman and McClure's weights. `core_only` leaves out the rest of the face
    altogether, for a first look at the light: dark hair over a bright forehead is otherwise best explained by a lamp
    from below.
    """

    model: LinearFaceModel
    samples: SurfaceSamples
    level: PyramidLevel
    independent: float = INDEPENDENT
    core_only: bool = False
    sigma_floor: float = 0.002
    frozen: Frozen | None = None
    name: str = "photometric"

    def freeze(self, scene: Scene) -> PhotometricResidual:
        old = self.frozen
        if old is not None and old.age + 1 < VISIBILITY_STEPS:
            chosen, share, age = old.chosen, old.share, old.age + 1
        else:
            chosen, footprint = visible_samples(self.model, self.samples, self.level, scene)
            if self.core_only:
                kept = self.samples.core[chosen]
                chosen, footprint = chosen[kept], footprint[kept]
            share, age = footprint / max(footprint.sum(), 1e-12), 0
        if not len(chosen):
            return replace(self, frozen=Frozen(chosen, share, np.zeros(0, np.float32)))
        error = self.error(scene, chosen)
        core = self.samples.core[chosen]
        # 1.3 turns the median of a three-channel root mean square into the standard deviation of one channel.
        sigma = max(self.sigma_floor, float(1.3 * np.median(error[core] if core.any() else error)))
        robust = robust_weight(error, sigma)
        weight = np.sqrt(worth(self.independent, sigma) * share * robust) / sigma
        inliers = float((share * robust).sum())
        frozen = Frozen(chosen, share, weight.astype(np.float32), sigma, inliers, age)
        return replace(self, frozen=frozen)

    def differences(self, scene: Scene, chosen: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n 3"]:
        """Predicted minus observed sRGB at samples, not whitened; zero where a sample leaves the picture."""
        return _predicted(self.samples, self.level, scene, Same(chosen))[0]

    def error(self, scene: Scene, chosen: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The size of the colour difference at samples: root mean square over the channels."""
        squared = (self.differences(scene, chosen).astype(np.float64) ** 2).mean(1)
        error: Float[np.ndarray, "n"] = np.sqrt(squared)
        return error

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        """The residuals in torch, differentiable: the oracle of the kernel."""
        frozen = self._frozen(scene)
        chosen = torch.from_numpy(frozen.chosen)
        coefficients = torch.cat([scene.identity, scene.expression])
        samples = self.samples
        geometry = torch.from_numpy(samples.geometry_mean)[chosen].to(coefficients) + (
            torch.from_numpy(samples.geometry_basis)[chosen].to(coefficients) @ coefficients
        )
        albedo = torch.from_numpy(samples.albedo_mean)[chosen].to(coefficients) + (
            torch.from_numpy(samples.albedo_basis)[chosen].to(coefficients) @ scene.albedo
        )
        normal = torch.nn.functional.normalize(torch.linalg.cross(geometry[:, 3:6], geometry[:, 6:9]), dim=-1)
        predicted = linear_to_srgb(lambertian(albedo, scene.lighting.irradiance(normal)))
        pixels = scene.camera.project(scene.pose.apply(geometry[:, :3]))
        texel = (pixels - torch.from_numpy(self.level.origin).to(pixels)) * self.level.scale - 0.5
        observed, inside = read_spline(torch.from_numpy(self.level.image).to(pixels), texel)
        weight = torch.from_numpy(frozen.weight).to(pixels) * inside
        return (weight[:, None] * (predicted - observed)).reshape(-1)

    def _frozen(self, scene: Scene) -> Frozen:
        if self.frozen is not None:
            return self.frozen
        frozen = self.freeze(scene).frozen
        assert frozen is not None
        return frozen


def worth(independent: float, sigma: float) -> float:
    """How many independent observations all samples are worth where their error is `sigma`.

    What of its variance can be a camera's noise is not shared.
    """
    noise = min(1.0, (CAMERA_NOISE / sigma) ** 2)
    return independent / (1 - noise + noise / NOISE_WORTH)


def robust_weight(error: Float[np.ndarray, "*shape"], sigma: float) -> Float[np.ndarray, "*shape"]:
    """Geman and McClure's weight of an error whose usual size is sigma: half of it is lost at 1.6 sigma."""
    weight: Float[np.ndarray, "*shape"] = 1 / (1 + (error / (2.5 * sigma)) ** 2) ** 2
    return weight


# A scene is looked at up to three times in a row: as a candidate, to be frozen at, to be linearised at. Shape or colour
# may rest meanwhile.
@lru_cache(maxsize=2)
def _geometry(samples: SurfaceSamples, shape: Same, chosen: Same) -> Float[np.ndarray, "n 9"]:
    """Position and tangents of the chosen samples at an identity and expression."""
    coefficients = np.concatenate([block.numpy() for block in shape.objects]).astype(np.float32)
    (index,) = chosen.objects
    geometry = np.empty((len(index), 9), dtype=np.float32)
    sample_geometry(index, samples.geometry_mean, samples.geometry_basis, coefficients, geometry)
    return geometry


@lru_cache(maxsize=2)
def _predicted(
    samples: SurfaceSamples, level: PyramidLevel, scene: Scene, chosen: Same
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3 26"]]:
    """The chosen samples' colour differences at a scene and the kernel's short form of their derivative."""
    (index,) = chosen.objects
    geometry = _geometry(samples, Same(scene.identity, scene.expression), chosen)
    albedo = np.empty((len(index), 3), dtype=np.float32)
    weights = scene.albedo.numpy().astype(np.float32)
    sample_geometry(index, samples.albedo_mean, samples.albedo_basis, weights, albedo)
    differences = np.empty((len(index), 3), dtype=np.float32)
    factors = np.empty((len(index), 3, FACTORS), dtype=np.float32)
    photometric_kernel(
        geometry,
        albedo,
        scene.lighting.coefficients.numpy().astype(np.float64),
        *rotation_of(scene),
        scene.pose.translation_mm.numpy().astype(np.float64),
        float(scene.camera.focal_px),
        scene.camera.principal_point.numpy().astype(np.float64),
        level.scale,
        level.origin,
        level.image,
        True,
        differences,
        factors,
    )
    return differences, factors


@normal_equations.register
def _(residual: PhotometricResidual, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    total = Total(scene, free)
    _add(residual, total, scene, exactly=True)
    return total.equations()


@add_to.register
def _(residual: PhotometricResidual, total: Total, scene: Scene) -> None:
    """Exact but for 1 % of the shape's curvature beside a prior: half the time of the exact matrix, and no step."""
    _add(residual, total, scene, exactly=residual.independent > NEARLY_UP_TO)


def _add(residual: PhotometricResidual, total: Total, scene: Scene, exactly: bool) -> None:
    frozen, samples = residual._frozen(scene), residual.samples
    with_geometry = any(block in total.free for block in GEOMETRY)
    blocks = (*GEOMETRY, *COLOUR) if with_geometry else COLOUR
    unknowns = sum(scene.size(block) for block in blocks)
    differences, factors = _predicted(samples, residual.level, scene, Same(frozen.chosen))
    gradient = np.empty(unknowns)
    bases = (samples.geometry_basis, samples.albedo_basis)
    gradient_kernel(frozen.chosen, factors, differences, frozen.weight, *bases, with_geometry, gradient)
    if with_geometry and not exactly:
        matrix = _nearly(samples, frozen, factors, unknowns)
    else:
        jacobian = np.empty((3 * len(frozen.chosen), unknowns), dtype=np.float32)
        expand_kernel(frozen.chosen, factors, frozen.weight, *bases, with_geometry, jacobian)
        # numpy sees A^T A and computes one triangle only (syrk), 1.6 times faster than a general product.
        matrix = jacobian.T @ jacobian
    total.add(matrix, gradient, cost(residual, scene), scene, blocks)


def _nearly(
    samples: SurfaceSamples, frozen: Frozen, factors: Float[np.ndarray, "n 3 26"], unknowns: int
) -> Float[np.ndarray, "unknowns unknowns"]:
    """J^T J without what shape does to a sample's colours other than in their main direction."""
    count, shape = len(frozen.chosen), samples.geometry_basis.shape[2]
    first = np.empty((count, unknowns), dtype=np.float32)
    others = np.empty((2 * count, unknowns - shape), dtype=np.float32)
    bases = (samples.geometry_basis, samples.albedo_basis)
    turned_rows_kernel(frozen.chosen, factors, frozen.weight, samples.gram, *bases, first, others)
    matrix: Float[np.ndarray, "unknowns unknowns"] = first.T @ first
    rest = others.T @ others
    rigid, colour = slice(0, 7), slice(7 + shape, unknowns)
    for here, there in ((rigid, slice(0, 7)), (colour, slice(7, None))):
        matrix[here, rigid] += rest[there, :7]
        matrix[here, colour] += rest[there, 7:]
    return matrix


@cost.register
def _(residual: PhotometricResidual, scene: Scene) -> float:
    frozen = residual._frozen(scene)
    squared = (residual.differences(scene, frozen.chosen).astype(np.float64) ** 2).sum(1)
    return 0.5 * float((frozen.weight.astype(np.float64) ** 2) @ squared)


def read_spline(
    image: Float[Tensor, "height width channels"], texel: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n channels"], Bool[Tensor, "n"]]:
    """The image at texel coordinates (centre of the first texel = 0) through a cubic B-spline, without prefilter.

    The spline smooths by about 0.6 texel and has a continuous gradient. Points within two texels of the border
    read 0 and are reported as not inside.
    """
    height, width = image.shape[:2]
    x, y = texel.unbind(1)
    inside = (x >= 1) & (y >= 1) & (x < width - 2) & (y < height - 2)
    x = torch.where(inside, x, torch.full_like(x, 1.0))
    y = torch.where(inside, y, torch.full_like(y, 1.0))
    column, row = x.detach().floor().long(), y.detach().floor().long()
    total = torch.zeros(len(texel), image.shape[2], dtype=image.dtype)
    for i, wy in enumerate(_spline_weights(y - row)):
        for j, wx in enumerate(_spline_weights(x - column)):
            total = (
                total
                + (wy * wx)[:, None]
                * image[(row - 1 + i).clamp(max=height - 1), (column - 1 + j).clamp(max=width - 1)]
            )
    return torch.where(inside[:, None], total, torch.zeros_like(total)), inside


def _spline_weights(t: Float[Tensor, "n"]) -> list[Float[Tensor, "n"]]:
    s = 1 - t
    return [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
