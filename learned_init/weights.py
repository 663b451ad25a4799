"""Trained weights on disk: one safetensors file a model, float16, with the points, the error patterns and a card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from facefit.errors import ModelFileError
from facefit.learned_init.network import Head, Sizes, Trunk
from facefit.learned_init.points import DensePoints
from facefit.models.cache import cache_folder
from facefit.models.face_model import LinearFaceModel

FOLDER = Path(__file__).parent
FORMAT = "facefit initialiser 1"
LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ErrorPatterns:
    """How whitened errors of the points go with the face and with each other, measured on pictures never trained on.

    The fields are those of `DenseLandmarks`, as is their meaning.
    """

    patterns: Float[np.ndarray, "patterns points 2"]
    variances: Float[np.ndarray, "patterns"]
    floor: float
    shapes: Float[np.ndarray, "shapes points 2"]
    response: Float[np.ndarray, "shapes points 2"]


@dataclass(frozen=True)
class Initialiser:
    """A trained network for one model."""

    trunk: Trunk
    head: Head
    points: DensePoints
    errors: ErrorPatterns
    card: dict[str, Any]


def own_weights(name: str) -> Path:
    """Where `facefit train` puts the weights for a model, and where they are looked for first."""
    return cache_folder() / "initialisers" / f"{name}.safetensors"


@lru_cache(maxsize=4)
def initialiser_for(model: LinearFaceModel) -> Initialiser | None:
    """The weights that belong to a model, one's own or those that ship; None where there are none."""
    for path in (own_weights(model.name), FOLDER / f"{model.name}.safetensors"):
        if path.exists():
            return read_weights(path, model)
    return None


def write_weights(path: Path, initialiser: Initialiser) -> None:
    from safetensors.numpy import save_file

    tensors = {
        f"{part}.{name}": tensor.detach().cpu().numpy().astype(np.float16)
        for part, module in (("trunk", initialiser.trunk), ("head", initialiser.head))
        for name, tensor in module.state_dict().items()
        if tensor.dtype.is_floating_point
    }
    points, errors = initialiser.points, initialiser.errors
    tensors |= {
        "points.triangles": points.triangles.astype(np.int32),
        "points.barycentric": points.barycentric.astype(np.float32),
        "points.mirror": points.mirror.astype(np.int32),
        "errors.patterns": errors.patterns.astype(np.float16),
        "errors.variances": errors.variances.astype(np.float32),
        "errors.floor": np.array([errors.floor], np.float32),
        "errors.shapes": errors.shapes.astype(np.float16),
        "errors.response": errors.response.astype(np.float16),
    }
    metadata = {"format": FORMAT, "card": json.dumps(initialiser.card)}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def read_weights(path: Path, model: LinearFaceModel) -> Initialiser:
    """Raises ModelFileError for a file of another kind, or made for another model."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ModelFileError(
                f"{path} has {path.stat().st_size} bytes, weights have at most {LARGEST_BYTES}"
            )
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} holds no weights: {error}") from None
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path} is {metadata.get('format')!r}, expected {FORMAT!r}: train again")
    try:
        points = DensePoints(
            tensors["points.triangles"].astype(np.int64),
            tensors["points.barycentric"],
            tensors["points.mirror"].astype(np.int64),
        )
        trunk = Trunk()
        head = Head(Sizes(len(points), model.n_identity, model.n_expression, model.n_albedo))
        for part, module in (("trunk", trunk), ("head", head)):
            own = {
                n[len(part) + 1 :]: torch.from_numpy(t).float()
                for n, t in tensors.items()
                if n.startswith(part + ".")
            }
            counters = {n: t for n, t in module.state_dict().items() if not t.dtype.is_floating_point}
            module.load_state_dict({**own, **counters})
        errors = ErrorPatterns(
            tensors["errors.patterns"].astype(np.float64),
            tensors["errors.variances"].astype(np.float64),
            float(tensors["errors.floor"][0]),
            tensors["errors.shapes"].astype(np.float64),
            tensors["errors.response"].astype(np.float64),
        )
        card = json.loads(metadata["card"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path} does not fit the model {model.name} ({error}): train again with facefit train --model {model.name}"
        ) from None
    if int(points.triangles.max(initial=0)) >= len(model.topology.triangles):
        raise ModelFileError(
            f"{path} names triangles that {model.name} has not: it was trained on another version"
        )
    return Initialiser(trunk.eval(), head.eval(), points, errors, card)
