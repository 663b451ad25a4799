"""From an observation to a fit in one call: what is passed on, what is measured, what is warned of."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from facefit.errors import ModelFileError, UnreadableInput
from facefit.fitting.stages import FAST
from facefit.models import load_model
from facefit.observation import Observation

# By name: `facefit.reconstruct` is the function that hides its module.
RECONSTRUCT = importlib.import_module("facefit.reconstruct")


def test_reconstruct_is_observe_start_fit(toy: dict[str, str]) -> None:
    model = load_model(toy["model"])
    calls: list[tuple[str, float]] = []
    result = RECONSTRUCT.reconstruct(
        toy["photo"],
        model,
        landmarks=toy["landmarks"],
        fov=30,
        stages=FAST,
        progress=lambda what, share: calls.append((what, share)),
    )
    assert result.landmark_error < 0.02  # the photograph is the model's own rendering
    assert result.observation.camera.focal_source == "given"
    assert [stage.name for stage in result.stages] == [stage.name for stage in FAST]
    assert calls[0] == ("looking for faces", 0.0)
    assert [share for _, share in calls] == sorted(share for _, share in calls)
    assert result.timings["observe"] > 0


def test_a_start_puts_the_landmarks_near_the_photographs(toy: dict[str, str]) -> None:
    model = load_model(toy["model"])
    photo = Observation.from_file(toy["photo"], landmarks=toy["landmarks"])
    start = RECONSTRUCT.initialize(photo, model)
    points = start.pose.apply(model.landmark_points(start.shape(model)))
    distance = np.linalg.norm(start.camera.project(points).numpy() - photo.landmarks, axis=1)
    assert distance[17:].mean() < 0.15 * photo.interocular_px


def test_a_model_may_be_named(toy: dict[str, str]) -> None:
    by_name = RECONSTRUCT.reconstruct(toy["photo"], toy["model"], landmarks=toy["landmarks"], stages=FAST)
    assert by_name.model.name == "toy"
    with pytest.raises(ModelFileError):
        RECONSTRUCT.reconstruct(toy["photo"], "nobody", landmarks=toy["landmarks"])


def test_input_is_looked_at_before_a_model_is_loaded() -> None:
    with pytest.raises(UnreadableInput, match="no such file"):
        RECONSTRUCT.reconstruct("none.jpg", "nobody")


def landmarks_of_size(eyes: float) -> np.ndarray:
    points = np.random.default_rng(0).uniform(100, 100 + 1.5 * eyes, (68, 2))
    points[36], points[45] = (110, 120), (110 + eyes, 120)
    return points


IMAGE = np.full((400, 400, 3), 90, np.uint8)


def test_a_face_without_eye_corners_is_warned_of() -> None:
    points = landmarks_of_size(100)
    points[36] = np.nan
    said = RECONSTRUCT.observation_warnings(Observation.from_array(IMAGE, points))
    assert "without both outer eye corners" in said[0]
