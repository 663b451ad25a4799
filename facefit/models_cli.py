"""`facefit models`: which face models there are, installing, looking into, converting and annotating them.

Errors pass through to `facefit.cli`, which prints one sentence and ends with their exit code.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """Face models: list, install, inspect, convert, annotate."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@models.command()
@click.argument("name", type=click.Choice(["ict"]))
@click.option("--from", "source", type=FILE, help="An archive (.tar.xz, .tar.gz, .zip) or folder at hand.")
def install(name: str, source: Path | None) -> None:
    """Download ICT-FaceKit (380 MB, MIT licence), check and convert it; run again to continue."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from facefit.models.install import install_ict

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("ICT-FaceKit", total=None)
        path = install_ict(
            source, lambda done, total, file: bar.update(task, completed=done, total=total, description=file)
        )
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB): facefit PHOTO --model {name}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(name: str, as_json: bool) -> None:
    """What is in a model: NAME is one of the table's, or the path of a file."""
    from facefit.models import load_model
    from facefit.models.registry import facts

    table = facts(load_model(name))
    if as_json:
        click.echo(json.dumps(table, indent=2))
        return
    width = max(map(len, table))
    for key, value in table.items():
        click.echo(f"{key:<{width}}  {value}")


@models.command()
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where to write; by default beside FILE, as .safetensors.")
def convert(file: Path, output: Path | None) -> None:
    """Any model file as one safe file of ours (the licence of the model stays what it is)."""
    from facefit.models.registry import convert as converted

    path = converted(file, output)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@models.command()
@click.argument("file", type=FILE)
@click.option(
    "-o", "--output", type=FILE, help="Where to write; by default beside FILE, where facefit finds it."
)
@click.option("--preview", type=FILE, help="Also write a picture of the mean face with the landmarks.")
def annotate(file: Path, output: Path | None, preview: Path | None) -> None:
    """Place the 68 landmarks on a model: render its mean face, detect, shoot the detections back."""
    from facefit import annotate as annotation
    from facefit.models import load_model
    from facefit.models.landmark_map import beside

    model = load_model(str(file))
    found = annotation.annotate(model)
    target = beside(file) if output is None else output
    annotation.write(found, model.name, target)
    click.echo(f"{target}: 68 landmarks, the views scatter by {found.spread_mm[17:].mean():.1f} mm")
    if len(model.topology.landmarks.numbers) == 68:
        away = annotation.distances_mm(model, found, model.topology.landmarks)
        click.echo(f"from the model's own: inner {away[17:].mean():.1f} mm, jaw {away[:17].mean():.1f} mm")
    if preview is not None:
        from PIL import Image

        image = annotation.preview(model, found)
        try:
            Image.fromarray((255.0 * image).round().astype("uint8")).save(preview)
        except (OSError, ValueError) as error:
            raise click.BadParameter(
                f"{preview}: cannot be written ({error})", param_hint="--preview"
            ) from None
        click.echo(str(preview))


def _list(as_json: bool) -> None:
    from facefit.models.registry import entries, models_folder

    rows = entries()
    if as_json:
        keys = ("name", "title", "licence_class", "vertices", "modes", "get")
        table = [
            {
                **{key: getattr(row, key) for key in keys},
                "installed": row.installed,
                "path": str(row.path or ""),
            }
            for row in rows
        ]
        click.echo(json.dumps(table, indent=2))
        return
    columns = "{:<15} {:<10} {:<15} {:<17} {}"
    click.echo(
        columns.format("name", "installed", "licence", "vertices", "modes: identity / expression / albedo")
    )
    for row in rows:
        state = "yes" if row.installed else "no"
        click.echo(columns.format(row.name, state, row.licence_class, row.vertices, row.modes))
        click.echo(f"    {row.title}")
        if not row.installed:
            click.echo(f"    get {row.files[0]}: {row.get}")
    click.echo("* the files hold no colour: a prior built from published facts stands in")
    click.echo(f"Put licensed files into {models_folder()}, or give a path instead of a name.")
