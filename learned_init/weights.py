"""The first look's network with its weights, for one model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from facefit.learned_init.network import Head, Sizes, Trunk
from facefit.learned_init.points import DensePoints
from facefit.learned_init.weight_file import found_weights, reading, write_file
from facefit.models.face_model import LinearFaceModel

FORMAT = "facefit initialiser 2"


@dataclass(frozen=True)
class Initialiser:
    """A trained network for one model."""

    trunk: Trunk
    head: Head
    points: DensePoints
    card: dict[str, Any]


@lru_cache(maxsize=4)
def initialiser_for(model: LinearFaceModel) -> Initialiser | None:
    """The weights that belong to a model, one's own or those that ship; None where there are none."""
    path = found_weights(model.name)
    return None if path is None else read_weights(path, model)


def write_weights(path: Path, network: Initialiser) -> None:
    write_file(path, FORMAT, {"trunk": network.trunk, "head": network.head}, network.points, {}, network.card)


def read_weights(path: Path, model: LinearFaceModel) -> Initialiser:
    """Raises ModelFileError for a file of another kind, or made for another model."""
    with reading(path, FORMAT, model) as file:
        points = file.points()
        trunk = Trunk()
        head = Head(Sizes(len(points), model.n_identity, model.n_expression, model.n_albedo))
        file.fill("trunk", trunk)
        file.fill("head", head)
    return Initialiser(trunk, head, points, file.card)
