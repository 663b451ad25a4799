"""Timing one thing: warmed up, repeated, median and spread."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from facefit.benchmarks.run import Row


def timed(call: Callable[[], object], *, repeats: int = 15, budget_s: float = 4.0) -> Row:
    """Milliseconds: median, and the tenth and ninetieth percentile, of calls after a first one that is not
    counted.

    Slow things are repeated less often, but three times at least.
    """
    call()
    samples: list[float] = []
    end = time.perf_counter() + budget_s
    while len(samples) < repeats and (len(samples) < min(3, repeats) or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        samples.append(1000 * (time.perf_counter() - start))
    return spread(samples)


def spread(samples_ms: list[float]) -> Row:
    ordered = sorted(samples_ms)
    tenth = ordered[round(0.1 * (len(ordered) - 1))]
    ninetieth = ordered[round(0.9 * (len(ordered) - 1))]
    return {"ms": statistics.median(ordered), "p10": tenth, "p90": ninetieth, "repeats": len(ordered)}


def peak_memory_mb() -> float | None:
    """The largest resident size this process has had; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    held = held_mb()
    if held is not None:
        return held["VmHWM"]
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def held_mb() -> dict[str, float] | None:
    """What the process holds: all (VmRSS), its own (RssAnon), the most it ever held (VmHWM); None where unknown.

    What is not its own are pages of files, libraries above all, which the system drops and reads again as it likes.
    The peak that getrusage tells includes the process that started this one.
    """
    if not sys.platform.startswith("linux"):
        return None
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(said[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}
