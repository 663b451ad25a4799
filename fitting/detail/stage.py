"""The stage of fine detail: displacements and texture offsets of one photograph's scene."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from facefit.fitting.detail.offsets import DisplacementPrior, solve_displacement
from facefit.fitting.detail.operators import SurfaceOperators
from facefit.fitting.detail.pigment import fading, fine_pigment, log_difference, smooth_pigment
from facefit.fitting.detail.refinement import Refinement, face_refinement
from facefit.fitting.detail.seen import SeenSurface, millimetres_per_texel, seen_surface, spacing_mm
from facefit.fitting.detail.shading import ShadingTerm
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.result import StageReport, Status
from facefit.fitting.surface_samples import face_triangles
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation


@dataclass(frozen=True)
class DetailSettings:
    """How far to go: at most `levels` cuts of the mesh into four, the photograph at most `photo_px` a side of its face.

    `noise` is what neither shape nor smooth pigment explains of a square millimetre's log brightness; `steps` are
    Gauss-Newton's on the first cut.
    """

    levels: int = 2
    photo_px: int = 640
    noise: float = 0.04
    prior: DisplacementPrior = DisplacementPrior()
    steps: int = 2


@dataclass(frozen=True, eq=False)
class Detail:
    """What the model's own mesh cannot hold, on a refinement of its face.

    The detailed surface is the scene's (`Refinement.positions`), moved by `displacement_mm` along its normals;
    `albedo_offsets` (linear RGB) are added to the albedo of the scene's own vertices, interpolated.
    """

    refinement: Refinement
    displacement_mm: Float[np.ndarray, "fine"]
    albedo_offsets: Float[np.ndarray, "fine 3"]


def solve_offsets(
    scene: Scene,
    model: LinearFaceModel,
    observation: Observation,
    mask: Bool[np.ndarray, "height width"] | None = None,
    settings: DetailSettings | None = None,
    name: str = "detail",
) -> tuple[Scene, Detail | None, StageReport]:
    """The scene with offsets of shape and albedo that its mesh can hold, and the finer rest.

    `mask` is True where the photograph shows the face, besides the observation's own. Without a usable pixel or
    without light the scene comes back as it was, and the report says so.
    """
    began = time.perf_counter()
    settings = settings or DetailSettings()
    with torch.no_grad():
        level = masked_level(observation, mask, settings.photo_px)
        base = base_operators(scene, model)
        solution, steps, refused = None, 0, False
        most = cuts(base, millimetres_per_texel(scene, model, level), settings.levels)
        for cut in range(min(1, most), most + 1):
            refinement = face_refinement(model, cut)
            surface = seen_surface(scene, model, refinement, level)
            if not surface.area_seen > 0 or not lit(scene, surface):
                report = StageReport(name, Status.NO_DETAIL, 0, {}, {}, time.perf_counter() - began)
                return scene, None, report
            start = None if solution is None else refinement.halved(solution.height)
            if start is None:
                difference = log_difference(surface, scene.lighting)
                smooth = smooth_pigment(surface, refinement, base, difference)
            known = surface.operators.at_triangles(refinement.carry(smooth))
            term = ShadingTerm(surface, scene.lighting, known, settings.noise)
            # From the coarser cut's answer one step is enough: slopes are small, so shading is nearly linear in them.
            wanted = settings.steps if start is None else 1
            solution = solve_displacement([term], settings.prior, refinement.mirror, wanted, start)
            steps, refused = steps + solution.steps, solution.steps < wanted
        assert solution is not None
        difference = log_difference(surface, scene.lighting, solution.height)
        pigment = fine_pigment(surface.operators, surface.seen, difference)
    if not (np.isfinite(solution.height).all() and np.isfinite(pigment).all()):
        status, fitted, detail = Status.NOT_FINITE, scene, None
    else:
        status = Status.NO_DESCENT if refused else Status.STEPS_USED
        fitted, detail = shared_out(scene, model, refinement, surface, solution.height, pigment)
    seconds = time.perf_counter() - began
    costs = solution.cost_before, solution.cost_after
    return fitted, detail, StageReport(name, status, steps, *costs, seconds)


def shared_out(
    scene: Scene,
    model: LinearFaceModel,
    refinement: Refinement,
    surface: SeenSurface,
    height: Float[np.ndarray, "fine"],
    pigment: Float[np.ndarray, "fine 3"],
) -> tuple[Scene, Detail]:
    """What the scene's own vertices can hold goes into its offsets, the rest into the detail.

    Means over the neighbourhood, not the values there: those would alias wrinkles into bumps.
    """
    shape, area = scene.shape(model), surface.operators.vertex_area
    normals = vertex_normals(shape, model.triangles)
    # Where refined and coarse triangles meet, nothing moves: no crack, no step of colour.
    free = np.ones(model.n_vertices)
    free[np.unique(refinement.kept)] = 0.0
    own = refinement.gather(height, area) * free
    offsets = torch.from_numpy(own).to(shape)[:, None] * normals
    albedo = scene.surface_albedo(model)
    fine_albedo = refinement.carry(albedo.double().numpy())
    fade = fading(refinement, surface.operators, surface.seen, free)
    change = fine_albedo.clip(0) * np.expm1(pigment) * fade[:, None]
    own_albedo = refinement.gather(change, area) * free[:, None]
    detail = Detail(
        refinement,
        (height - refinement.carry(own)).astype(np.float32),
        (change - refinement.carry(own_albedo)).astype(np.float32),
    )
    more = torch.from_numpy(own_albedo).to(albedo)
    offsets = offsets if scene.offsets is None else scene.offsets + offsets
    more = more if scene.albedo_offsets is None else scene.albedo_offsets + more
    return replace(scene, offsets=offsets, albedo_offsets=more), detail


def masked_level(
    observation: Observation, mask: Bool[np.ndarray, "height width"] | None, size: int
) -> PyramidLevel:
    """The face in the photograph, pixels outside either mask unusable."""
    if mask is not None:
        known = mask if observation.mask is None else mask & observation.mask
        observation = replace(observation, mask=known)
    return face_pyramid(observation, [size])[0]


def base_operators(scene: Scene, model: LinearFaceModel) -> SurfaceOperators:
    """The model's own mesh of the face, as the scene shapes it."""
    triangles = model.topology.triangles[face_triangles(model.topology, model.n_vertices)]
    return SurfaceOperators.of(scene.shape(model).numpy(), triangles.astype(np.int64))


def cuts(base: SurfaceOperators, pixel_mm: float, limit: int) -> int:
    """How often to cut the mesh: as long as its triangles are no smaller than 0.8 pixels of the photograph."""
    ratio = spacing_mm(base) / max(pixel_mm, 1e-6)
    return int(np.clip(np.floor(np.log2(max(ratio / 0.8, 1e-6))), 0, limit))


def lit(scene: Scene, surface: SeenSurface) -> bool:
    """Whether the fitted light reaches the face at all."""
    normals = torch.from_numpy(surface.normals).to(scene.lighting.coefficients)
    irradiance = scene.lighting.irradiance(normals)
    return bool(torch.isfinite(irradiance).all()) and float(irradiance.mean()) > 1e-4
