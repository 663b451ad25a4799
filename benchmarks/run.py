"""What all benchmarks share: items that fail one by one, resume, processes, progress, provenance.

Every finished item leaves one JSON row (and one .npz where it has arrays) in OUT/items at once. A run that is
interrupted and started again with the same settings and the same code takes those up; failed items are tried
again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from facefit.errors import FacefitError

# The front door's own folder ("") holds detection and the renderer.
ROOMS = ("", "models", "fitting", "learned_init", "benchmarks")

Row = dict[str, Any]
Arrays = dict[str, np.ndarray]
Work = Callable[[str], tuple[Row, Arrays]]

PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "kornia",
    "numba",
    "dlib-bin",
    "dlib",
    "open3d-cpu",
    "open3d",
    "scikit-image",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """An output folder, and the settings and rooms of the package its figures depend on."""

    out: Path
    settings: Mapping[str, Any]
    rooms: tuple[str, ...] = ROOMS

    @property
    def fingerprint(self) -> str:
        """Settings and code in one number: rows made with another one are not taken up."""
        text = json.dumps(dict(self.settings), sort_keys=True, default=str) + code_fingerprint(self.rooms)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, key: str, suffix: str) -> Path:
        return self.out / "items" / f"{key}{suffix}"

    def finished(self, key: str, fingerprint: str) -> Row | None:
        try:
            row: Row = json.loads(self.path(key, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        good = row.get("fingerprint") == fingerprint and row.get("error") is None
        return row if good else None

    def keep(self, key: str, row: Row, arrays: Arrays) -> None:
        target = self.path(key, ".npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        if arrays:
            partial = target.with_name(target.name + ".partial")
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            partial.replace(target)
        write_json(self.path(key, ".json"), row)

    def arrays(self, key: str) -> Arrays:
        path = self.path(key, ".npz")
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def run_items(
    run: Run, keys: Sequence[str], work: Work, *, jobs: int = 1, label: str = "items", apart: bool = False
) -> list[Row]:
    """One row per key, in the order of the keys; `error` holds the sentence of what failed, else None.

    `work` runs in `jobs` processes of one thread each when jobs > 1 (or `apart`), so it must be picklable.
    """
    fingerprint = run.fingerprint
    rows = {key: row for key in keys if (row := run.finished(key, fingerprint)) is not None}
    waiting = [key for key in keys if key not in rows]
    with _progress(label, len(keys), len(rows)) as advance:
        for key, row, arrays in _results(waiting, work, jobs, apart):
            row = {"item": key, **row, "fingerprint": fingerprint}
            run.keep(key, row, arrays)
            rows[key] = row
            advance()
    return [rows[key] for key in keys]


def _results(keys: Sequence[str], work: Work, jobs: int, apart: bool) -> Iterator[tuple[str, Row, Arrays]]:
    if not apart and (jobs <= 1 or len(keys) <= 1):
        for key in keys:
            yield key, *attempt(work, key)
        return
    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(max(1, min(jobs, len(keys))), mp_context=context)
        try:
            futures: dict[Future[tuple[Row, Arrays]], str] = {pool.submit(attempt, work, k): k for k in keys}
            for future in as_completed(futures):
                try:
                    row, arrays = future.result()
                except (OSError, RuntimeError) as error:  # a worker that died takes the pool with it
                    row, arrays = {"error": f"the worker process ended: {error}", "seconds": 0.0}, {}
                yield futures[future], row, arrays
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def attempt(work: Work, key: str) -> tuple[Row, Arrays]:
    """The item's row, with a failure as a sentence in it: one bad item must not end the run."""
    start = time.perf_counter()
    try:
        row, arrays = work(key)
    except FacefitError as error:
        row, arrays = {"error": str(error), "error_type": type(error).__name__}, {}
    except Exception as error:
        row, arrays = {"error": f"{type(error).__name__}: {error}", "error_type": type(error).__name__}, {}
    return {"error": None, **row, "seconds": time.perf_counter() - start}, arrays


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Spawned processes read these variables when they import numpy, torch and numba."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _progress(label: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda: bar.advance(task)


def write_json(path: Path, value: Any) -> None:
    """Complete or not there at all; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else str(value)


def code_fingerprint(rooms: Sequence[str] = ROOMS) -> str:
    """A hash of the package's own Python and TOML files: figures belong to the code that made them."""
    import facefit

    digest = hashlib.sha256()
    folder = Path(facefit.__file__).parent
    files = {
        file
        for room in rooms
        for kind in ("*.py", "*.toml")
        for file in (folder / room).resolve().rglob(kind)
    }
    for file in sorted(files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def provenance() -> Row:
    """Versions, threads, device and commit: what another must know to repeat a figure."""
    import facefit

    row: Row = {
        "facefit": facefit.__version__,
        "commit": _commit(Path(facefit.__file__).resolve().parent),
        "code_sha256": code_fingerprint()[:16],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "cpus": os.cpu_count(),
        # What else the machine was doing: times on a busy one are upper bounds.
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for package in PACKAGES:
        try:
            row[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return row


def _commit(folder: Path) -> str | None:
    """The commit of a source tree, with + where files differ from it; None for an installed wheel."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
