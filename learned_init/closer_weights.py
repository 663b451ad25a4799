"""The closer look's network with its weights and error patterns, for one model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.learned_init.closer_network import CloserHead, CloserTrunk
from facefit.learned_init.points import DensePoints
from facefit.learned_init.unwrap import places_on_cylinder
from facefit.learned_init.weight_file import found_weights, reading, write_file
from facefit.models.face_model import LinearFaceModel

FORMAT = "facefit closer look 1"


@dataclass(frozen=True)
class ErrorPatterns:
    """How whitened errors of the points go with what they correct and with each other, measured on pictures never
    trained on.

    The fields are those of `DenseLandmarks`, as is their meaning.
    """

    patterns: Float[np.ndarray, "patterns points 2"]
    variances: Float[np.ndarray, "patterns"]
    floor: float
    shapes: Float[np.ndarray, "shapes points 2"]
    response: Float[np.ndarray, "shapes points 2"]


@dataclass(frozen=True)
class CloserNetwork:
    """A trained network for one model."""

    trunk: CloserTrunk
    head: CloserHead
    points: DensePoints
    errors: ErrorPatterns
    card: dict[str, Any]


def closer_name(model: str) -> str:
    return f"{model}_closer"


@lru_cache(maxsize=4)
def closer_network_for(model: LinearFaceModel) -> CloserNetwork | None:
    """The weights that belong to a model, one's own or those that ship; None where there are none."""
    path = found_weights(closer_name(model.name))
    return None if path is None else read_closer(path, model)


def write_closer(path: Path, network: CloserNetwork) -> None:
    errors = network.errors
    write_file(
        path, FORMAT, {"trunk": network.trunk, "head": network.head}, network.points,
        {
            "errors.patterns": errors.patterns.astype(np.float16),
            "errors.variances": errors.variances.astype(np.float32),
            "errors.floor": np.array([errors.floor], np.float32),
            "errors.shapes": errors.shapes.astype(np.float16),
            "errors.response": errors.response.astype(np.float16),
        },
        network.card,
    )  # fmt: skip


def read_closer(path: Path, model: LinearFaceModel) -> CloserNetwork:
    """Raises ModelFileError for a file of another kind, or made for another model."""
    with reading(path, FORMAT, model) as file:
        points, tensors = file.points(), file.tensors
        trunk, head = CloserTrunk(), CloserHead(places_on_cylinder(model, points))
        file.fill("trunk", trunk)
        file.fill("head", head)
        errors = ErrorPatterns(
            patterns=tensors["errors.patterns"].astype(np.float64),
            variances=tensors["errors.variances"].astype(np.float64),
            floor=float(tensors["errors.floor"][0]),
            shapes=tensors["errors.shapes"].astype(np.float64),
            response=tensors["errors.response"].astype(np.float64),
        )
    return CloserNetwork(trunk, head, points, errors, file.card)
