"""`facefit train`: the learned start for one's own face model, from pictures drawn with it."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from facefit.learned_init.shards import Draw
    from facefit.learned_init.training import Training
    from facefit.models.face_model import LinearFaceModel

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--model", "names", metavar="NAME|FILE", multiple=True, required=True,
              help="A face model; several share one network body and are learnt together.")  # fmt: skip
@click.option("--work", metavar="DIR", type=FOLDER, help="Pictures and checkpoints; run again with the "
              "same folder to go on [default: facefit_training].")  # fmt: skip
@click.option("--shards", metavar="N", default=40, show_default=True, type=click.IntRange(20),
              help="Files of 2048 pictures drawn for each model (110 MB each).")  # fmt: skip
@click.option(
    "--steps", metavar="N", default=20_000, show_default=True, type=click.IntRange(1), help="Batches of 64."
)
@click.option("--minutes", metavar="N", default=math.inf, type=float, help="Stop after so long; go on later.")
@click.option("--workers", metavar="N", default=1, show_default=True, type=click.IntRange(0),
              help="Processes that draw beside the training.")  # fmt: skip
@click.option(
    "-o", "--output", metavar="DIR", type=FOLDER, help="Where the weights go [default: where fits look]."
)
def train(
    names: tuple[str, ...],
    work: Path | None,
    shards: int,
    steps: int,
    minutes: float,
    workers: int,
    output: Path | None,
) -> None:
    """Train the networks of a face model: the first look, which finds the face's points and a start for the fit, then
    the closer look, which corrects a first fit's points. Hours on a CPU, to be stopped and resumed at will.
    """
    from facefit.learned_init.closer_train import CloserTraining
    from facefit.learned_init.closer_weights import closer_name
    from facefit.learned_init.shards import draw_in_background
    from facefit.learned_init.ship import ship_closer, ship_first
    from facefit.learned_init.train import FirstTraining
    from facefit.learned_init.training import Settings
    from facefit.models import load_model

    work = work or Path("facefit_training")
    settings = Settings(steps=steps)
    end = time.monotonic() + 60 * minutes
    models = [load_model(name) for name in names]

    for look, drawing, kind in (
        ("first", drawing_first, FirstTraining),
        ("closer", partial(drawing_closer, output=output), CloserTraining),
    ):
        folder = work / look
        training = kind(models, folder, folder / "pictures", settings)
        if not training.over:
            drawn = draw_in_background(
                list(names), drawing, folder / "pictures", settings.seed, shards, workers
            )
            learn(training, look, end)
            for process in drawn:
                process.terminate()
        if not training.over:
            click.echo(
                f"stopped at step {training.step} of {steps}, {look} look; the same command goes on from there"
            )
            return
        for model in models:
            if isinstance(training, FirstTraining):
                path = weights_path(output, model.name)
                ship_first(training, model.name, path)
            else:
                path = weights_path(output, closer_name(model.name))
                ship_closer(training, model.name, path)
            click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def learn(training: Training, look: str, end: float) -> None:
    """Until the slice is over, with a line whenever the training has saved itself."""
    while not training.ready() and time.monotonic() < end:
        click.echo("waiting for the first pictures ...", err=True)
        time.sleep(20)
    while not training.over and time.monotonic() < end:
        training.run(min(end - time.monotonic(), 120.0))
        errors = {k: round(v, 2) for k, v in training.latest().items() if k.endswith(" points")}
        click.echo(f"{look} look, step {training.step} of {training.settings.steps}: {errors}", err=True)


def drawing_first(model: LinearFaceModel) -> Draw:
    from facefit.learned_init.synthetic import Synthesizer

    synthesizer = Synthesizer(model)
    return lambda seed, index: [synthesizer(seed, index)]


def drawing_closer(model: LinearFaceModel, output: Path | None) -> Draw:
    """Half of what the closer look learns from begins where the first look, just trained, has the landmarks."""
    from facefit.learned_init.closer_samples import CloserSynthesizer
    from facefit.learned_init.weights import read_weights
    from facefit.reconstruct import first_fit

    return CloserSynthesizer(model, first_fit, read_weights(weights_path(output, model.name), model))


def weights_path(output: Path | None, name: str) -> Path:
    from facefit.learned_init.weight_file import own_weights

    return output / f"{name}.safetensors" if output else own_weights(name)
