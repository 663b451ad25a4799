"""How the time of a fit grows with vertices, pixels and samples, with its error beside it; and the memory it adds.

Processor time, of calls in turns: what else runs on the machine then slows all of them alike.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.benchmarks.pictures import draw_scene, photograph
from facefit.benchmarks.run import Row
from facefit.benchmarks.timing import held_mb

# Faces drawn, their size in pixels, and samples enough for every pixel that shows one at that size.
FACES, PX, ALL_PIXELS = 3, 256, 32000
REPEATS = 5


def growth(model: Any, stages: Sequence[Any]) -> list[Row]:
    """The standard case beside four times the vertices, four times the pixels and a sample a pixel."""
    dense = subdivided(model)
    everywhere = tuple(replace(s, samples=ALL_PIXELS) if s.samples else s for s in stages)
    faces = [drawn(model, seed) for seed in range(FACES)]
    small = [seen(scene, model, PX) for scene in faces]
    large = [seen(scene, model, 2 * PX) for scene in faces]
    cases = {
        f"{model.n_vertices} vertices, {PX} px, {stages[-1].samples} samples": (model, small, stages),
        f"... {dense.n_vertices} vertices": (dense, small, stages),
        f"... {2 * PX} px": (model, large, stages),
        f"... {ALL_PIXELS} samples, as many as pixels": (model, small, everywhere),
    }
    rows: list[Row] = []
    for name, times in measured(cases).items():
        fitted, pictures, recipe = cases[name]
        errors, rms = zip(
            *(quality(p, fitted, recipe, s, model) for p, s in zip(pictures, faces, strict=True)), strict=True
        )
        row: Row = {"what": name, "cpu ms": times, "true mm": float(np.mean(errors))}
        rows.append(row | {"grey levels": float(np.mean(rms))})
    return [rows[0], *({**row, "times": row["cpu ms"] / rows[0]["cpu ms"]} for row in rows[1:])]


def measured(cases: Mapping[str, tuple[Any, Sequence[Any], Sequence[Any]]]) -> dict[str, float]:
    """Least processor milliseconds of a fit of the first picture of each case, taken in turns."""
    import facefit as ff

    def fit(case: tuple[Any, Sequence[Any], Sequence[Any]]) -> Callable[[], object]:
        model, pictures, stages = case
        return lambda: ff.fit(pictures[0], model, stages=stages)

    return in_turns({name: fit(case) for name, case in cases.items()}, REPEATS)


def in_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least processor milliseconds of each call, one after the other, `repeats` times after a first that warms up."""
    least = dict.fromkeys(calls, np.inf)
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                least[name] = min(least[name], 1000 * (time.process_time() - start))
    return least


def quality(
    picture: Any, model: Any, stages: Sequence[Any], truth: Any, drawn_with: Any
) -> tuple[float, float]:
    """Median distance of the face's corresponding vertices (mm, best similarity) and colour error (grey levels)."""
    import facefit as ff
    from facefit.benchmarks.metrics import correspondence_error

    result = ff.fit(picture, model, stages=stages)
    count = drawn_with.n_vertices
    mine = result.scene.neutral_shape(model)[:count].double().numpy()
    inside = np.zeros(count, dtype=bool)
    inside[np.asarray(drawn_with.topology.region("face"), np.int64)] = True
    errors = correspondence_error(mine, truth.neutral_shape(drawn_with).double().numpy(), inside)
    return float(np.median(errors)), 255 * result.photometric_rms


def drawn(model: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return photograph(draw_scene(model, rng), model, rng).scene


def seen(scene: Any, model: Any, size: int) -> Any:
    """The scene as a photograph of `size` pixels with its own landmarks, before grey, with noise of 0.01."""
    import facefit as ff

    camera, ratio = scene.camera, size / scene.camera.width
    shown = replace(
        camera,
        focal_px=camera.focal_px * ratio,
        principal_point=camera.principal_point * ratio,
        width=size,
        height=size,
    )
    scene = replace(scene, camera=shown)
    with torch.no_grad():
        picture = ff.render(scene, model, size, size)
        points = scene.pose.apply(model.landmark_points(scene.shape(model)))
        pixels = np.full((68, 2), np.nan)
        pixels[np.asarray(model.topology.landmarks.numbers)] = scene.camera.project(points).double().numpy()
    color = torch.where(
        picture.covered[..., None], picture.color, torch.full_like(picture.color, 0.5)
    ).numpy()
    color = color + np.random.default_rng(0).normal(size=color.shape) * 0.01
    image = (color.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return ff.Observation(image, shown, landmarks=pixels)


def subdivided(model: Any) -> Any:
    """The same face with each triangle cut into four: about four times the vertices, the old ones first."""
    topology, count = model.topology, model.n_vertices
    faces = np.asarray(topology.triangles, np.int64)
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=2)
    pairs, number = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    middle = count + number.reshape(-1, 3)

    def refined(field: torch.Tensor) -> torch.Tensor:
        between = (field[..., pairs[:, 0], :] + field[..., pairs[:, 1], :]) / 2
        return torch.cat([field, between], -2)

    def grown(members: Int[np.ndarray, "n"]) -> Int[np.ndarray, "m"]:
        inside = np.zeros(count, dtype=bool)
        inside[members] = True
        return np.concatenate([members, count + np.flatnonzero(inside[pairs].all(1))])

    marks = topology.landmarks
    place, weights = _in_quarters(marks.triangles, marks.barycentric)
    return replace(
        model,
        topology=replace(
            topology,
            triangles=_quarters(faces, middle),
            landmarks=replace(marks, triangles=place, barycentric=weights),
            uv=None,
            uv_triangles=None,
            mirror=None,
            regions={name: grown(np.asarray(members)) for name, members in topology.regions.items()},
        ),
        **{
            name: refined(getattr(model, name))
            for name in ("mean", "identity_basis", "expression_basis", "albedo_mean", "albedo_basis")
        },
    )


def _quarters(faces: Int[np.ndarray, "n 3"], middle: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "four_n 3"]:
    """Triangle t becomes 4 t, 4 t + 1, 4 t + 2 (at its corners) and 4 t + 3 (its middle)."""
    m01, m12, m20 = middle.T
    corners = [(faces[:, 0], m01, m20), (m01, faces[:, 1], m12), (m20, m12, faces[:, 2]), (m01, m12, m20)]
    return np.stack([np.stack(quarter, 1) for quarter in corners], 1).reshape(-1, 3)


def _in_quarters(
    triangles: Int[np.ndarray, "n"], barycentric: Float[np.ndarray, "n 3"]
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
    """The same points among the quarters."""
    place, weights = [], []
    for t, b in zip(triangles, barycentric, strict=True):
        near = int(np.argmax(b))
        if b[near] >= 0.5:
            quarter = 2 * b
            quarter[near] -= 1
        else:
            near, quarter = 3, np.array([1 - 2 * b[2], 1 - 2 * b[0], 1 - 2 * b[1]])
        place.append(4 * int(t) + near)
        weights.append(quarter)
    return np.array(place), np.array(weights, dtype=np.float32)


def memory(photo: Path, model: Any, stages: Sequence[Any]) -> list[Row]:
    """What drawing one triangle, the first fit and the next add to a process that holds program, model, photograph.

    To be asked before anything else was fitted. numba imports the better part of itself, once a process, when the
    first compiled kernel is called, whatever it does: told apart from what a fit needs.
    """
    import facefit as ff
    import facefit.fitting.entry  # what a fit imports is not what it adds
    from facefit.rendering.rasterize import rasterize

    observation = ff.Observation.from_file(photo)
    corners, one = torch.tensor([[0.0, 0.0], [0.0, 8.0], [8.0, 8.0]]), torch.tensor([[0, 1, 2]])

    def fit() -> None:
        ff.fit(observation, model, stages=stages)

    steps: dict[str, Callable[[], object]] = {
        "numba's own modules, at the first kernel": lambda: rasterize(corners, torch.ones(3), one, 8, 8),
        "the first fit: its kernels, the model's samples": fit,
        "a further fit": fit,
    }
    rows: list[Row] = []
    for name, step in steps.items():
        added = memory_added_mb(step)
        rows.append({"what": f"memory added by {name}", "note": None if added is None else f"{added:.0f} MB"})
    return rows


def memory_added_mb(call: Callable[[], object]) -> float | None:
    """How much more the process holds after a call, or during it where that was its highest ever."""
    # What was left behind before must not be swept up, and counted, during the call.
    gc.collect()
    before = held_mb()
    call()
    after = held_mb()
    if before is None or after is None:
        return None
    peak = after["VmHWM"] if after["VmHWM"] > before["VmHWM"] else 0.0
    return max(0.0, after["RssAnon"] - before["RssAnon"], peak - before["VmRSS"])
