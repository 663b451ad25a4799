"""`fit` with a photograph axis, for a GPU. `fit` is the oracle: on CPU tensors both agree as the tests state."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from facefit.fitting.batched.contour import contour_term
from facefit.fitting.batched.geometry import GEOMETRY, ORDER, Scenes
from facefit.fitting.batched.photometric import Gathered, Levels, PhotometricTerm
from facefit.fitting.batched.priors import prior_terms
from facefit.fitting.batched.solver import solve
from facefit.fitting.batched.terms import AbstractTerm, closure_term, landmark_term
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.inliers import SkinMask
from facefit.fitting.linear import landmark_start
from facefit.fitting.occlusion import skin_mask
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.recipe import (
    exposed,
    in_front,
    landmark_error,
    landmark_pixels,
    looking,
    masked,
    with_colour_figures,
)
from facefit.fitting.result import FitResult, StageReport
from facefit.fitting.stages import STANDARD, Stage
from facefit.fitting.surface_samples import surface_samples
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation


def fit_batched(
    observations: Sequence[Observation],
    model: LinearFaceModel,
    stages: Sequence[Stage] = STANDARD,
    device: torch.device | str = "cuda",
) -> list[FitResult]:
    """The results of `fit` on each photograph, worked out together on `device`. The model stays on the CPU."""
    began = time.perf_counter()
    with torch.no_grad():
        starts = [landmark_start(observation, model) for observation in observations]
        sizes = sorted({stage.photometric_px for stage in stages if stage.photometric_px})
        pyramids = [face_pyramid(observation, sizes) for observation in observations]
        scenes = Scenes.of(starts, device)
        first: list[Scene] | None = None
        seen, whole = list(observations), list(pyramids)
        skins: list[SkinMask | None] = [None] * len(seen)
        reports: list[list[StageReport]] = [[] for _ in observations]
        for stage in stages:
            levels = None
            if stage.photometric_px:
                now = unpacked(scenes, starts)
                if stage.mask:
                    for b, (observation, pyramid) in enumerate(zip(observations, whole, strict=True)):
                        skin = skin_mask(observation, now[b], model, pyramid[0], skins[b])
                        seen[b], left = masked(observation, dict(enumerate(pyramid)), skin)
                        skins[b], pyramids[b] = skin, list(left.values())
                levels = [pyramid[sizes.index(stage.photometric_px)] for pyramid in pyramids]
                if stage.expose:
                    now = [
                        exposed(scene, model, level, stage.samples)
                        for scene, level in zip(now, levels, strict=True)
                    ]
                    scenes = Scenes.of(now, device)
                first = first or now
            terms = stage_terms(stage, seen, model, scenes, levels)
            if stage.detail is not None or not isinstance(stage.solver, GaussNewton):
                raise ValueError(
                    f"stage {stage.name!r}: a batch is solved by GaussNewton only, without detail; fit one by one"
                )
            stage_began = time.perf_counter()
            scenes, ends = solve(stage.solver, terms, scenes, stage.free)
            share = (time.perf_counter() - stage_began) / len(observations)
            for report, status, steps in zip(reports, ends.status, ends.steps, strict=True):
                report.append(StageReport(stage.name, status, steps, {}, {}, share))
        fitted = unpacked(scenes, starts, {b for stage in stages for b in stage.free})
    seconds = (time.perf_counter() - began) / len(observations)
    results = []
    for b, (scene, observation) in enumerate(zip(fitted, observations, strict=True)):
        gaze = None
        if in_front(scene, model):
            scene, gaze = looking(scene, model, stages, whole[b][-1] if first else None)
        pixels = landmark_pixels(scene, model)
        result = FitResult(
            scene=scene,
            model=model,
            observation=observation,
            stages=tuple(reports[b]),
            landmark_error=landmark_error(observation, pixels),
            landmarks_fitted=pixels,
            recipe=tuple(stages),
            timings={"fit": seconds},
            skin=skins[b],
            gaze=gaze,
        )
        results.append(with_colour_figures(result, first[b], whole[b][len(sizes) // 2]) if first else result)
    return results


def unpacked(scenes: Scenes, like: Sequence[Scene], moved: set[str] | None = None) -> list[Scene]:
    """The scenes one by one, on the CPU; blocks that were never free keep their exact start."""
    free = tuple(b for b in ORDER if moved is None or b in moved)
    columns = scenes.columns(free)
    packed = scenes.x[:, columns].cpu()
    return [scene.with_packed(free, x.contiguous()) for scene, x in zip(like, packed, strict=True)]


def stage_terms(
    stage: Stage,
    observations: Sequence[Observation],
    model: LinearFaceModel,
    scenes: Scenes,
    levels: Sequence[PyramidLevel] | None,
) -> list[AbstractTerm]:
    """Evidence and priors of a stage; empty where no photograph offers any evidence."""
    device = scenes.x.device
    found: list[AbstractTerm | None] = []
    if stage.landmarks:
        found.append(landmark_term(observations, model, stage.free, device))
        if "expression" in stage.free:
            found.append(closure_term(observations, model, stage.free, device))
    if stage.contour:
        found.append(contour_term(observations, model, stage.free, device))
    if levels is not None:
        samples = Gathered.of(model, surface_samples(model, stage.samples), device)
        with_geometry = any(block in stage.free for block in GEOMETRY)
        found.append(
            PhotometricTerm(
                samples, Levels.of(levels, device), stage.independent, stage.core_only, with_geometry
            )
        )
    evidence = [term for term in found if term is not None]
    return [*evidence, *prior_terms(stage.free, stage.prior, observations, scenes)] if evidence else []
