"""`facefit bench`: one subcommand per benchmark; options that move a figure are in its report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from facefit.errors import FacefitError

if TYPE_CHECKING:
    from facefit.benchmarks.report import Report

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
METHODS = click.Choice(["mean", "landmarks", "standard", "detailed"])
UNIT = click.Choice(["mm", "cm", "m"])
SET = click.Choice(["validation", "test"])
LANDMARKS = click.Choice(["detected", "facefit", "truth"])
PHOTO = click.Path(exists=True, dir_okay=False, path_type=Path)
AT_LEAST_ONE = click.IntRange(min=1)
OUTPUT = click.Path(file_okay=False, path_type=Path)


@click.group()
def bench() -> None:
    """Measure accuracy and speed; figures with the protocol's name, failures counted."""
    # As the command line does when it fits: idle OpenMP threads sleep instead of spinning. Before torch is
    # imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option(
    "--landmarks",
    type=LANDMARKS,
    default="detected",
    show_default=True,
    help="Whose: dlib's, our own network's, or the manifest's, as a perfect detector would find them.",
)
@click.option("--together", is_flag=True, help="Fit the images of a head as photographs of one person.")
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N images.")
@click.option("--ablate", is_flag=True, help="Fit again without each term and stage: what each buys.")
@click.option("--only", help="Only images whose SUBJECT/CHALLENGE/NAME contains this.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def heads(
    ablate: bool,
    data: Path,
    model: str,
    out: Path,
    method: str,
    landmarks: str,
    together: bool,
    limit: int | None,
    only: str | None,
    jobs: int,
) -> None:
    """Path-traced heads with exact ground truth: NoW error, landmarks, pose, focal length."""
    from facefit.benchmarks.ablation import evaluate_ablation
    from facefit.benchmarks.heads import evaluate_heads

    if ablate and together:
        raise click.UsageError("--ablate fits each image by itself: leave out --together")
    options: dict[str, Any] = {} if ablate else {"together": together}
    report = (evaluate_ablation if ablate else evaluate_heads)(
        data,
        out,
        model=model,
        method=method,
        landmarks=landmarks,
        limit=limit,
        jobs=jobs,
        only=only,
        **options,
    )
    finish(report, out)


@bench.command("model-space")
@click.option("--data", type=FOLDER, help="Folder with imagepathsvalidation.txt and scans/.")
@click.option("--identities-of", help="Instead of --data: random identities of this model as scans.")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N subjects.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def model_space(
    data: Path | None, identities_of: str | None, model: str, out: Path, limit: int | None, jobs: int
) -> None:
    """How near a model's mean face and identity space come to scans: the lower bound of any fit."""
    from facefit.benchmarks.model_space import evaluate_model_space

    scans = data or identities_of
    if scans is None or (data and identities_of):
        raise click.UsageError("give either --data or --identities-of")
    finish(evaluate_model_space(scans, out, model=model, limit=limit, jobs=jobs), out)


@bench.command()
@click.option("--data", type=FOLDER, required=True, help="Folder with imagepathsvalidation.txt.")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--predictions", type=FOLDER, help="Evaluate this folder, of any method, instead.")
@click.option("--unit", type=UNIT, default="mm", show_default=True, help="Unit of the prediction files.")
@click.option("--image-set", type=SET, default="validation", show_default=True)
@click.option("--predict-only", is_flag=True, help="Write predictions (the test set has no public scans).")
@click.option("--check", is_flag=True, help="Only name the mistakes found in the predictions.")
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N images.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def now(
    data: Path,
    model: str,
    out: Path,
    method: str,
    predictions: Path | None,
    unit: str,
    image_set: Literal["validation", "test"],
    predict_only: bool,
    check: bool,
    limit: int | None,
    jobs: int,
) -> None:
    """NoW challenge: predict, evaluate by the published protocol, name known mistakes."""
    from facefit.benchmarks import now_run
    from facefit.benchmarks.estimate import model_label
    from facefit.benchmarks.now import Dataset

    dataset, rows = Dataset(data, image_set), []
    if predictions is None:
        rows = now_run.predict(dataset, out, model=model, method=method, limit=limit, jobs=jobs)
    if predict_only:
        failed = [row for row in rows if row["error"]]
        click.echo(f"{len(rows) - len(failed)} of {len(rows)} predictions in {out / 'predictions'}")
        for row in failed:
            click.echo(f"failed: {row['item']}: {row['error']}")
        return
    report = now_run.evaluate(
        dataset,
        predictions or out / "predictions",
        out,
        name=predictions.name if predictions else f"{model_label(model)}, {method}",
        unit=unit,
        mean_model=None if predictions else model,
        predicted=rows,
        limit=limit,
        jobs=jobs,
    )
    traps = report.extra["traps"]
    for trap, sentence in traps.items():
        click.echo(f"{trap}: {sentence}", err=not check)
    if check:
        click.echo(f"{len(traps)} kinds of mistake found; {report.coverage} predictions could be read")
        raise SystemExit(1 if traps or report.failures else 0)
    finish(report, out)


@bench.command()
@click.option("--data", type=FOLDER, required=True, help="Root of Florence MICC: subject_NN/Model, ...")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--predictions", type=FOLDER, help="SUBJECT/SETTING.ply with .npy, of any method, instead.")
@click.option("--landmarks-dir", type=FOLDER, help="Folder of the scans' 68 landmarks, .ljson, .npy or .txt.")
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N subjects.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def micc(
    data: Path,
    model: str,
    out: Path,
    method: str,
    predictions: Path | None,
    landmarks_dir: Path | None,
    limit: int | None,
    jobs: int,
) -> None:
    """Florence MICC in three named protocols: micc-deng, micc-genova, micc-ganfit."""
    from facefit.benchmarks.micc import evaluate_micc
    from facefit.benchmarks.micc_data import MiccData

    source = MiccData(data, landmarks_dir)
    report = evaluate_micc(
        source, out, model=model, method=method, predictions=predictions, limit=limit, jobs=jobs
    )
    finish(report, out)


@bench.command()
@click.option("--data", type=FOLDER, required=True, help="Folder with image00002.jpg, image00002.mat, ...")
@click.option("--configs", type=FOLDER, help="3DDFA's test.configs/: yaw bins, re-annotated points.")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N images.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def aflw2000(
    data: Path, configs: Path | None, model: str, out: Path, method: str, limit: int | None, jobs: int
) -> None:
    """AFLW2000-3D: landmark error by yaw, head pose."""
    from facefit.benchmarks.aflw2000 import Aflw2000, evaluate_aflw2000

    source = Aflw2000(data, configs)
    report = evaluate_aflw2000(source, out, model=model, method=method, limit=limit, jobs=jobs)
    finish(report, out)
    for name, value in report.extra.items():
        click.echo(f"{name}: {value}")


@bench.command()
@click.option("--data", type=FOLDER, required=True, help="Root of BU-3DFE: F0001/F0001_NE00WH_F3D.wrl, ...")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N images.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def bu3dfe(data: Path, model: str, out: Path, method: str, limit: int | None, jobs: int) -> None:
    """BU-3DFE: posed faces against the scan of the same photograph (protocol bu3dfe-95mm)."""
    from facefit.benchmarks.bu3dfe import Bu3dfe, evaluate_bu3dfe

    finish(evaluate_bu3dfe(Bu3dfe(data), out, model=model, method=method, limit=limit, jobs=jobs), out)


@bench.command()
@click.option("--data", type=FOLDER, required=True, help="REALY's regions, keypoints and metrical_scale.txt.")
@click.option("--predictions", type=FOLDER, required=True, help="ID.obj and keypoints.txt of their topology.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--limit", type=AT_LEAST_ONE, help="Only the first N scans.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def realy(data: Path, predictions: Path, out: Path, limit: int | None, jobs: int) -> None:
    """REALY: error by region, re-implemented and not verified against the official evaluation."""
    from facefit.benchmarks.realy import evaluate_realy

    finish(evaluate_realy(data, predictions, out, limit=limit, jobs=jobs), out)


@bench.command()
@click.option("--model", default="builtin", show_default=True, help="The model that fits.")
@click.option("--draw", help="The model that draws the pictures; default: the one that fits.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--landmarks", type=LANDMARKS, default="detected", show_default=True)
@click.option("--limit", "count", type=AT_LEAST_ONE, default=50, show_default=True, help="How many pictures.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def synthetic(
    model: str, draw: str | None, out: Path, method: str, landmarks: str, count: int, jobs: int
) -> None:
    """Rendered pictures with known truth: true error, parameters, calibration; by yaw, tone, occlusion."""
    from facefit.benchmarks.synthetic import evaluate_synthetic

    report = evaluate_synthetic(
        out, model=model, draw=draw, method=method, landmarks=landmarks, count=count, jobs=jobs
    )
    finish(report, out)


@bench.command()
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--limit", "count", type=AT_LEAST_ONE, default=12, show_default=True, help="How many faces.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, one thread each.")
@fails_with_a_sentence
def recovery(model: str, out: Path, count: int, jobs: int) -> None:
    """Faces fitted to their own renderings, with noise and without priors: what the fit by itself is worth."""
    from facefit.benchmarks.recovery import evaluate_recovery

    finish(evaluate_recovery(out, model=model, count=count, jobs=jobs), out)


@bench.command("init")
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--data", type=FOLDER, help="Path-traced heads; without it, pictures drawn with the model.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--limit", "count", type=AT_LEAST_ONE, default=60, show_default=True, help="How many pictures.")
@click.option("--jobs", type=AT_LEAST_ONE, default=1, show_default=True)
@fails_with_a_sentence
def starts(model: str, data: Path | None, out: Path, method: str, count: int, jobs: int) -> None:
    """The landmark start against the network's: errors before and after the fit, steps, time."""
    from facefit.benchmarks.starts import evaluate_starts

    finish(evaluate_starts(out, model=model, data=data, method=method, count=count, jobs=jobs), out)


@bench.command()
@click.option("--model", default="builtin", show_default=True, help="A model's name or file.")
@click.option("--models", multiple=True, help="Others, to see how time grows with vertices and modes.")
@click.option("--out", type=OUTPUT, required=True)
@click.option("--stages", "method", type=METHODS, default="standard", show_default=True)
@click.option("--photo", type=PHOTO, help="Default: scikit-image's portrait of an astronaut.")
@click.option(
    "--jobs", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes for the batch figure."
)
@click.option("--threads", type=int, help="Of torch in the measured process; default torch's own.")
@click.option("--quick", is_flag=True, help="Stages only: no scaling, batch or comparators.")
@fails_with_a_sentence
def speed(
    model: str,
    models: tuple[str, ...],
    out: Path,
    method: str,
    photo: Path | None,
    jobs: int,
    threads: int | None,
    quick: bool,
) -> None:
    """Milliseconds per stage, scaling, throughput, memory, and others on the same job."""
    from facefit.benchmarks.speed import evaluate_speed

    report = evaluate_speed(
        out, model=model, method=method, photo=photo, models=models, jobs=jobs, threads=threads, quick=quick
    )
    finish(report, out)


@bench.command()
@click.argument("out", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@fails_with_a_sentence
def save(out: Path, target: Path) -> None:
    """Keep the report of a run, without its rows, as a result for the README's tables."""
    from facefit.benchmarks.tables import save as keep

    keep(out, target)
    click.echo(target)


@bench.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--results", type=FOLDER, help="Default: benchmarks/results beside the document.")
@fails_with_a_sentence
def tables(document: Path, results: Path | None) -> None:
    """Renew a document's tables, between <!-- bench:NAME --> and <!-- /bench -->, from results/NAME.json."""
    from facefit.benchmarks.tables import renew

    for name in renew(document, results or document.parent / "benchmarks" / "results"):
        click.echo(name)
