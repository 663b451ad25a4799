"""From a training to weights: the averaged network, how its errors go together, and a card with its figures."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import facefit
from facefit.learned_init.calibrate import error_patterns, whitened_errors
from facefit.learned_init.closer_network import CloserHead, CloserTrunk
from facefit.learned_init.closer_train import CloserTraining
from facefit.learned_init.closer_weights import CloserNetwork, write_closer
from facefit.learned_init.network import Head, Trunk
from facefit.learned_init.shards import PICTURES, Pictures, shard_path
from facefit.learned_init.train import FirstTraining
from facefit.learned_init.training import TEST, TRAIN, VALIDATE
from facefit.learned_init.weights import Initialiser, write_weights
from facefit.models.face_model import LinearFaceModel

# Shards of each kind that the closing figures are measured on.
SHARDS = 2


def ship_first(training: FirstTraining, name: str, path: Path) -> Initialiser:
    """Write the first look's weights for one of the training's models."""
    student = training.students[name]
    network = training.average.eval()
    trunk, head = network.get_submodule("trunk"), network.get_submodule(f"heads.{name}")
    assert isinstance(trunk, Trunk) and isinstance(head, Head)
    units = "points and centre px of 128; identity, expression and rotation mm; light and albedo linear RGB"
    found = Initialiser(trunk, head, student.points, card(training, student.model, units))
    write_weights(path, found)
    return found


def ship_closer(training: CloserTraining, name: str, path: Path) -> CloserNetwork:
    """Write the closer look's weights for one of the training's models."""
    network = training.average.eval()
    trunk, head = network.get_submodule("trunk"), network.get_submodule(f"heads.{name}")
    assert isinstance(trunk, CloserTrunk) and isinstance(head, CloserHead)
    aside = Pictures(training.data, name, VALIDATE)
    aside.look()
    aside.any()
    errors = error_patterns(*whitened_errors(trunk, head, aside.batches(SHARDS)))
    found = CloserNetwork(
        trunk, head, training.points[name], errors, card(training, training.models[name], "mm at the face")
    )
    write_closer(path, found)
    return found


def card(training: FirstTraining | CloserTraining, model: LinearFaceModel, units: str) -> dict[str, Any]:
    """What was trained on how much, and how well it does on people it never saw."""
    name = model.name
    figures = {"validation": VALIDATE, "test": TEST}
    return {
        "model": name,
        "model sha256": model.source.sha256,
        "facefit": facefit.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "settings": asdict(training.settings),
        "steps": training.step,
        "pictures": PICTURES * sum(
            number % 20 in TRAIN and shard_path(training.data, name, number).exists() for number in range(10_000)
        ),
        **{
            kind: {k: round(v, 4) for k, v in training.validate(among, SHARDS).items() if k.startswith(name)}
            for kind, among in figures.items()
        },
        "units": units,
        "pictures from": "facefit's own synthetic pictures of morphable models; no photograph was used",
    }  # fmt: skip
