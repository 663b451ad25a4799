"""`facefit bench`: one subcommand per benchmark; options that move a figure are in its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facefit.errors import FacefitError

if TYPE_CHECKING:
    from facefit.benchmarks.report import Report

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
OUTPUT = click.Path(file_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure accuracy and speed; figures with the protocol's name, failures counted."""


def fails_with_a_sentence(command: Callable[..., None]) -> Callable[..., None]:
    import functools

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except FacefitError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on where this one stopped", err=True)
            raise SystemExit(130) from None

    return run


def finish(report: Report, out: Path) -> None:
    click.echo(report.text)
    click.echo(out / "report.json")


@bench.command()
@click.option(
    "--data", type=FOLDER, required=True, help="Folder with imagepathsvalidation.txt, images/, scans/."
)
@click.option("--model", default="ict", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True, help="Where predictions/ and report.json go.")
@click.option(
    "--stages",
    "method",
    type=click.Choice(["mean", "landmarks", "standard", "detailed"]),
    default="standard",
    show_default=True,
)
@click.option(
    "--landmarks",
    type=click.Choice(["detected", "truth"]),
    default="detected",
    show_default=True,
    help="`truth` gives the fit the manifest's landmarks: what a perfect detector would buy.",
)
@click.option("--limit", type=int, help="Only the first N images.")
@click.option("--only", help="Only images whose SUBJECT/CHALLENGE/NAME contains this.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def heads(
    data: Path,
    model: str,
    out: Path,
    method: str,
    landmarks: str,
    limit: int | None,
    only: str | None,
    jobs: int,
) -> None:
    """Path-traced heads with exact ground truth: NoW error, landmarks, pose, focal length."""
    from facefit.benchmarks.heads import evaluate_heads

    report = evaluate_heads(
        data, out, model=model, method=method, landmarks=landmarks, limit=limit, jobs=jobs, only=only
    )
    finish(report, out)


@bench.command("model-space")
@click.option("--data", type=FOLDER, required=True, help="Folder with imagepathsvalidation.txt and scans/.")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--limit", type=int, help="Only the first N subjects.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def model_space(data: Path, model: str, out: Path, limit: int | None, jobs: int) -> None:
    """How near a model's mean face and identity space come to scans: the lower bound of any fit."""
    from facefit.benchmarks.model_space import evaluate_model_space

    finish(evaluate_model_space(data, out, model=model, limit=limit, jobs=jobs), out)
