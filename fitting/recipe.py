"""The fit: a recipe of stages on one photograph."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool
from threadpoolctl import ThreadpoolController

from facefit.fitting.detail.stage import Detail, solve_offsets
from facefit.fitting.eyes import with_eyes
from facefit.fitting.gaze import Gaze
from facefit.fitting.inliers import SkinMask
from facefit.fitting.linear import landmark_start, with_ambient_level
from facefit.fitting.occlusion import skin_mask
from facefit.fitting.posterior import Posterior, misfit_noise
from facefit.fitting.projection import NEAREST_MM, landmark_points, project_points
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.residual import AbstractResidual, normal_equations
from facefit.fitting.residuals.closure import closure_residual
from facefit.fitting.residuals.contour import contour_residual
from facefit.fitting.residuals.dense_landmarks import dense_landmark_residual
from facefit.fitting.residuals.landmarks import INNER, LandmarkResidual, landmark_residual, landmark_share
from facefit.fitting.residuals.photometric import PhotometricResidual, robust_weight
from facefit.fitting.residuals.priors import CoefficientPrior, FocalPrior, LightPrior
from facefit.fitting.result import FitResult, StageReport, Status
from facefit.fitting.stages import LIGHT, STANDARD, Stage
from facefit.fitting.surface_samples import surface_samples
from facefit.fitting.visibility import shape_at
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import BLOCKS, Scene
from facefit.observation import Observation

Progress = Callable[[str, float], None]


def fit(
    observation: Observation,
    model: LinearFaceModel,
    start: Scene | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> FitResult:
    """Fit a scene to one photograph; without a `start`, from the landmarks.

    `progress(stage name, share done)` is called before each stage. A stage that fails leaves the scene it got and
    says so in its report; the result's scene is always finite.
    """
    began = time.perf_counter()
    scene = landmark_start(observation, model) if start is None else start
    if not bool(torch.isfinite(scene.pack(tuple(b for b in BLOCKS if b != "offsets"))).all()):
        raise ValueError("the start holds NaN or infinite numbers; a fit needs a finite scene to begin with")
    if scene.offsets is not None or scene.albedo_offsets is not None:
        raise ValueError(
            "the start has per-vertex offsets; these stages fit coefficients, start without offsets"
        )
    sizes = sorted({stage.photometric_px for stage in stages if stage.photometric_px})
    levels = dict(zip(sizes, face_pyramid(observation, sizes), strict=True))
    reports: list[StageReport] = []
    first: Scene | None = None
    seen, skin, whole = observation, None, levels
    detail: Detail | None = None
    gaze: Gaze | None = None
    # Detail is added to a face whose eyes look where they should.
    last = max((n for n, stage in enumerate(stages) if stage.detail is None), default=-1)
    fitted, ahead = scene, last >= 0 or in_front(scene, model)
    with torch.no_grad(), blas().limit(limits=1, user_api="blas"):
        for number, stage in enumerate(stages):
            if progress is not None:
                progress(stage.name, number / len(stages))
            if stage.photometric_px and stage.mask:
                skin = skin_mask(observation, scene, model, whole[sizes[0]], skin)
                seen, levels = masked(observation, whole, skin)
            if stage.photometric_px and stage.expose:
                scene = exposed(scene, model, levels[stage.photometric_px], stage.samples)
            if stage.photometric_px and first is None:
                first = scene
            if stage.detail is not None:
                scene, detail, report = solve_offsets(
                    scene, model, observation, believed_pixels(observation, skin), stage.detail, stage.name
                )
                reports.append(report)
                continue
            evidence = terms(stage, seen, model, levels.get(stage.photometric_px))
            # Priors alone would only draw the face back to the mean.
            residuals = [*evidence, *priors(stage, observation)] if evidence else []
            scene, report = stage.solver.solve(residuals, scene, freed(stage, observation), stage.name)
            reports.append(report)
            if number == last:
                fitted, ahead = scene, in_front(scene, model)
                if ahead:
                    scene, gaze = looking(scene, model, stages, None if first is None else whole[sizes[-1]])
        if reports and not ahead:
            reports[-1] = replace(reports[-1], status=Status.BEHIND_CAMERA)
        pixels = landmark_pixels(scene, model)
        result = FitResult(
            scene=scene,
            model=model,
            observation=observation,
            stages=tuple(reports),
            landmark_error=landmark_error(observation, pixels),
            landmarks_fitted=pixels,
            recipe=tuple(stages),
            skin=skin,
            detail=detail,
            gaze=gaze,
        )
        if first is not None:
            # What is seen of the skin is known of the face before its eyes looked.
            end = fitted if detail is None else scene
            result = with_colour_figures(result, first, whole[sizes[len(sizes) // 2]], end)
    return replace(result, timings={"fit": time.perf_counter() - began})


@lru_cache(maxsize=1)
def blas() -> ThreadpoolController:
    """numpy's and scipy's linear algebra. Its own threads fight torch's over matrices as small as a fit's (two cores: a
    fit takes 285 ms with them, 54 ms without)."""
    return ThreadpoolController()


def posterior_of(result: FitResult) -> Posterior | None:
    """The precision of the last stage that freed the shape, at the final scene; None where none did or it is lost."""
    shaped = [stage for stage in result.recipe if "identity" in stage.free]
    if not shaped:
        return None
    stage, scene, observation = shaped[-1], result.scene, result.observation
    level = face_pyramid(observation, [stage.photometric_px])[0] if stage.photometric_px else None
    if result.skin is not None and level is not None:
        observation, levels = masked(observation, {0: level}, result.skin)
        level = levels[0]
    with torch.no_grad():
        evidence = terms(stage, observation, result.model, level)
        if not evidence:
            return None
        free = freed(stage, observation)
        known = [*evidence, *priors(stage, observation)]
        frozen = [term.freeze(scene) for term in known]
        parts = [normal_equations(term, scene, free) for term in frozen]
    precision = sum(parts[1:], parts[0]).matrix
    if not bool(torch.isfinite(precision).all()):
        return None
    noise = 1.0
    for term, part in zip(frozen, parts, strict=True):
        if isinstance(term, LandmarkResidual) and term.name == "landmarks" and term.weight is not None:
            rows = 2 * float((term.weight**2).sum())
            noise = misfit_noise(part.matrix, part.cost, rows, precision)
    found = Posterior(precision, scene.layout(free), noise)
    if not found.proper:
        # No pixel speaks of light and colour where the whole face is hidden; the shape still has its landmarks.
        found = found.without(LIGHT)
    return found if found.proper else None


def masked(
    observation: Observation, levels: dict[int, PyramidLevel], skin: SkinMask
) -> tuple[Observation, dict[int, PyramidLevel]]:
    """What is left of a photograph without that which hides the face; all of it where hardly any face was found."""
    if not skin.believable:
        return observation, levels
    return skin.believed(observation), {size: skin.on(level) for size, level in levels.items()}


def believed_pixels(
    observation: Observation, skin: SkinMask | None
) -> Bool[np.ndarray, "height width"] | None:
    """Where the photograph shows the face, at its own size; None where nobody looked or hardly any face was found."""
    if skin is None or not skin.believable:
        return None
    return skin.at_photo(observation.height, observation.width)


def freed(stage: Stage, observation: Observation) -> tuple[str, ...]:
    """The stage's unknowns; a focal length that is known stays."""
    return tuple(name for name in stage.free if name != "focal" or observation.focal_sigma > 0)


def looking(
    scene: Scene, model: LinearFaceModel, stages: Sequence[Stage], level: PyramidLevel | None
) -> tuple[Scene, Gaze | None]:
    """The scene with its eyes' colour and gaze, as far as the stages freed what says so."""
    freed = {block for stage in stages for block in stage.free}
    if not freed & {"albedo", "expression"}:
        return scene, None
    found, gaze = with_eyes(scene, model, level)
    if "albedo" not in freed:
        found = replace(found, albedo=scene.albedo)
    return (found, gaze) if "expression" in freed else (replace(found, expression=scene.expression), None)


def terms(
    stage: Stage, observation: Observation, model: LinearFaceModel, level: PyramidLevel | None
) -> list[AbstractResidual]:
    """The evidence of one stage; empty where the photograph offers none of it."""
    found: list[AbstractResidual | None] = []
    share = landmark_share(observation, stage.free)
    if stage.landmarks:
        dense = dense_landmark_residual(observation, model)
        # One network's 68 are among its dense points: counted once.
        if dense is None or observation.landmarks_by != "facefit":
            found.append(landmark_residual(observation, model, share=share))
        found.append(dense)
        if "expression" in stage.free:
            found.append(closure_residual(observation, model, share=share))
    if stage.contour:
        found.append(contour_residual(observation, model, share))
    if level is not None:
        samples = surface_samples(model, stage.samples)
        found.append(PhotometricResidual(model, samples, level, stage.independent, stage.core_only))
    return [term for term in found if term is not None]


def priors(stage: Stage, observation: Observation) -> list[AbstractResidual]:
    """What is believed of a stage's unknowns without the photograph."""
    found: list[AbstractResidual] = [
        CoefficientPrior(block, stage.prior)
        for block in ("identity", "expression", "albedo")
        if block in stage.free
    ]
    if "focal" in stage.free and observation.focal_sigma > 0:
        found.append(FocalPrior(math.log(float(observation.camera.focal_px)), observation.focal_sigma))
    if "lighting" in stage.free:
        found.append(LightPrior())
    return found


def exposed(scene: Scene, model: LinearFaceModel, level: PyramidLevel, samples: int) -> Scene:
    """White ambient light at the level that gives the face its median brightness in the photograph."""
    term = PhotometricResidual(model, surface_samples(model, samples), level, core_only=True)
    residual = term.freeze(with_ambient_level(scene, 0.5))
    frozen = residual.frozen
    if frozen is None or not len(frozen.chosen):
        return with_ambient_level(scene, 1.0)
    observed = -residual.differences(with_ambient_level(scene, 0.0), frozen.chosen)
    linear = float(np.median(observed.clip(0, 1))) ** 2.2
    albedo = float(np.median(residual.samples.albedo_mean[frozen.chosen]))
    return with_ambient_level(scene, max(0.02, linear / max(albedo, 1e-3)))


def with_colour_figures(
    result: FitResult, first: Scene, level: PyramidLevel, last: Scene | None = None
) -> FitResult:
    """The result with the colour error of its scene (or the `last` one) and of the `first` one, both over the pixels
    now in use."""
    scene, model, skin = last or result.scene, result.model, result.skin
    if skin is not None:
        level = masked(result.observation, {0: level}, skin)[1][0]
    residual = PhotometricResidual(model, surface_samples(model, 1000), level).freeze(scene)
    frozen = residual.frozen
    if frozen is None or not len(frozen.chosen):
        return replace(result, pixels_used=0.0)
    kept = frozen.share * robust_weight(residual.error(scene, frozen.chosen), frozen.sigma)
    rms = [
        float(np.sqrt((kept * residual.error(at, frozen.chosen) ** 2).sum() / kept.sum()))
        for at in (first, scene)
    ]
    return replace(
        result,
        photometric_rms_start=rms[0],
        photometric_rms=rms[1],
        pixels_used=frozen.inliers if skin is None else skin.share,
    )


def in_front(scene: Scene, model: LinearFaceModel) -> bool:
    """Whether the whole head is before the camera."""
    return bool((scene.pose.apply(shape_at(model, scene))[:, 2] > NEAREST_MM).all())


def landmark_pixels(scene: Scene, model: LinearFaceModel) -> np.ndarray:
    """The model's 68 landmarks in pixels, NaN for those it does not know."""
    pixels, numbers = np.full((68, 2), np.nan), model.topology.landmarks.numbers
    if scene.offsets is None:
        # Without the whole surface, whose vertices nobody has asked for since the eyes looked.
        pixels[numbers] = project_points(scene, landmark_points(model, tuple(range(len(numbers)))))
    else:
        points = model.landmark_points(shape_at(model, scene))
        pixels[numbers] = scene.camera.project(scene.pose.apply(points)).numpy()
    return pixels


def landmark_error(observation: Observation, fitted: np.ndarray) -> float:
    """Mean distance of the 51 inner landmarks over the outer eye distance."""
    if observation.landmarks is None:
        return math.nan
    distance = np.linalg.norm(observation.landmarks - fitted, axis=1)[INNER]
    distance = distance[np.isfinite(distance)]
    if not len(distance) or not observation.interocular_px > 0:
        return math.nan
    return float(distance.mean() / observation.interocular_px)


__all__ = ["FitResult", "Status", "fit"]
