"""Drawn pictures kept in files, so that a training may see each several times and go on after a stop."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import fields
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from facefit.learned_init.synthetic import Sample, Synthesizer

PICTURES = 2048
Arrays = dict[str, np.ndarray]


def shard_path(folder: Path, model: str, number: int) -> Path:
    return folder / f"{model}-{number:05d}.npz"


def draw_shard(
    synthesizer: Synthesizer, folder: Path, seed: int, number: int, pictures: int = PICTURES
) -> Path:
    """Draw pictures `number * pictures` and following into one file; an existing file is kept.

    Every picture shows a person of its own, so shards of different numbers never share an identity.
    """
    path = shard_path(folder, synthesizer.model.name, number)
    if path.exists():
        return path
    arrays = stacked([synthesizer(seed, number * pictures + i) for i in range(pictures)])
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)
    return path


def stacked(samples: list[Sample]) -> Arrays:
    """One array per field of `Sample`, pictures first; floating-point numbers as float32."""
    found: Arrays = {}
    for field in fields(Sample):
        column = np.stack([np.asarray(getattr(sample, field.name)) for sample in samples])
        found[field.name] = column.astype(np.float32) if column.dtype == np.float64 else column
    return found


def read_shard(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def draw_in_background(
    models: list[str], folder: Path, seed: int, shards: int, workers: int
) -> list[BaseProcess]:
    """Processes that draw the first `shards` shards of each model and end; they die with their parent."""
    context = multiprocessing.get_context("spawn")
    found: list[BaseProcess] = []
    for worker in range(workers):
        numbers = list(range(worker, shards, workers))
        process = context.Process(target=_draw, args=(models, folder, seed, numbers), daemon=True)
        process.start()
        found.append(process)
    return found


def _draw(models: list[str], folder: Path, seed: int, numbers: list[int]) -> None:
    import torch

    from facefit.models import load_model

    torch.set_num_threads(1)
    synthesizers = [Synthesizer(load_model(name)) for name in models]
    for number in numbers:
        for synthesizer in synthesizers:
            draw_shard(synthesizer, folder, seed, number)
