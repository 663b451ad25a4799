"""Training pictures on disk: files of some thousand, drawn by processes beside the training, each once.

A file is written under another name and then moved, so that a reader never sees half of one; processes that find a
file there go on to the next, so drawing can be stopped at any time and goes on after a stop.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facefit.models.face_model import LinearFaceModel

PICTURES = 2048
Arrays = dict[str, np.ndarray]
# A seed and the number of a picture to its samples: dataclasses of arrays.
Draw = Callable[[int, int], Iterable[Any]]


def shard_path(folder: Path, model: str, number: int) -> Path:
    return folder / f"{model}-{number:05d}.npz"


def draw_shard(
    draw: Draw, model: str, folder: Path, seed: int, number: int, pictures: int = PICTURES
) -> Path:
    """Draw pictures `number * pictures` and following into one file; an existing file is kept.

    Every picture shows a person of its own, so shards of different numbers never share an identity.
    """
    path = shard_path(folder, model, number)
    if path.exists():
        return path
    samples = [s for i in range(pictures) for s in draw(seed, number * pictures + i)]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(temporary, **stacked(samples))  # type: ignore[arg-type]
    temporary.replace(path)
    return path


def stacked(samples: Sequence[Any]) -> Arrays:
    """One array per field of the samples, pictures first; floating-point numbers as float32."""
    found: Arrays = {}
    for field in fields(samples[0]):
        column = np.stack([np.asarray(getattr(sample, field.name)) for sample in samples])
        found[field.name] = column.astype(np.float32) if column.dtype == np.float64 else column
    return found


def read_shard(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def draw_in_background(
    models: list[str],
    drawing: Callable[[LinearFaceModel], Draw],
    folder: Path,
    seed: int,
    shards: int,
    workers: int,
) -> list[BaseProcess]:
    """Processes that draw the first `shards` shards of each model and end; they die with their parent.

    `drawing` is a function at the top of a module: the processes import it.
    """
    context = multiprocessing.get_context("spawn")
    found: list[BaseProcess] = []
    for worker in range(workers):
        numbers = list(range(worker, shards, workers))
        process = context.Process(target=_draw, args=(models, drawing, folder, seed, numbers), daemon=True)
        process.start()
        found.append(process)
    return found


def _draw(
    models: list[str],
    drawing: Callable[[LinearFaceModel], Draw],
    folder: Path,
    seed: int,
    numbers: list[int],
) -> None:
    from facefit.models import load_model

    torch.set_num_threads(1)
    draws = {name: drawing(load_model(name)) for name in models}
    for number in numbers:
        for name, draw in draws.items():
            draw_shard(draw, name, folder, seed, number)


class Pictures:
    """The shards of a model whose number modulo 20 lies in `among`, as they come to be."""

    def __init__(self, folder: Path, model: str, among: range) -> None:
        self.folder, self.model, self.among = folder, model, among
        self.shards: dict[int, Arrays] = {}

    def look(self) -> None:
        """Take in the shards drawn since the last look."""
        for number in range(10_000):
            if number % 20 in self.among and number not in self.shards:
                path = shard_path(self.folder, self.model, number)
                if path.exists():
                    self.shards[number] = numbers_of(read_shard(path))

    def any(self) -> Arrays:
        """One of the shards. Raises FileNotFoundError where there is none."""
        if not self.shards:
            raise FileNotFoundError(f"no pictures of {self.model} in {self.folder}: draw more")
        return next(iter(self.shards.values()))

    def batch(self, count: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Pictures at random from the shards at hand."""
        names = self.any()
        shards = [self.shards[n] for n in rng.choice(list(self.shards), count)]
        picks = [(shard, int(rng.integers(len(next(iter(shard.values())))))) for shard in shards]
        return {name: torch.from_numpy(np.stack([shard[name][i] for shard, i in picks])) for name in names}

    def batches(self, limit: int, size: int = 128) -> Iterator[dict[str, torch.Tensor]]:
        """Every picture of the first `limit` shards."""
        for number in sorted(self.shards)[:limit]:
            shard = self.shards[number]
            for start in range(0, len(next(iter(shard.values()))), size):
                yield {name: torch.from_numpy(rows[start : start + size]) for name, rows in shard.items()}


def numbers_of(arrays: Arrays) -> Arrays:
    """Without what is text."""
    return {name: rows for name, rows in arrays.items() if rows.dtype.kind != "U"}
