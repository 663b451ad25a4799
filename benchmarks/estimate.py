"""Asking facefit for a face: the one place where benchmarks call the fit, by its public names.

Methods: `mean` (the model's mean face, no reconstruction), `landmarks` (landmark stage only), `standard`,
`detailed`. What comes back is plain arrays, so that everything after this works for any other method too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.meshfiles import SurfaceMesh, write_ply
from facefit.benchmarks.now import IBUG_OF_NOW, Prediction
from facefit.benchmarks.recipes import recipe
from facefit.benchmarks.run import Row
from facefit.errors import FacefitError


@dataclass(frozen=True)
class FaceEstimate:
    """A neutral face in the model frame (mm) and, unless it is the mean face, what the camera saw of it.

    `posed` is the face with its expression, still in the model frame. `landmarks_px` maps iBUG numbers to
    pixels of the photograph: the fitted mesh's landmarks, expression included.
    """

    prediction: Prediction
    seconds: float = 0.0
    status: str = ""
    landmarks_px: Mapping[int, Float[np.ndarray, "2"]] = field(default_factory=dict)
    landmark_depth_mm: Mapping[int, float] = field(default_factory=dict)
    posed: Prediction | None = None
    camera_from_model: Float[np.ndarray, "3 3"] | None = None
    translation_mm: Float[np.ndarray, "3"] | None = None
    focal_px: float | None = None
    result: Any = None


@lru_cache(maxsize=4)
def model_named(name: str) -> Any:
    import facefit as ff

    return ff.load_model(name)


def model_facts(name: str) -> Row:
    """The model as reports name it (never by the path on this machine) and as runs tell it from others."""
    model = model_named(name)
    return {"model": model_label(name), "model sha256": model.source.sha256[:12]}


def model_label(name: str) -> str:
    return Path(name).name if Path(name).exists() else name


@lru_cache(maxsize=4)
def mean_face(model_name: str) -> FaceEstimate:
    model = model_named(model_name)
    return FaceEstimate(as_prediction(model, model.mean), status="mean face")


def as_prediction(model: Any, vertices: Any) -> Prediction:
    points = model.landmark_points(vertices).detach().cpu().double().numpy()
    at = {int(n): i for i, n in enumerate(model.topology.landmarks.numbers)}
    if lacking := [n for n in IBUG_OF_NOW if n not in at]:
        raise FacefitError(f"model {model.name!r} has no landmark {lacking}: the NoW protocol needs seven")
    mesh = SurfaceMesh(
        vertices.detach().cpu().double().numpy(), np.asarray(model.topology.triangles, np.int64)
    )
    return Prediction(mesh, points[[at[n] for n in IBUG_OF_NOW]])


def estimate(
    photograph: Path,
    model_name: str,
    method: str = "standard",
    *,
    landmarks: Float[np.ndarray, "68 2"] | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> FaceEstimate:
    """One photograph, fitted. A photograph without a face raises NoFaceFound: a failure with a name."""
    if method == "mean":
        return mean_face(model_name)
    import facefit as ff

    model = model_named(model_name)
    arguments: dict[str, Any] = {"stages": recipe(method), **(options or {})}
    warm_up(photograph, model_name, method, landmarks)
    start = time.perf_counter()
    result = ff.reconstruct(photograph, model, landmarks=landmarks, **arguments)
    seconds = time.perf_counter() - start
    return from_result(result, seconds)


def estimate_together(
    photographs: Mapping[str, Path], model_name: str, method: str = "standard"
) -> Mapping[str, FaceEstimate]:
    """Photographs of one person, fitted as one; an estimate for each that could be used."""
    import facefit as ff

    model = model_named(model_name)
    warm_up(next(iter(photographs.values())), model_name, method)
    start = time.perf_counter()
    joint = ff.reconstruct_together(list(photographs.values()), model, stages=recipe(method))
    share = (time.perf_counter() - start) / len(joint.results)
    key_of = {path: key for key, path in photographs.items()}
    found = {}
    for result in joint.results:
        path = result.observation.path
        if path is not None:
            found[key_of[path]] = from_result(result, share)
    return found


@lru_cache(maxsize=8)
def _warm(model_name: str, method: str) -> list[bool]:
    return []


def warm_up(
    photograph: Path, model_name: str, method: str, landmarks: Float[np.ndarray, "68 2"] | str | None = None
) -> None:
    """Once per process, model and recipe: compile kernels, load the detector; nobody's time holds it."""
    import facefit as ff

    done = _warm(model_name, method)
    if done:
        return
    done.append(True)
    try:
        ff.reconstruct(photograph, model_named(model_name), landmarks=landmarks, stages=recipe(method))
    except FacefitError:
        done.clear()  # no face here: the next photograph warms up


def from_result(result: Any, seconds: float) -> FaceEstimate:
    model, scene = result.model, result.scene
    shape = scene.shape(model)
    points = model.landmark_points(shape)
    in_camera = scene.pose.apply(points)
    pixels = scene.camera.project(in_camera).detach().cpu().double().numpy()
    depths = in_camera[:, 2].detach().cpu().double().tolist()
    numbers = [int(n) for n in model.topology.landmarks.numbers]
    return FaceEstimate(
        as_prediction(model, scene.neutral_shape(model)),
        seconds=seconds,
        status=str(getattr(result.status, "value", result.status)),
        landmarks_px=dict(zip(numbers, pixels, strict=True)),
        landmark_depth_mm=dict(zip(numbers, depths, strict=True)),
        posed=as_prediction(model, shape),
        camera_from_model=scene.pose.camera_from_model.detach().cpu().double().numpy(),
        translation_mm=scene.pose.translation_mm.detach().cpu().double().numpy(),
        focal_px=float(scene.camera.focal_px),
        result=result,
    )


def write_prediction(stem: Path, face: Prediction) -> None:
    """STEM.ply and STEM.npy, the neutral face and its seven landmarks, in the mesh's own frame, mm."""
    write_ply(stem.with_name(stem.name + ".ply"), face.mesh)
    np.save(stem.with_name(stem.name + ".npy"), face.landmarks)
