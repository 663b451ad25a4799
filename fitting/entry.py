"""`fit`: one photograph, or several of one person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

from facefit.fitting.joint.recipe import fit_together
from facefit.fitting.joint.result import JointResult
from facefit.fitting.recipe import fit as fit_one
from facefit.fitting.result import FitResult
from facefit.fitting.stages import STANDARD, Stage
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

Progress = Callable[[str, float], None]


@overload
def fit(
    observation: Observation,
    model: LinearFaceModel,
    start: Scene | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> FitResult: ...


@overload
def fit(
    observation: Sequence[Observation],
    model: LinearFaceModel,
    start: None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> JointResult: ...


def fit(
    observation: Observation | Sequence[Observation],
    model: LinearFaceModel,
    start: Scene | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> FitResult | JointResult:
    """Fit a scene to one photograph, or one person to a list of photographs (`facefit.fitting.joint`).

    Without a `start`, from the landmarks. `stages` is the recipe: `facefit.FAST` (landmarks only), `STANDARD`,
    `DETAILED` (wrinkles besides), or one's own, with `dataclasses.replace`. `progress(stage name, share done)` is
    called before each stage. A fit that fails is no exception: `result.status` says how it ended.
    """
    _must_be(LinearFaceModel, model, "load it first, with facefit.load_model")
    for stage in stages:
        _must_be(Stage, stage, "stages are a recipe, as facefit.FAST, facefit.STANDARD or facefit.DETAILED")
    for one in [observation] if isinstance(observation, (Observation, str, Path)) else observation:
        _must_be(Observation, one, "read the photograph first, with facefit.Observation.from_file")
    if isinstance(observation, Observation):
        return fit_one(observation, model, start, stages, progress)
    if start is not None:
        raise ValueError("several photographs start from their landmarks: leave `start` out")
    return fit_together(observation, model, stages, progress)


def _must_be(kind: type, value: object, way_out: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}: {way_out}")
