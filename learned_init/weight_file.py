"""Trained weights on disk: one safetensors file a network and model, float16, with its points and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from facefit.errors import ModelFileError
from facefit.learned_init.points import DensePoints
from facefit.models.cache import atomic_path, cache_folder
from facefit.models.face_model import LinearFaceModel

FOLDER = Path(__file__).parent
LARGEST_BYTES = 64 * 2**20

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class WeightFile:
    """What a file holds, before it is known to fit."""

    path: Path
    tensors: Tensors
    card: dict[str, Any]

    def points(self) -> DensePoints:
        return DensePoints(
            self.tensors["points.triangles"].astype(np.int64),
            self.tensors["points.barycentric"],
            self.tensors["points.mirror"].astype(np.int64),
        )

    def fill(self, part: str, module: nn.Module) -> nn.Module:
        """The module with its weights, ready to answer."""
        start = part + "."
        own = {
            name.removeprefix(start): torch.from_numpy(tensor).float()
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }
        counters = {n: t for n, t in module.state_dict().items() if not t.dtype.is_floating_point}
        module.load_state_dict({**own, **counters})
        return module.eval()


def own_weights(name: str) -> Path:
    """Where `facefit train` puts weights, and where they are looked for first."""
    return cache_folder() / "initialisers" / f"{name}.safetensors"


def found_weights(name: str) -> Path | None:
    """One's own weights, or those that ship; None where there are none."""
    for path in (own_weights(name), FOLDER / f"{name}.safetensors"):
        if path.exists():
            return path
    return None


def write_file(
    path: Path, kind: str, modules: Mapping[str, nn.Module], points: DensePoints, more: Tensors, card: dict[str, Any]
) -> None:  # fmt: skip
    from safetensors.numpy import save_file

    tensors = {
        f"{part}.{name}": tensor.detach().cpu().numpy().astype(np.float16)
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
        if tensor.dtype.is_floating_point
    }
    tensors |= {
        "points.triangles": points.triangles.astype(np.int32),
        "points.barycentric": points.barycentric.astype(np.float32),
        "points.mirror": points.mirror.astype(np.int32),
    }
    with atomic_path(path) as temporary:
        save_file({**tensors, **more}, temporary, {"format": kind, "card": json.dumps(card)})


@contextmanager
def reading(path: Path, kind: str, model: LinearFaceModel) -> Iterator[WeightFile]:
    """The file's contents; what is wrong with it, here or in the body, is a ModelFileError that names it."""
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
    if metadata.get("format") != kind:
        raise ModelFileError(f"{path} is {metadata.get('format')!r}, expected {kind!r}: train again")
    try:
        yield WeightFile(path, tensors, json.loads(metadata["card"]))
        triangles = tensors["points.triangles"]
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path} does not fit the model {model.name} ({error}): train again with facefit train --model {model.name}"
        ) from None
    if int(triangles.max(initial=0)) >= len(model.topology.triangles) or int(triangles.min(initial=0)) < 0:
        raise ModelFileError(
            f"{path} names triangles that {model.name} has not: it was trained on another version"
        )
