"""Gauss-Newton against a tuned Adam: the same function, the same start, CPU time to the same loss.

    python -m facefit.benchmarks.adam_race [--model builtin] [--faces 4] [--out race.json]

The function is one dense stage (landmarks, photometric samples, priors), its discrete choices (visible
samples, robust weights) frozen once, where the recipe's fit ended, so that both descend exactly the same
smooth function; both start where the recipe's dense stage does, after landmarks and light. Adam is tuned on
faces that are not raced: all learning rates together, the schedule, then each group of blocks by itself. Each
runs with one thread and is timed by the processor's clock.

Two figures for Adam: with the gradient by automatic differentiation of a lean torch implementation (bases of
the samples gathered once), and a lower bound, as if a gradient cost no more than the kernel's value alone.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.benchmarks.pictures import draw_scene, photograph
from facefit.fitting.adam import LEARNING_RATES, Adam, Cyclical, Schedule, constant, cosine
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.recipe import fit
from facefit.fitting.residual import AbstractResidual, NormalEquations, cost, normal_equations
from facefit.fitting.residuals.landmarks import landmark_residual
from facefit.fitting.residuals.photometric import PhotometricResidual, read_spline
from facefit.fitting.residuals.priors import CoefficientPrior, LightPrior
from facefit.fitting.result import StageReport
from facefit.fitting.stages import STANDARD
from facefit.fitting.surface_samples import surface_samples
from facefit.models import load_model
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import project
from facefit.rendering.shade import lambertian, linear_to_srgb

FREE = ("rotation", "translation", "identity", "expression", "albedo", "lighting")
GROUPS = {
    "pose": ("rotation", "translation"),
    "shape": ("identity", "expression"),
    "colour": ("albedo", "lighting"),
}
SCHEDULES: Mapping[str, Schedule] = {"constant": constant, "cosine": cosine, "cyclical": Cyclical(3)}
# Within this share of the minimum the race is decided; what follows is float32's.
SLACK = 0.01


@dataclass(frozen=True)
class Fixed(AbstractResidual):
    """A term frozen for good."""

    term: AbstractResidual
    name: str = ""

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        return self.term(scene)


@normal_equations.register
def _(residual: Fixed, scene: Scene, free: tuple[str, ...]) -> NormalEquations:
    return normal_equations(residual.term, scene, free)


@cost.register
def _(residual: Fixed, scene: Scene) -> float:
    return cost(residual.term, scene)


class Lean:
    """`PhotometricResidual.__call__` with the samples' rows gathered once instead of at every step."""

    name = "photometric"

    def __init__(self, term: PhotometricResidual) -> None:
        assert term.frozen is not None
        chosen, samples = term.frozen.chosen, term.samples
        self.means = [torch.from_numpy(a[chosen]) for a in (samples.geometry_mean, samples.albedo_mean)]
        self.bases = [torch.from_numpy(a[chosen]) for a in (samples.geometry_basis, samples.albedo_basis)]
        self.image, self.origin = (
            torch.from_numpy(term.level.image),
            torch.from_numpy(term.level.origin).float(),
        )
        self.scale, self.weight = term.level.scale, torch.from_numpy(term.frozen.weight)

    def __call__(self, scene: Scene) -> Float[Tensor, ""]:
        geometry = self.means[0] + self.bases[0] @ torch.cat([scene.identity, scene.expression])
        albedo = self.means[1] + self.bases[1] @ scene.albedo
        normal = torch.nn.functional.normalize(torch.linalg.cross(geometry[:, 3:6], geometry[:, 6:9]), dim=-1)
        predicted = linear_to_srgb(lambertian(albedo, scene.lighting.irradiance(normal)))
        pixels = scene.camera.project(scene.pose.apply(geometry[:, :3]))
        observed, inside = read_spline(self.image, (pixels - self.origin) * self.scale - 0.5)
        rows = (self.weight * inside)[:, None] * (predicted - observed)
        return 0.5 * (rows**2).sum()


@dataclass(frozen=True)
class Course:
    """One face's function and start, as each side takes it."""

    terms: list[AbstractResidual]
    losses: list[AbstractResidual | Callable[[Scene], Tensor]]
    start: Scene

    def value(self, scene: Scene) -> float:
        with torch.no_grad():
            return sum(cost(term, scene) for term in self.terms)


def course(model: LinearFaceModel, seed: int, size: int, samples: int) -> Course:
    """A drawn face with noisy landmarks (2 % of the eye distance), and the function its dense stage descends."""
    rng = np.random.default_rng(seed)
    truth = draw_scene(model, rng)
    drawn = photograph(truth, model, rng)
    points = project(truth, model.landmark_points(truth.shape(model))).numpy()
    landmarks = np.full((68, 2), np.nan)
    landmarks[model.topology.landmarks.numbers] = points
    eyes = np.linalg.norm(landmarks[36] - landmarks[45])
    landmarks += rng.normal(0, 0.02 * eyes, landmarks.shape)
    observation = Observation(drawn.image, truth.camera, landmarks, focal_sigma=0.0)
    (level,) = face_pyramid(observation, [size])
    dense = next(i for i, stage in enumerate(STANDARD) if stage.photometric_px and "identity" in stage.free)
    start = fit(observation, model, stages=STANDARD[:dense]).scene
    end = fit(observation, model, stages=STANDARD[: dense + 1]).scene
    photometric = PhotometricResidual(model, surface_samples(model, samples), level).freeze(end)
    marks = landmark_residual(observation, model)
    assert marks is not None
    others = [marks.freeze(end), *(CoefficientPrior(b) for b in ("identity", "expression", "albedo"))]
    others.append(LightPrior().freeze(end))
    fixed = [Fixed(term, term.name) for term in others]
    return Course([*fixed, Fixed(photometric, photometric.name)], [*fixed, Lean(photometric)], start)


@dataclass(frozen=True)
class Tuning:
    """All learning rates times `scale`, those of a group times its factor."""

    scale: float = 1.0
    schedule: str = "cosine"
    factors: Mapping[str, float] = field(default_factory=dict)

    def adam(self, steps: int) -> Adam:
        rates = {name: self.scale * rate for name, rate in LEARNING_RATES.items()}
        for group, factor in self.factors.items():
            for block in GROUPS[group]:
                rates[block] *= factor
        # Never stopped early: what is compared is the best it can do with its steps.
        return Adam(
            steps, rates, SCHEDULES[self.schedule], refreeze=steps + 1, tolerance=0.0, patience=steps + 1
        )


def timed(
    solver: Adam | GaussNewton, course: Course, losses: Sequence[Any]
) -> tuple[float, float, StageReport]:
    """CPU seconds, the function's value at the end, the report."""
    began = time.process_time()
    scene, report = solver.solve(losses, course.start, FREE)
    return time.process_time() - began, course.value(scene), report


def tune(courses: Sequence[Course], steps: int) -> tuple[Tuning, list[dict[str, Any]]]:
    """The best of a grid, by the mean loss (relative to the best seen of each course) after `steps` steps."""
    tried: list[tuple[Tuning, list[float]]] = []

    def losses(tuning: Tuning) -> list[float]:
        for known, found in tried:
            if known == tuning:
                return found
        found = [timed(tuning.adam(steps), one, one.losses)[1] for one in courses]
        tried.append((tuning, found))
        click.echo(f"  scale {tuning.scale:5.2f} {tuning.schedule:9s} {dict(tuning.factors)}: {_list(found)}")
        return found

    def best(options: Sequence[Tuning]) -> Tuning:
        return min(options, key=lambda tuning: float(np.mean(np.log(losses(tuning)))))

    chosen = best([Tuning(scale) for scale in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)])
    chosen = best([replace(chosen, schedule=schedule) for schedule in SCHEDULES])
    for group in GROUPS:
        chosen = best([replace(chosen, factors={**chosen.factors, group: f}) for f in (1.0, 1 / 3, 3.0)])
    return chosen, [{**asdict(tuning), "losses": found} for tuning, found in tried]


def race(course: Course, tuning: Tuning, steps: Sequence[int]) -> list[dict[str, float]]:
    """For each budget of Adam's: its loss and time, and Gauss-Newton's time to that loss."""
    for solver, losses in ((GaussNewton(1), course.terms), (tuning.adam(2), course.losses)):
        timed(solver, course, losses)  # compiled and warm before anything is timed
    newton = [timed(GaussNewton(k, tolerance=0.0), course, course.terms)[:2] for k in range(1, 26)]
    values = []
    for _ in range(30):
        began = time.process_time()
        course.value(course.start)
        values.append(time.process_time() - began)
    value_s = float(np.median(values))
    rows = []
    for count in steps:
        seconds, loss, _ = timed(tuning.adam(count), course, course.losses)
        reached = [(k, s) for k, (s, found) in enumerate(newton, 1) if found <= loss * (1 + SLACK)]
        taken, newton_s = reached[0] if reached else (-1, math.nan)
        rows.append(
            {
                "adam steps": count,
                "adam loss": loss,
                "adam CPU ms": 1e3 * seconds,
                "gauss-newton steps": taken,
                "gauss-newton CPU ms": 1e3 * newton_s,
                "ratio": seconds / newton_s,
                "ratio, free gradients": count * value_s / newton_s,
                "gauss-newton final loss": min(found for _, found in newton),
            }
        )
    return rows


def _list(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers)


@click.command()
@click.option("--model", default="builtin", help="Name or path of a face model.")
@click.option("--faces", default=4, help="Faces to race on.")
@click.option("--size", default=128, help="Pixels a side of the crop.")
@click.option("--samples", default=1000, help="Photometric samples.")
@click.option("--tuning-steps", default=300, help="Steps of Adam while it is tuned (on two other faces).")
@click.option("--steps", default="100,300,1000", help="Budgets of Adam's, in steps.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures here as JSON.")
def main(
    model: str, faces: int, size: int, samples: int, tuning_steps: int, steps: str, out: Path | None
) -> None:
    """Race Gauss-Newton against a tuned Adam."""
    torch.set_num_threads(1)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        click.echo("OMP_NUM_THREADS is not 1: CPU times include threads that wait", err=True)
    face_model = load_model(model)
    click.echo(f"tuning Adam, {tuning_steps} steps, on two faces:")
    tuning, grid = tune([course(face_model, seed, size, samples) for seed in (1001, 1002)], tuning_steps)
    click.echo(f"best: scale {tuning.scale}, {tuning.schedule}, {dict(tuning.factors)}")
    budgets = [int(count) for count in steps.split(",")]
    rows = [race(course(face_model, seed, size, samples), tuning, budgets) for seed in range(faces)]
    for i, budget in enumerate(budgets):
        of = {key: [row[i][key] for row in rows] for key in rows[0][i]}
        click.echo(
            f"Adam {budget} steps: loss {_list(of['adam loss'])} in {_list(of['adam CPU ms'])} CPU-ms; "
            f"Gauss-Newton there in {_list(of['gauss-newton CPU ms'])} CPU-ms "
            f"({[int(k) for k in of['gauss-newton steps']]} steps), ends at "
            f"{_list(of['gauss-newton final loss'])}; ratio median {np.nanmedian(of['ratio']):.0f} "
            f"(least {np.nanmin(of['ratio']):.0f}); with free gradients "
            f"{np.nanmedian(of['ratio, free gradients']):.0f}"
        )
    if out is not None:
        out.write_text(json.dumps({"grid": grid, "tuning": asdict(tuning), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
