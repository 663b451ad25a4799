"""`facefit bench speed`: where the milliseconds go, how they grow, and what others need for the same job.

Everything is measured warm, with the median and the spread of repeated calls, in one process; comparators run
side by side with what they are compared with, on the same data.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from facefit.benchmarks.comparators import comparators
from facefit.benchmarks.estimate import model_label, model_named
from facefit.benchmarks.growth import growth, memory
from facefit.benchmarks.peers import beside_eos, rasterising
from facefit.benchmarks.recipes import recipe
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.timing import peak_memory_mb, spread, timed
from facefit.errors import UnreadableInput

SIZES = (256, 512, 1024, 2048)
PICTURES = (128, 256, 512, 1024)
FITS = 7


def portrait(folder: Path) -> Path:
    """scikit-image's public-domain portrait of an astronaut, 512 x 512."""
    from PIL import Image

    try:
        from skimage import data
    except ImportError as error:
        raise UnreadableInput("no --photo given and scikit-image, which holds one, is missing") from error
    path = folder / "astronaut.png"
    astronaut: Any = data.astronaut
    Image.fromarray(astronaut()).save(path)
    return path


def stages(photo: Path, model_name: str, method: str) -> list[Row]:
    """Reading and detecting, starting, each stage of the recipe, writing everything; then the whole."""
    import facefit as ff
    from facefit.export import write_results

    model, chosen = model_named(model_name), recipe(method)
    observation = ff.Observation.from_file(photo)
    rows: list[Row] = [
        {"what": "read and detect", **timed(lambda: ff.Observation.from_file(photo))},
        {"what": "start", **timed(lambda: ff.initialize(observation, model))},
    ]
    result = ff.fit(observation, model, stages=chosen)
    began = time.perf_counter()
    fits: list[tuple[float, Any]] = []
    while len(fits) < FITS and (len(fits) < 3 or time.perf_counter() - began < 20):
        start = time.perf_counter()
        result = ff.fit(observation, model, stages=chosen)
        fits.append((1000 * (time.perf_counter() - start), result.stages))
    for number, stage in enumerate(fits[0][1]):
        samples = [1000 * reports[number].seconds for _, reports in fits]
        rows.append({"what": f"fit: {stage.name}", **spread(samples)})
    rows.append({"what": "fit: all stages", **spread([whole for whole, _ in fits])})
    with tempfile.TemporaryDirectory() as folder:
        rows.append(
            {"what": "write all files", **timed(lambda: write_results(result, Path(folder)), repeats=3)}
        )
    return rows


def scaling(photo: Path, model_name: str, method: str, models: Sequence[str]) -> list[Row]:
    """By size of the photograph, by model (vertices and unknowns), by size of a rendered picture."""
    from PIL import Image

    import facefit as ff

    model, chosen, rows = model_named(model_name), recipe(method), list[Row]()
    with tempfile.TemporaryDirectory() as folder, Image.open(photo) as whole:
        for size in SIZES:
            path = Path(folder) / f"{size}.png"
            factor = size / max(whole.size)
            shape = (round(whole.width * factor), round(whole.height * factor))
            whole.convert("RGB").resize(shape).save(path)
            rows.append(
                {
                    "what": f"photograph of {size} px: read and detect",
                    **timed(partial(ff.Observation.from_file, path), repeats=5, budget_s=3),
                }
            )
            seen = ff.Observation.from_file(path)
            row = timed(partial(ff.fit, seen, model, stages=chosen), repeats=3, budget_s=3)
            rows.append({"what": f"photograph of {size} px: fit", **row})
    observation = ff.Observation.from_file(photo)
    for name in dict.fromkeys([model_name, *models]):
        other = model_named(name)
        unknowns = other.n_identity + other.n_expression + other.n_albedo
        row = timed(partial(ff.fit, observation, other, stages=chosen), repeats=3, budget_s=3)
        rows.append(
            {"what": f"fit: {model_label(name)}, {other.n_vertices} vertices, {unknowns} modes", **row}
        )
    scene = ff.initialize(observation, model)
    with torch.no_grad():
        for size in PICTURES:
            row = timed(partial(ff.render, scene, model, size, size), repeats=5, budget_s=2)
            rows.append({"what": f"render {size} x {size}", **row})
    return rows


@dataclass(frozen=True)
class ThroughputWork:
    """The same photograph again, with the clock read at both ends (after the process has warmed up)."""

    photo: Path
    model: str
    method: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        import facefit as ff
        from facefit.benchmarks.estimate import warm_up

        warm_up(self.photo, self.model, self.method)
        began = time.time()
        ff.reconstruct(self.photo, model_named(self.model), stages=recipe(self.method))
        return {"began": began, "ended": time.time()}, {}


def throughput(photo: Path, model: str, method: str, jobs: int, count: int = 8) -> Row:
    """Photographs per second, detection included, in `jobs` processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"benchmark": "throughput"})
        keys = [f"{k:03d}" for k in range(max(count, 4 * jobs))]
        work = ThroughputWork(photo, model, method)
        rows = run_items(run, keys, work, jobs=jobs, label=f"{jobs} processes", apart=True)
    good = [row for row in rows if row["error"] is None]
    if not good:
        raise UnreadableInput(f"{photo}: {rows[0]['error']}")
    span = max(row["ended"] for row in good) - min(row["began"] for row in good)
    return {
        "what": f"photographs per second, {jobs} process{'es' if jobs > 1 else ''}",
        "per second": len(good) / span,
        **spread([1000 * (row["ended"] - row["began"]) for row in good]),
    }


def many(photo: Path, model: str, method: str, jobs: int, count: int = 8) -> Row:
    """The same through `fit_many`, the start of its processes included: what a user with a folder waits for."""
    from facefit.fitting.many import fit_many

    start = time.perf_counter()
    outcomes = fit_many([photo] * count, model, stages=recipe(method), jobs=jobs)
    seconds = time.perf_counter() - start
    failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
    return {
        "what": f"fit_many, {count} photographs, {jobs} process{'es' if jobs > 1 else ''}, from a cold start",
        "ms": 1000 * seconds,
        "per second": (count - failed) / seconds,
        "note": f"{failed} failed" if failed else None,
    }


def training_pictures(model: Any, count: int = 20) -> Row:
    """What one drawing process of `facefit train` makes for the first network; such processes share nothing."""
    from facefit.learned_init.synthetic import Synthesizer

    draw, numbers, threads = Synthesizer(model), itertools.count(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        row = timed(lambda: [draw(0, number) for number in itertools.islice(numbers, count)])
    finally:
        torch.set_num_threads(threads)
    row |= {name: row[name] / count for name in ("ms", "p10", "p90")}
    return {"what": "training pictures, 1 process", **row, "per second": 1000 / row["ms"]}


COLUMNS = {
    "part": "part", "what": "what", "ms": "median ms", "p10": "p10", "p90": "p90", "cpu ms": "least CPU ms",
    "per second": "per second", "times": "times ours", "true mm": "true mm", "grey levels": "grey levels",
    "note": "note",
}  # fmt: skip


def evaluate_speed(
    out: Path,
    *,
    model: str,
    method: str = "standard",
    photo: Path | None = None,
    models: Sequence[str] = (),
    jobs: int = 1,
    threads: int | None = None,
    quick: bool = False,
) -> Report:
    out.mkdir(parents=True, exist_ok=True)
    if threads is not None:
        torch.set_num_threads(threads)
    photo = photo or portrait(out)
    # First of all: memory is what a process has never held before.
    memories = [] if quick else memory(photo, model_named(model), recipe(method))
    rows: list[Row] = [{"part": "stages", **row} for row in stages(photo, model, method)]
    rows += [{"part": "memory", **row} for row in memories]
    rows.append({"part": "memory", "what": "peak resident size, MB", "note": _megabytes()})
    if not quick:
        import facefit as ff

        seen = ff.Observation.from_file(photo)
        rows += [{"part": "growth", **row} for row in growth(model_named(model), recipe(method))]
        rows += [{"part": "raster", **row} for row in rasterising(model_named(model))]
        rows += [{"part": "peers", **row} for row in beside_eos(seen, model_named(model), recipe(method))]
        rows += [{"part": "scaling", **row} for row in scaling(photo, model, method, models)]
        rows += [{"part": "batch", **throughput(photo, model, method, n)} for n in dict.fromkeys((1, jobs))]
        rows.append({"part": "batch", **many(photo, model, method, jobs)})
        rows.append({"part": "training", **training_pictures(model_named(model))})
        rows += [{"part": "comparators", **row} for row in comparators(photo, model_named(model))]
    settings = {
        "benchmark": "speed",
        "model": model_label(model),
        "method": method,
        "photo": photo.name,
        "torch threads": torch.get_num_threads(),
    }
    for number, row in enumerate(rows):
        row |= {"item": f"{number:03d} {row['what']}", "error": None}
    headline = (
        f"Speed, {model_label(model)}, {method}, {photo.name}, {torch.get_num_threads()} threads, warm."
    )
    report = Report(headline, settings, rows, rows, COLUMNS)
    report.write(out)
    return report


def _megabytes() -> str | None:
    peak = peak_memory_mb()
    return None if peak is None else f"{peak:.0f} MB"
