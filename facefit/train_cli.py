"""`facefit train`: the learned start for one's own face model, from pictures drawn with it."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import click

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
    """Train the network that starts every fit; hours on a CPU, to be stopped and resumed at will."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from facefit.learned_init.shards import draw_in_background, shard_path
    from facefit.learned_init.ship import ship
    from facefit.learned_init.train import Settings, Training
    from facefit.learned_init.weights import own_weights
    from facefit.models import load_model

    work = work or Path("facefit_training")
    settings = Settings(steps=steps)
    end = time.monotonic() + 60 * minutes
    models = [load_model(name) for name in names]
    draw_in_background(list(names), work / "pictures", settings.seed, shards, workers)
    training = Training(models, work, work / "pictures", settings)
    first = [shard_path(work / "pictures", model.name, 0) for model in models]
    while not all(path.exists() for path in first) and time.monotonic() < end:
        click.echo(f"waiting for the first pictures in {work / 'pictures'} ...", err=True)
        time.sleep(20)
    # Until the slice is over, a line whenever the training has saved itself.
    while training.step < steps and time.monotonic() < end:
        training.run(min(end - time.monotonic(), 120.0))
        errors = ", ".join(f"{m.name} {training.recent(f'{m.name} points'):.2f} px" for m in models)
        click.echo(f"step {training.step} of {steps}: points {errors}", err=True)
    if training.step < steps:
        click.echo(
            f"stopped at step {training.step} of {steps}; the same command goes on from {training.checkpoint}"
        )
        return
    for model in models:
        path = output / f"{model.name}.safetensors" if output else own_weights(model.name)
        ship(training, model.name, path)
        click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
