"""The fit of several photographs of one person: the stages of one photograph on scenes that share the person."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from facefit.fitting.detail.stage import solve_offsets
from facefit.fitting.gaze import Gaze
from facefit.fitting.inliers import SkinMask
from facefit.fitting.joint.animation import animatable, animated
from facefit.fitting.joint.arrow import OfPhotograph
from facefit.fitting.joint.result import JointResult
from facefit.fitting.joint.same_person import strangers
from facefit.fitting.joint.scenes import SHARED, Scenes, shared
from facefit.fitting.joint.texture import common_skin
from facefit.fitting.linear import landmark_start
from facefit.fitting.occlusion import skin_mask
from facefit.fitting.posterior import Posterior
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.recipe import (
    believed_pixels,
    exposed,
    fit,
    in_front,
    landmark_error,
    landmark_pixels,
    looking,
    masked,
    priors,
    terms,
    with_colour_figures,
)
from facefit.fitting.residual import linearised
from facefit.fitting.residuals.photometric import PhotometricResidual
from facefit.fitting.residuals.priors import CoefficientPrior
from facefit.fitting.result import FitResult, StageReport, Status
from facefit.fitting.stages import ACT, STANDARD, Stage
from facefit.fitting.surface_samples import SurfaceSamples, surface_samples
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

Progress = Callable[[str, float], None]

# How much of the error of a person's fit returns in every photograph of them: what the model cannot say, and what
# the detector means by a landmark, do not change from one photograph to the next. 0: photographs are independent
# witnesses; 1: N alike teach no more than one. Of dlib's landmark errors on path-traced heads half the variance is
# the person's, and of the colours' more.
COMMON = 1.0

# Once a person's skin is known from all photographs together, what is left of a colour's error is the photograph's own
# and less shared between spots: its correlation along the surface leaves 55 to 80 independent observations in the
# middle of 24 photographs of path-traced heads (ICT), 46 against the albedo modes alone; more (250) where smooth light
# is taken out as well, but believed more than 80 it bends the shapes of drawn people who grimace: a highlight or an
# expression that the model has no word for is believed to be shape. A round begins with the expressions that suit the
# person found last, and with the skin that the photographs then show.
SKIN_INDEPENDENT = 80.0
SKIN_PX = 192
SKIN_SAMPLES = 3000
SKIN_ROUNDS = 3


def fit_together(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> JointResult:
    """Fit one person to several photographs: one identity and albedo; expression, pose, light and camera of each.

    Photographs may differ in size and in anything but the person. With one photograph it is `fit`. Each is also
    fitted by itself, to see whether they show one person; the result's warnings say so where they do not seem to.
    """
    if not observations:
        raise ValueError("no photograph: give at least one")
    began = time.perf_counter()
    whole = len(observations) + 1

    def told(done: int) -> Progress | None:
        if progress is None:
            return None
        return lambda name, share: progress(name, (done + share) / whole)

    # Who somebody is, detail does not say.
    smooth = stages if len(observations) == 1 else [stage for stage in stages if stage.detail is None]
    single = [fit(one, model, stages=smooth, progress=told(i)) for i, one in enumerate(observations)]
    if len(observations) == 1:
        return JointResult(tuple(single), timings=single[0].timings)
    results = together(observations, model, stages, told(whole - 1))
    strange, warnings = strangers(single)
    seconds = {"fit": time.perf_counter() - began}
    return JointResult(
        tuple(results), strangeness=tuple(map(float, strange)), warnings=warnings, timings=seconds
    )


class Photo:
    """One photograph on its way through the stages: its levels, and what of it is left once its mask is known."""

    def __init__(self, observation: Observation, sizes: Sequence[int]) -> None:
        self.observation = self.seen = observation
        self.whole = self.levels = dict(zip(sizes, face_pyramid(observation, sizes), strict=True))
        self.skin: SkinMask | None = None

    def look(self, scene: Scene, model: LinearFaceModel) -> None:
        """Find what hides the face, at a scene."""
        self.hide(skin_mask(self.observation, scene, model, self.whole[min(self.whole)]))

    def hide(self, skin: SkinMask | None) -> None:
        if skin is not None:
            self.skin = skin
            self.seen, self.levels = masked(self.observation, self.whole, skin)

    def level(self, stage: Stage) -> PyramidLevel | None:
        return self.levels.get(stage.photometric_px)


def together(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> list[FitResult]:
    """The joint fit itself: a result for each photograph, all with one person."""
    sizes = sorted({stage.photometric_px for stage in stages if stage.photometric_px})
    photos = [Photo(one, sorted({*sizes, SKIN_PX})) for one in observations]
    starts = [landmark_start(one, model) for one in observations]
    scenes = Scenes.of(starts, [not one.focal_sigma > 0 for one in observations])
    reports: list[StageReport] = []
    first: Scenes | None = None
    detailed: Stage | None = None
    act = next((one for one in stages if one.photometric_px and set(one.free) == set(ACT)), None)
    with torch.no_grad():
        for number, stage in enumerate(stages):
            if progress is not None:
                progress(stage.name, number / len(stages))
            if stage.photometric_px and stage.mask:
                for photo, scene in zip(photos, scenes.each, strict=True):
                    photo.look(scene, model)
            if stage.photometric_px and stage.expose:
                scenes = scenes.replaced([
                    exposed(scene, model, photo.levels[stage.photometric_px], stage.samples)
                    for photo, scene in zip(photos, scenes.each, strict=True)
                ])  # fmt: skip
            if stage.photometric_px and first is None:
                first = scenes
            if stage.detail is not None:
                detailed = stage
                continue
            # The solver asks its state and its terms for nothing that scenes of one person do not give as well.
            solver: Any = stage.solver
            scenes, report = solver.solve(joint_terms(stage, photos, model), scenes, stage.free, stage.name)
            reports.append(report)
            if stage.photometric_px and "identity" in stage.free and len(photos) > 1:
                scenes, more = by_common_skin(stage, act, scenes, photos, model)
                reports += more
        scenes, gazes = with_common_eyes(scenes, photos, model, stages, first is not None)
        results = [
            replace(finished(scene, model, photo, reports, stages), gaze=gaze)
            for photo, scene, gaze in zip(photos, scenes.each, gazes, strict=True)
        ]
        if first is not None:
            size = sizes[len(sizes) // 2]
            results = [
                with_colour_figures(result, start, photo.whole[size])
                for result, start, photo in zip(results, first.each, photos, strict=True)
            ]
        if detailed is not None:
            results = with_detail(detailed, results)
    return results


def with_detail(stage: Stage, results: Sequence[FitResult]) -> list[FitResult]:
    """Each photograph's own displacements, told apart into what stays and what goes with its expression.

    Of one photograph nothing can be told apart: it keeps what it shows.
    """
    assert stage.detail is not None
    found = []
    for result in results:
        seen = believed_pixels(result.observation, result.skin)
        scene, detail, report = solve_offsets(
            result.scene, result.model, result.observation, seen, stage.detail, stage.name
        )
        found.append(replace(result, scene=scene, detail=detail, stages=(*result.stages, report)))
    return animated(found, animatable(found)) if len(found) > 1 else found


def by_common_skin(
    stage: Stage, act: Stage | None, scenes: Scenes, photos: Sequence[Photo], model: LinearFaceModel
) -> tuple[Scenes, list[StageReport]]:
    """The stage again, each photograph compared with the skin that all of them show.

    `act` is the recipe's look at what each face does once it is known who it is.
    """
    base = surface_samples(model, SKIN_SAMPLES)
    levels = [photo.levels[SKIN_PX] for photo in photos]
    reports = []
    for number in range(1, SKIN_ROUNDS + 1):
        solver: Any
        if act is not None:
            solver = act.solver
            name = f"{act.name} {number}"
            scenes, report = solver.solve(joint_terms(act, photos, model), scenes, act.free, name)
            reports.append(report)
        again = replace(
            stage,
            name=f"{stage.name}, common skin {number}",
            photometric_px=SKIN_PX,
            samples=SKIN_SAMPLES,
            independent=SKIN_INDEPENDENT,
        )
        skin = common_skin(model, base, scenes.each, levels)
        solver = stage.solver
        residuals = joint_terms(again, photos, model, skin)
        scenes, report = solver.solve(residuals, scenes, again.free, again.name)
        reports.append(report)
    return scenes, reports


def with_common_eyes(
    scenes: Scenes,
    photos: Sequence[Photo],
    model: LinearFaceModel,
    stages: Sequence[Stage],
    seen: bool,
) -> tuple[Scenes, list[Gaze | None]]:
    """The person's eyes are the mean of what the photographs show; one that shows none speaks for the model's mean.

    Each photograph has its own gaze; straight ahead unless the photographs are `seen`.
    """
    found = [
        looking(scene, model, stages, photo.whole[max(photo.whole)] if seen else None)
        if in_front(scene, model)
        else None
        for photo, scene in zip(photos, scenes.each, strict=True)
    ]
    shown = [one[0].albedo for one in found if one is not None]
    if not shown:
        return scenes, [None] * len(photos)
    albedo = torch.stack(shown).mean(0)
    each = [
        replace(scene if one is None else one[0], albedo=albedo)
        for scene, one in zip(scenes.each, found, strict=True)
    ]
    return scenes.replaced(each), [None if one is None else one[1] for one in found]


def joint_terms(
    stage: Stage,
    photos: Sequence[Photo],
    model: LinearFaceModel,
    skin: Sequence[SurfaceSamples] | None = None,
) -> list[OfPhotograph]:
    """Each photograph's evidence and what is believed of it; what is believed of the person, once.

    `skin` are the samples to compare each photograph's colours at, where they are not the model's own.
    """
    spoken = {}
    for index, photo in enumerate(photos):
        evidence = terms(stage, photo.seen, model, photo.level(stage))
        if skin is not None:
            evidence = [
                replace(term, samples=skin[index]) if isinstance(term, PhotometricResidual) else term
                for term in evidence
            ]
        # Priors alone would only draw the face back to the mean.
        if evidence:
            spoken[index] = evidence
    alike = math.sqrt(1 + (len(spoken) - 1) * COMMON)
    found = []
    for index, evidence in spoken.items():
        believed = priors(stage, photos[index].observation)
        person = [term for term in believed if isinstance(term, CoefficientPrior) and term.block in SHARED]
        own = [term for term in believed if term not in person]
        once = person if index == min(spoken) else []
        known = [*evidence, *own, *(replace(term, weight=alike * term.weight) for term in once)]
        found += [OfPhotograph(index, term) for term in known]
    return found


def finished(
    scene: Scene,
    model: LinearFaceModel,
    photo: Photo,
    reports: Sequence[StageReport],
    stages: Sequence[Stage],
) -> FitResult:
    """One photograph's result; the stages' reports are those of all together."""
    ended = list(reports)
    if ended and not in_front(scene, model):
        ended[-1] = replace(ended[-1], status=Status.BEHIND_CAMERA)
    fitted = landmark_pixels(scene, model)
    return FitResult(
        scene=scene,
        model=model,
        observation=photo.observation,
        stages=tuple(ended),
        landmark_error=landmark_error(photo.observation, fitted),
        landmarks_fitted=fitted,
        recipe=tuple(stages),
        skin=photo.skin,
    )


def posterior_together(joint: JointResult) -> Posterior | None:
    """The person's precision in the last stage that freed the shape, the photographs' own unknowns integrated out."""
    results, recipe = joint.results, joint.results[0].recipe
    shaped = [stage for stage in recipe if "identity" in stage.free]
    if not shaped:
        return None
    stage = shaped[-1]
    photos = [Photo(r.observation, [stage.photometric_px] if stage.photometric_px else []) for r in results]
    for photo, result in zip(photos, results, strict=True):
        photo.hide(result.skin)
    scenes = Scenes(
        tuple(result.scene for result in results),
        tuple(not result.observation.focal_sigma > 0 for result in results),
    )
    with torch.no_grad():
        residuals: list[Any] = [term.freeze(scenes) for term in joint_terms(stage, photos, results[0].model)]
        if not residuals:
            return None
        precision = linearised(scenes, residuals, stage.free).marginal()
    if precision is None or not bool(torch.isfinite(precision).all()):
        return None
    return Posterior(precision, scenes.each[0].layout(shared(stage.free)))
