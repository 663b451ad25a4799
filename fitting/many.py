"""Many photographs: one process per core with one thread each, the model in memory once.

The processes are fresh interpreters, started by command rather than by `multiprocessing`: nothing of the
caller's threads is copied, and the caller's script is not run again, so it needs no `if __name__ == "__main__"`.
They answer over their standard output, and end when their standard input does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch

from facefit.errors import FacefitError
from facefit.fitting.recipe import fit
from facefit.fitting.result import FitResult
from facefit.fitting.stages import STANDARD, Stage
from facefit.models import load_model
from facefit.models.face_model import LinearFaceModel
from facefit.observation import Observation

Photo = str | Path | Observation
Outcome = FitResult | FacefitError
Progress = Callable[[str, float], None]
Found = TypeVar("Found")

# Photographs on a device together: enough to fill it, in some 2 GB.
BATCH = 128

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def fit_many(
    photos: Sequence[Photo],
    model: LinearFaceModel | str | Path = "builtin",
    stages: Sequence[Stage] = STANDARD,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Fit each photograph by itself; one that fails is returned as its error, in its place.

    Photographs are paths (read, and faces found, by the workers) or observations. `jobs` processes work at a
    time (None: one per core this process may use), each with one thread, so that every result equals, bit for
    bit, that of `fit` with one thread. Starting a process takes some two seconds of a core and 0.4 GB; the
    model is shared.

    A model on a CUDA device (`model.to("cuda")`) is fitted there instead, `BATCH` photographs at a time, by
    `fit_batched`, to its stated tolerances; results hold the model on the CPU, and `jobs` has no meaning.

    `progress(photo, share done)` is called in the caller's thread after each photograph. Ctrl-C ends the
    processes at once.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs = {jobs}: give at least one process, or None for one per core")
    outcomes: list[Outcome] = [FacefitError("not fitted")] * len(photos)
    if not photos:
        return []
    model = model if isinstance(model, LinearFaceModel) else load_model(model)
    if model.mean.device.type != "cpu":
        return in_batches(photos, model.to("cpu"), stages, model.mean.device, progress)
    with tempfile.TemporaryDirectory(prefix="facefit-", ignore_cleanup_errors=True) as folder:
        setup = pickle.dumps((_lay_down(model, Path(folder) / "model"), tuple(stages)))
        crew = Crew(photos, setup, min(jobs or usable_cores(), len(photos)))
        with contextlib.closing(crew):
            for done, (index, answer) in enumerate(crew.answers(), 1):
                photo = photos[index]
                if isinstance(answer, FitResult):
                    seen = photo if isinstance(photo, Observation) else answer.observation
                    answer = replace(answer, model=model, observation=seen)
                outcomes[index] = answer
                if progress is not None:
                    progress(called(photo, index), done / len(photos))
    return outcomes


def in_batches(
    photos: Sequence[Photo],
    model: LinearFaceModel,
    stages: Sequence[Stage],
    device: torch.device | str,
    progress: Progress | None = None,
) -> list[Outcome]:
    """`fit_many` in this process, a batch of photographs at a time on a device; the model is on the CPU."""
    from facefit.fitting.batched.recipe import fit_batched

    outcomes: list[Outcome] = []
    for start in range(0, len(photos), BATCH):
        names = [called(photo, start + i) for i, photo in enumerate(photos[start : start + BATCH])]
        read = [
            _attempt(partial(_observed, photo), name)
            for photo, name in zip(photos[start : start + BATCH], names, strict=True)
        ]
        seen = [photo for photo in read if isinstance(photo, Observation)]
        try:
            fitted: Iterator[Outcome] = iter(fit_batched(seen, model, stages, device) if seen else [])
        except Exception:
            # One photograph spoils the batch: by itself each is fitted, or says what is wrong with it.
            fitted = (
                _attempt(partial(fit, photo, model, stages=stages), name)
                for photo, name in zip(read, names, strict=True)
                if isinstance(photo, Observation)
            )
        outcomes += [next(fitted) if isinstance(photo, Observation) else photo for photo in read]
        if progress is not None:
            progress(names[-1], len(outcomes) / len(photos))
    return outcomes


def usable_cores() -> int:
    """Cores this process may run on: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def called(photo: Photo, index: int) -> str:
    """What a photograph is called in messages: its path, or its place in the list."""
    path = photo.path if isinstance(photo, Observation) else photo
    return f"photograph {index + 1}" if path is None else str(path)


class Crew:
    """Worker processes, each minded by a thread that hands it the next photograph and waits for the answer."""

    def __init__(self, photos: Sequence[Photo], setup: bytes, size: int) -> None:
        self._photos, self._setup = photos, setup
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Outcome] | BaseException] = queue.SimpleQueue()
        self._workers: set[Worker] = set()
        self._closed, self._lock = False, threading.Lock()
        for index in range(len(photos)):
            self._waiting.put(index)
        self._threads = [threading.Thread(target=self._mind, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def answers(self) -> Iterator[tuple[int, Outcome]]:
        """(index, outcome) in the order in which they are done."""
        for _ in self._photos:
            while True:
                # With a time limit, so that Ctrl-C is noticed on every system.
                with contextlib.suppress(queue.Empty):
                    answer = self._answers.get(timeout=0.2)
                    break
            if isinstance(answer, BaseException):
                raise answer
            yield answer

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.process.kill()
        for thread in self._threads:
            thread.join()

    def _mind(self) -> None:
        worker: Worker | None = None
        try:
            while not self._closed:
                try:
                    index = self._waiting.get_nowait()
                except queue.Empty:
                    break
                worker = worker or self._hire()
                photo = self._photos[index]
                try:
                    self._answers.put((index, worker.ask((photo, called(photo, index)))))
                except (EOFError, OSError):
                    # A process that is killed, as where memory runs out, takes one photograph with it.
                    ended = self._dismiss(worker)
                    worker = None
                    message = f"{called(photo, index)}: the process that fitted it ended ({ended})"
                    self._answers.put((index, FacefitError(message)))
        except BaseException as error:  # raised again where the answers are awaited
            self._answers.put(error)
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _hire(self) -> Worker:
        with self._lock:
            if self._closed:
                raise FacefitError("no more photographs are wanted")
            worker = Worker()
            self._workers.add(worker)
        try:
            worker.ask(self._setup)
        except (EOFError, OSError):
            raise FacefitError(
                f"a process for fitting could not be started ({self._dismiss(worker)}); its message is above"
            ) from None
        return worker

    def _dismiss(self, worker: Worker) -> str:
        """Let a process end by itself; how it did."""
        code = worker.end()
        with self._lock:
            self._workers.discard(worker)
        return f"signal {-code}, as when memory runs out" if code < 0 else f"exit code {code}"


class Worker:
    """A process that fits, and the two pipes to it."""

    def __init__(self) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        code = f"import sys; sys.path[:] = {path!r}; from facefit.fitting.many import work; work()"
        # In a session of its own it never sees the terminal's Ctrl-C, which is the caller's to handle.
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")},
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def ask(self, question: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        send(self.process.stdin, question)
        return receive(self.process.stdout)

    def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        return code


def work() -> None:
    """A worker's life: the model and the recipe first, then photographs until its input ends."""
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    torch.set_num_threads(1)
    laid, stages = pickle.loads(receive(questions))
    model = _pick_up(laid)
    send(answers, None)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            photo, name = receive(questions)
            send(answers, _outcome(photo, name, model, stages))


def _outcome(photo: Photo, name: str, model: LinearFaceModel, stages: tuple[Stage, ...]) -> Outcome:
    def result() -> FitResult:
        observation = _observed(photo)
        # The caller has the model, and the observation if that was the question.
        known: Any = None
        found = fit(observation, model, stages=stages)
        return replace(found, model=known, observation=known if photo is observation else observation)

    return _attempt(result, name)


def _observed(photo: Photo) -> Observation:
    return photo if isinstance(photo, Observation) else Observation.from_file(photo)


def _attempt(action: Callable[[], Found], name: str) -> Found | FacefitError:
    """What an action on a photograph returns, or why it failed: one photograph must not end the others."""
    try:
        return action()
    except FacefitError as error:
        return error
    except Exception as error:
        failure = FacefitError(f"{name}: {type(error).__name__}: {error}")
        failure.add_note(traceback.format_exc())
        return failure


def send(stream: IO[bytes], message: Any) -> None:
    """One pickled message after its length in eight bytes."""
    data = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message; `EOFError` where there is none, or half of one."""
    header = stream.read(8)
    size = struct.unpack("<Q", header)[0] if len(header) == 8 else 0
    data = stream.read(size)
    if not size or len(data) < size:
        raise EOFError
    return pickle.loads(data)


@dataclass(frozen=True)
class LaidDown:
    """A model as a file of plain arrays and the pickled rest, which says where they lie."""

    path: Path
    rest: bytes
    spans: tuple[tuple[int, int], ...]


def _lay_down(model: LinearFaceModel, path: Path) -> LaidDown:
    """Write a model's arrays to one file, for any number of processes to map."""
    parts = {field.name: getattr(model, field.name) for field in fields(model)}
    arrays = {
        name: part.detach().cpu().contiguous().numpy() if isinstance(part, torch.Tensor) else part
        for name, part in parts.items()
    }
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(arrays, protocol=5, buffer_callback=buffers.append)
    spans = []
    with path.open("wb") as file:
        for buffer in buffers:
            # Each array begins at a multiple of a cache line, as if it had been allocated.
            file.write(bytes(-file.tell() % 64))
            start = file.tell()
            file.write(buffer.raw())
            spans.append((start, file.tell()))
    return LaidDown(path, rest, tuple(spans))


def _pick_up(laid: LaidDown) -> LinearFaceModel:
    """The model, its arrays being the file's pages, which all processes share."""
    with laid.path.open("rb") as file:
        # Copied where written to, which nothing does: torch warns of memory it may not write.
        pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    arrays = pickle.loads(laid.rest, buffers=[pages[start:end] for start, end in laid.spans])
    parts: dict[str, Any] = {
        name: torch.from_numpy(part) if isinstance(part, np.ndarray) else part
        for name, part in arrays.items()
    }
    return LinearFaceModel(**parts)
