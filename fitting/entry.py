"""`fit`: one photograph, or several of one person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    Without a `start`, from the landmarks. `progress(stage name, share done)` is called before each stage.
    """
    if isinstance(observation, Observation):
        return fit_one(observation, model, start, stages, progress)
    if start is not None:
        raise ValueError("several photographs start from their landmarks: leave `start` out")
    return fit_together(observation, model, stages, progress)
