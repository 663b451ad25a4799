"""From the path of a photograph to a fitted face, in one call: observe, start, fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from facefit.detection import AbstractDetector
from facefit.errors import NoFaceFound, UnreadableInput
from facefit.fitting import fit
from facefit.fitting.joint.recipe import fit_together
from facefit.fitting.joint.result import JointResult
from facefit.fitting.linear import landmark_start
from facefit.fitting.residuals.landmarks import INNER
from facefit.fitting.result import FitResult
from facefit.fitting.stages import FAST, STANDARD, Stage
from facefit.learned_init.closer_look import look_closer, looker_for
from facefit.learned_init.closer_weights import closer_network_for
from facefit.learned_init.detector import FaceDetector, NetworkDetector
from facefit.learned_init.predict import predict
from facefit.models import load_model
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

Progress = Callable[[str, float], None]


# The closer look's points differ from a foreign head's by millimetres that no face of the model has; under the usual
# prior they bend the shape. Chosen on 24 path-traced pictures (NoW median of the start, ICT and built-in, mm; mean face
# 1.14 and 1.17): prior 1 gives 1.18 and 1.47, 2 gives 1.13 and 1.31, 4 gives 1.10 and 1.14, vertices as near in pixels.
START: tuple[Stage, ...] = (FAST[0], replace(FAST[1], prior=4.0))


def initialize(observation: Observation, model: LinearFaceModel) -> Scene:
    """Where a fit may start: the network's guess, moved to where its closer look sees the face; for a model without
    weights the mean face, posed by the landmarks.
    """
    guess = predict(observation, model)
    if guess is None:
        return landmark_start(observation, model)
    seen = locate(observation, model)
    return guess.scene if seen.dense is None else fit(seen, model, guess.scene, START).scene


def first_fit(observation: Observation, model: LinearFaceModel) -> Scene:
    """Where the landmarks alone put the face."""
    return fit(observation, model, landmark_start(observation, model), FAST).scene


def locate(observation: Observation, model: LinearFaceModel) -> Observation:
    """The photograph with what the network of the closer look sees of the model's surface in it: some hundred points
    with covariances, which enter every fit of it.

    For research: they lie nearer to the truth than a first fit, but no nearer than a dense fit, and with the shipped
    weights they do not lower its error, so `reconstruct` does not ask for them. A photograph that has them already, or
    a model without weights, comes back as it is.
    """
    if observation.dense is not None and observation.dense.model == model.name:
        return observation
    network = closer_network_for(model)
    if network is None:
        return observation
    if observation.landmarks is None:
        guess = predict(observation, model)
        if guess is None:
            return observation
        observation = replace(observation.with_landmarks(guess.landmarks), landmarks_by="facefit")
    start = first_fit(observation, model)
    return replace(observation, dense=look_closer(network, looker_for(model), observation, start))


def sharpened(observation: Observation, model: LinearFaceModel) -> Observation:
    """The network's own inner landmarks, corrected by its closer look along a first fit of them; a detector's or given
    ones stay. For a model without weights the built-in one looks.
    """
    if observation.landmarks_by != "facefit" or observation.landmarks is None:
        return observation
    known = model if closer_network_for(model) is not None else load_model("builtin")
    seen = locate(observation, known).dense
    if seen is None:
        return observation
    landmarks = observation.landmarks.copy()
    landmarks[INNER] = seen.pixels[INNER]
    return replace(observation, landmarks=landmarks)


def detector_for(
    landmarks: str | Path | None, model: LinearFaceModel | str | Path
) -> AbstractDetector | None:
    """The detector that `landmarks` names, "dlib" (our own network's on turned heads) or "facefit"; None where it is a
    file.
    """
    if landmarks is None or landmarks == "dlib":
        return FaceDetector(model)
    if landmarks == "facefit":
        return NetworkDetector(model)
    if not Path(landmarks).exists():
        raise UnreadableInput(
            f"no landmarks by {str(landmarks)!r}: it is neither 'dlib', 'facefit' nor a file that exists"
        )
    return None


def reconstruct(
    path: str | Path,
    model: LinearFaceModel | str | Path = "builtin",
    *,
    landmarks: str | Path | Float[np.ndarray, "n 2"] | None = None,
    face: Literal["largest"] | int = "largest",
    fov: float | None = None,
    mask: str | Path | Bool[np.ndarray, "height width"] | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> FitResult:
    """One face of one photograph; the options are those of `Observation.from_file`.

    `landmarks` may also name who finds them: "dlib", or "facefit" for our own network.
    `progress(what, share done)` is called before each step.
    """
    began = time.perf_counter()
    if progress is not None:
        progress("looking for faces", 0.0)
    detector = (
        detector_for(landmarks, model) if isinstance(landmarks, (str, Path)) or landmarks is None else None
    )
    given = landmarks if detector is None else None
    observation = Observation.from_file(path, given, face, fov, mask, detector)
    seconds = time.perf_counter() - began
    return reconstruct_observed(observation, model, stages=stages, progress=progress, observe_s=seconds)


def reconstruct_all(
    path: str | Path,
    model: LinearFaceModel | str | Path = "builtin",
    *,
    landmarks: str | None = None,
    fov: float | None = None,
    mask: str | Path | Bool[np.ndarray, "height width"] | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> list[FitResult]:
    """Every face of one photograph, the most prominent first; `landmarks` names who finds them."""
    began = time.perf_counter()
    if progress is not None:
        progress("looking for faces", 0.0)
    observations = Observation.all_from_file(path, fov, mask, detector_for(landmarks, model))
    seconds = (time.perf_counter() - began) / len(observations)
    model = model if isinstance(model, LinearFaceModel) else load_model(model)
    return [
        reconstruct_observed(one, model, stages=stages, progress=progress, observe_s=seconds)
        for one in observations
    ]


def reconstruct_together(
    paths: Sequence[str | Path],
    model: LinearFaceModel | str | Path = "builtin",
    *,
    landmarks: str | None = None,
    face: Literal["largest"] | int = "largest",
    fov: float | None = None,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
) -> JointResult:
    """One person from several photographs: one face of each, shape and skin in common.

    A photograph that cannot be read or has no face is left out and named in the result, as is one whose picture
    was given before. Where none is left, the first one's error is raised.
    """
    began = time.perf_counter()
    model = model if isinstance(model, LinearFaceModel) else load_model(model)
    seen: list[Observation] = []
    skipped: list[tuple[Path, str]] = []
    errors: list[NoFaceFound | UnreadableInput] = []
    for number, path in enumerate(paths):
        if progress is not None:
            progress("looking for faces", 0.5 * number / len(paths))
        try:
            photo = Observation.from_file(path, None, face, fov, None, detector_for(landmarks, model))
            found = sharpened(photo, model)
        except (NoFaceFound, UnreadableInput) as error:
            errors.append(error)
            skipped.append((Path(path), str(error)))
            continue
        again = next((one for one in seen if np.array_equal(one.image, found.image)), None)
        if again is not None:
            skipped.append((Path(path), f"{path} is the same picture as {again.path}"))
        else:
            seen.append(found)
    if not seen:
        raise errors[0]
    observe_s = time.perf_counter() - began

    def told(what: str, share: float) -> None:
        if progress is not None:
            progress(what, 0.5 + 0.5 * share)

    joint = fit_together(seen, model, stages, told)
    results = tuple(
        replace(one, warnings=(*one.warnings, *observation_warnings(one.observation)))
        for one in joint.results
    )
    used = f"{len(seen)} of {len(paths)} photographs are used"
    warnings = [f"{used}. Left out: {reason}" for _, reason in skipped]
    warnings += [f"{joint.name(i)}: {said}" for i, one in enumerate(results) for said in one.warnings]
    return replace(
        joint,
        results=results,
        skipped=tuple(skipped),
        warnings=(*joint.warnings, *warnings),
        timings={"observe": observe_s, **joint.timings},
    )


def reconstruct_observed(
    observation: Observation,
    model: LinearFaceModel | str | Path = "builtin",
    *,
    stages: Sequence[Stage] = STANDARD,
    progress: Progress | None = None,
    observe_s: float = 0.0,
) -> FitResult:
    """The same from an observation, with warnings about what makes a fit less trustworthy."""
    model = model if isinstance(model, LinearFaceModel) else load_model(model)
    observation = sharpened(observation, model)
    result = fit(observation, model, stages=stages, progress=progress)
    return replace(
        result,
        warnings=(*result.warnings, *observation_warnings(observation)),
        timings={"observe": observe_s, **result.timings},
    )


def observation_warnings(observation: Observation) -> tuple[str, ...]:
    """Sentences on what makes figures less certain and is no part of the verdict."""
    if observation.landmarks is None or observation.landmark_covariance is None:
        return ()
    eyes = observation.interocular_px
    if not np.isfinite(eyes) or eyes <= 0:
        return ("Landmarks without both outer eye corners: sizes and errors are less certain.",)
    return ()
