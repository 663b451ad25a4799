"""The steps of a command: each is announced to whoever waits, and between two of them a request to end is heeded."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

import click

Progress = Callable[[str, float], None]

_asked: list[int] = []


@contextlib.contextmanager
def ending_between_steps() -> Iterator[None]:
    """On Ctrl-C or SIGTERM: end at the next step, so that no half-written folder is left; asked again, at once.

    An exception raised by the signal's handler at once may be lost: compiled code that calls back into Python drops it.
    """

    def ask(number: int, frame: object) -> None:
        _asked.append(number)
        if len(_asked) > 1:
            heed()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _asked.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def heed() -> None:
    """Where the process has been asked to end, do so."""
    if _asked:
        raise KeyboardInterrupt if _asked[0] == signal.SIGINT else SystemExit(128 + _asked[0])


@contextlib.contextmanager
def announced(wanted: bool) -> Iterator[Progress]:
    """Told before each step, which is where a request to end is heeded; shown as a bar or a line, or not at all."""
    with _shown(wanted) as show:

        def step(what: str, share: float) -> None:
            heed()
            show(what, share)

        yield step


@contextlib.contextmanager
def _shown(wanted: bool) -> Iterator[Progress]:
    """A bar on a terminal's standard error; without a terminal, one line when it begins."""
    if not wanted:
        yield lambda what, share: None
    elif not _is_terminal():
        said: list[str] = []

        def begin(what: str, share: float) -> None:
            if not said:
                said.append(what)
                click.echo(printable(f"{what} ..."), err=True)

        yield begin
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(30),
            TimeElapsedColumn(),
        )
        # Standard output stays what it is: a result may be piped on while the bar is shown.
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda what, share: bar.update(task, description=printable(what), completed=share)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def printable(text: str) -> str:
    """File names may hold bytes that are no text."""
    return text.encode("utf-8", "replace").decode()
