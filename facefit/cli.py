"""The command line: `facefit photo.jpg`, and the groups `facefit models` and `facefit bench`.

Nothing heavy is imported before it is needed: `facefit --help` answers in a fraction of a second.
Exit codes: 0 fitted, 1 the fit failed, 2 wrong usage, 3 no face, 4 unreadable input or unwritable output,
5 model file, 130 interrupted. With several photographs the worst of them, in the order 0, 3, 4, 5, 1.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import facefit
from facefit.errors import FacefitError
from facefit.output_folder import whole_folder
from facefit.steps import Progress, announced, ending_between_steps, heed, printable

if TYPE_CHECKING:
    from facefit.fitting.result import FitResult
    from facefit.fitting.stages import Stage
    from facefit.models.face_model import LinearFaceModel

GROUPS = {
    "models": ("facefit.models_cli", "models"),
    "bench": ("facefit.benchmarks.cli", "bench"),
    "train": ("facefit.train_cli", "train"),
}
SEVERITY = (0, 3, 4, 5, 1)


class FrontDoor(click.Group):
    """A group whose first argument may be a photograph: what is no command goes to `fit`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.list_commands(ctx), "--help", "-h", "--version"):
            _mistyped(args[0])
            args = ["fit", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["fit", *GROUPS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "fit":
            return fit_photos
        if cmd_name not in GROUPS:
            return None
        module, attribute = GROUPS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise click.UsageError(
                f"facefit {cmd_name} needs {error.name}: pip install 'facefit[bench]'"
            ) from None
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FacefitError as error:
            click.echo(printable(f"facefit: {error}"), err=True)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            click.echo("facefit: interrupted", err=True)
            raise SystemExit(130) from None

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The page of `fit` is the page of `facefit`; its last lines name the groups, which stay unimported.
        fit_photos.format_help(click.Context(fit_photos, info_name=ctx.info_name), formatter)


def _mistyped(word: str) -> None:
    """Refuse what is neither a photograph nor a command but nearly one."""
    near = difflib.get_close_matches(word, GROUPS, n=1)
    if near and not Path(word).exists():
        raise click.UsageError(f"no such file or command: {word}; did you mean `facefit {near[0]}`?")


def _face_choice(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    if value in ("largest", "all"):
        return value
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'largest', 'all' nor a number from 1")


@click.group(cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(facefit.__version__, message="facefit %(version)s")
def main() -> None:
    """facefit: one photograph to a 3D face."""


@click.command(
    "fit",
    epilog="""\b
Other commands:
  facefit models   which face models there are, their licences, how to get them
  facefit bench    measure accuracy and speed on benchmark data
  facefit train    train the network that starts the fits of a face model

\b
Exit codes: 0 fitted, 1 the fit failed, 2 wrong usage, 3 no face found,
4 input unreadable or output unwritable, 5 face model missing or invalid, 130 interrupted.""",
)
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Output folder "
              "[default: PHOTO_facefit]; the parent of several faces' or photos'.")  # fmt: skip
@click.option("--model", metavar="NAME|FILE", default="builtin", show_default=True, help="Face model.")
@click.option("--landmarks", metavar="dlib|facefit|FILE", default="dlib", show_default=True,
              help="Who finds the 68 points, "
              "dlib's file (not for commercial use) or our network; or a .pts or .npy file with them.")  # fmt: skip
@click.option("--face", metavar="largest|all|N", default="largest", callback=_face_choice, show_default=True,
              help="Which of several faces; 1 is the largest.")  # fmt: skip
@click.option("--same-person", is_flag=True, help="The PHOTOs show one person: one shape and skin from all.")
@click.option("--fov", metavar="DEG", type=click.FloatRange(1, 150), help="Field of view of the longer side "
              "[default: EXIF's focal length, else 30].")  # fmt: skip
@click.option("--mask", metavar="FILE", type=click.Path(path_type=Path), help="Image: white pixels are used.")
@click.option("--stages", type=click.Choice(["fast", "standard", "detailed"]), default="standard",
              show_default=True, help="fast: landmarks only; detailed: wrinkles and texture offsets "
              "besides, as maps and a dense mesh.")  # fmt: skip
@click.option("--threads", metavar="N", type=click.IntRange(1), help="CPU threads [default: all cores].")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something goes wrong.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each face on standard output.")
def fit_photos(photos: tuple[Path, ...], threads: int | None, **options: Any) -> None:
    """Fit a 3D face to each PHOTO: meshes, textures, parameters, and a report to look at."""
    options["same_person"] = options["same_person"] and len(photos) > 1
    request = Request(several=len(photos) > 1, **options)
    request.check(photos)
    if threads is not None:
        _limit_threads(threads)
    try:
        with ending_between_steps():
            code = _run(photos, request)
    except KeyboardInterrupt:
        click.echo("facefit: interrupted; nothing half-written is left behind", err=True)
        code = 130
    raise SystemExit(code)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    several: bool
    output: Path | None
    model: str
    landmarks: str
    face: str | int
    same_person: bool
    fov: float | None
    mask: Path | None
    stages: str
    quiet: bool
    as_json: bool

    def check(self, photos: tuple[Path, ...]) -> None:
        given = self.landmarks not in ("dlib", "facefit")
        if given and (self.several or self.face != "largest"):
            raise click.UsageError(
                "--landmarks describes one face of one photograph: give one PHOTO and no --face"
            )
        if self.mask and self.several:
            raise click.UsageError("--mask belongs to one photograph: give one PHOTO")
        if self.same_person and self.face == "all":
            raise click.UsageError(
                "--same-person takes one face of each photograph: give --face largest or a number"
            )
        if self.same_person:
            return
        folders: dict[Path, Path] = {}
        for photo in photos:
            other = folders.setdefault(self.folder(photo, 1), photo)
            if other is not photo:
                raise click.UsageError(
                    f"{other} and {photo} would both be written to {self.folder(photo, 1)}: "
                    "fit them one at a time, with -o"
                )

    @property
    def many(self) -> bool:
        """Whether there may be many results: a line for each is enough."""
        return self.several or self.face == "all"

    def person_folder(self, photos: tuple[Path, ...]) -> Path:
        return self.output or Path(f"{photos[0].stem}_person_facefit")

    def folder(self, photo: Path, number: int) -> Path:
        if self.output is not None and not self.several and self.face != "all":
            return self.output
        name = f"{photo.stem}_{number}_facefit" if self.face == "all" else f"{photo.stem}_facefit"
        return (self.output or Path()) / name


def _run(photos: tuple[Path, ...], request: Request) -> int:
    """Fit photograph after photograph; one that fails does not stop the others."""
    wanted = not (request.quiet or request.as_json)
    try:
        with announced(wanted) as progress:
            progress("loading the face model", 0.0)
            from facefit.models import load_model

            model = load_model(request.model)
    except FacefitError as error:
        return _report_error(None, error, request)
    if request.same_person:
        return _fit_person(photos, model, request, wanted)
    codes: list[int] = []
    terms: set[str] = set()
    for photo in photos:
        try:
            with announced(wanted) as progress:
                written = _fit_photo(photo, model, request, progress)
        except FacefitError as error:
            codes.append(_report_error(photo, error, request))
        except Exception as error:
            if not request.several:
                raise
            traceback.print_exc()
            codes.append(_report_error(photo, error, request))
        else:
            for one in written:
                _report(photo, one, request)
                terms.add(one.result.terms)
            codes.append(0 if all(one.result.status.ok for one in written) else FacefitError.exit_code)
    if request.many and wanted:
        count = [f"{codes.count(0)} of {len(photos)} photographs fitted"] if request.several else []
        click.echo(printable("\n".join([*sorted(terms), *count])))
    return max(codes, key=SEVERITY.index)


class Written(NamedTuple):
    """One face's folder, its files with what each is, and the fit in them."""

    folder: Path
    files: list[tuple[str, str]]
    result: FitResult


def _fit_photo(photo: Path, model: LinearFaceModel, request: Request, progress: Progress) -> list[Written]:
    from facefit.export import write_results
    from facefit.reconstruct import reconstruct, reconstruct_all

    options: dict[str, Any] = {"fov": request.fov, "mask": request.mask, "stages": _recipe(request)}

    def named(what: str, share: float) -> None:
        progress(f"{photo.name}: {what}", share)

    if request.face == "all":
        results = reconstruct_all(photo, model, landmarks=request.landmarks, progress=named, **options)
    else:
        face: Any = request.face
        results = [
            reconstruct(photo, model, face=face, landmarks=request.landmarks, progress=named, **options)
        ]
    written = []
    for number, result in enumerate(results, start=1):
        named("writing", 1.0)
        folder = request.folder(photo, number)
        with whole_folder(folder) as partial:
            files = write_results(result, partial)
            heed()
        written.append(Written(folder, files, result))
    return written


def _fit_person(photos: tuple[Path, ...], model: LinearFaceModel, request: Request, wanted: bool) -> int:
    """One person from all photographs, in one folder."""
    from facefit.reconstruct import reconstruct_together
    from facefit.together_folder import write_together

    face: Any = request.face
    folder = request.person_folder(photos)
    try:
        with announced(wanted) as progress:
            joint = reconstruct_together(
                photos,
                model,
                landmarks=request.landmarks,
                face=face,
                fov=request.fov,
                stages=_recipe(request),
                progress=progress,
            )
            progress("writing", 1.0)
            with whole_folder(folder) as partial:
                files = write_together(joint, partial)
                heed()
    except FacefitError as error:
        return _report_error(None, error, request)
    code = 0 if joint.status.ok else FacefitError.exit_code
    if request.as_json:
        line = {
            "photos": [str(photo) for photo in photos],
            "exit_code": code,
            "folder": str(folder),
            "files": dict(files),
            "status": joint.status.value,
            "summary": joint.summary(),
            "warnings": list(joint.warnings),
        }
        click.echo(json.dumps(line))
    elif not request.quiet:
        click.echo(printable("\n".join([*_listing(folder, files), joint.summary()])))
    return code


def _recipe(request: Request) -> tuple[Stage, ...]:
    from facefit.fitting.stages import DETAILED, FAST, STANDARD

    return {"fast": FAST, "standard": STANDARD, "detailed": DETAILED}[request.stages]


def _listing(folder: Path, files: list[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in files), default=0)
    return [f"{folder}{os.sep}", *(f"  {name:<{width}}  {what}" for name, what in files)]


def _report(photo: Path, written: Written, request: Request) -> None:
    folder, files, result = written
    if request.as_json:
        line = {
            "photo": str(photo),
            "exit_code": 0 if result.status.ok else FacefitError.exit_code,
            "folder": str(folder),
            "files": dict(files),
            "status": result.status.value,
            "verdict": result.verdict.grade,
            "summary": result.summary(),
            "warnings": list(result.warnings),
        }
        click.echo(json.dumps(line))
    elif request.quiet:
        return
    elif request.many:
        found = "; ".join([result.verdict.sentence, *result.warnings])
        click.echo(printable(f"{folder / 'report.html'}: {found}"))
    else:
        lines = [*_listing(folder, files), result.summary()]
        if any(name == "report.html" for name, _ in files):
            lines.append(f"Look at {folder / 'report.html'}")
        click.echo(printable("\n".join(lines)))


def _report_error(photo: Path | None, error: Exception, request: Request) -> int:
    known = isinstance(error, FacefitError)
    code = error.exit_code if isinstance(error, FacefitError) else FacefitError.exit_code
    sentence = str(error) if known else f"{photo}: an error in facefit itself, please report it: {error!r}"
    if request.as_json:
        click.echo(
            json.dumps({"photo": None if photo is None else str(photo), "exit_code": code, "error": sentence})
        )
    click.echo(printable(f"facefit: {sentence}"), err=True)
    return code


def _limit_threads(count: int) -> None:
    # Read by the thread pools when their libraries are first imported, which comes after this.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(count)
    if "numba" not in sys.modules:
        os.environ["NUMBA_NUM_THREADS"] = str(count)
    import torch

    torch.set_num_threads(count)


if __name__ == "__main__":
    main()
