"""From a training to weights: the averaged network, how its errors go together, and a card with its figures."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import facefit
from facefit.learned_init.calibrate import error_patterns, whitened_errors
from facefit.learned_init.network import Head
from facefit.learned_init.shards import PICTURES, shard_path
from facefit.learned_init.train import TEST, TRAIN, VALIDATE, Student, Training
from facefit.learned_init.weights import Initialiser, write_weights

# Shards of each kind that the closing figures are measured on.
SHARDS = 2


def drawn(folder: Path, name: str) -> int:
    """How many shards of a model there are to train on."""
    return sum(number % 20 in TRAIN and shard_path(folder, name, number).exists() for number in range(10_000))


def ship(training: Training, name: str, path: Path) -> Initialiser:
    """Write the weights for one of the training's models."""
    student = training.students[name]
    network = training.average.eval()
    head = network.heads[name]
    assert isinstance(head, Head)
    aside = Student(student.model, student.points, student.yard)
    aside.look(training.data, VALIDATE)
    if not aside.shards:
        raise FileNotFoundError(f"no pictures of {name} to validate on in {training.data}: draw more shards")
    batches = (batch for number in sorted(aside.shards)[:SHARDS] for batch in aside.all_of(number, 128))
    errors = error_patterns(*whitened_errors(network.trunk, head, student.yard, batches))
    card = {
        "model": name,
        "model sha256": student.model.source.sha256,
        "facefit": facefit.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "settings": asdict(training.settings),
        "steps": training.step,
        "pictures": {key: PICTURES * drawn(training.data, key) for key in training.students},
        "validation": {
            k: round(v, 4) for k, v in training.validate(VALIDATE, SHARDS).items() if k.startswith(name)
        },
        "test": {k: round(v, 4) for k, v in training.validate(TEST, SHARDS).items() if k.startswith(name)},
        "units": "points and centre px of 128; identity, expression and rotation mm; light and albedo linear RGB",
        "pictures from": "facefit's own synthetic pictures of morphable models; no photograph was used",
    }
    found = Initialiser(network.trunk, head, student.points, errors, card)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, found)
    return found
