"""From distances to figures: pooled statistics, intervals over subjects, cumulative curves, tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.run import Row, plain

# Bootstrap medians are read off histograms: exact to half a bin, a thousand times cheaper than sorting.
BIN_MM, LONGEST_MM = 0.002, 40.0


def pooled(distances: Sequence[Float[np.ndarray, "n"]]) -> Row:
    """Median, mean and population standard deviation over the vertices of all images together.

    Not a mean of medians: an image with more scan vertices weighs more, as in NoW.
    """
    if not distances or not sum(map(len, distances)):
        return {"images": 0, "median": None, "mean": None, "std": None}
    together = np.concatenate(distances).astype(np.float64)
    return {
        "images": len(distances),
        "median": float(np.median(together)),
        "mean": float(together.mean()),
        "std": float(together.std()),
    }


def median_interval(
    by_subject: Mapping[str, Sequence[Float[np.ndarray, "n"]]], level: float = 0.95, resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile bootstrap of the pooled median; what is drawn are subjects, since their images are no
    independent evidence. None with fewer than three subjects."""
    if len(by_subject) < 3:
        return None
    from scipy.stats import bootstrap

    edges = np.arange(0.0, LONGEST_MM + BIN_MM, BIN_MM)
    counts = np.stack(
        [np.histogram(np.minimum(np.concatenate(list(d)), LONGEST_MM), edges)[0] for d in by_subject.values()]
    )
    cumulated = counts.cumsum(1).astype(np.float32)

    def median(index: np.ndarray, axis: int) -> Any:
        drawn = np.moveaxis(index.astype(int), axis, -1).reshape(-1, index.shape[axis])
        weights = np.stack([np.bincount(row, minlength=len(counts)) for row in drawn]).astype(np.float32)
        curve = weights @ cumulated
        middle = edges[(curve < curve[:, -1:] / 2).sum(1)] + BIN_MM / 2
        return middle.reshape(np.delete(np.array(index.shape), axis)) if index.ndim > 1 else middle[0]

    found = bootstrap(
        (np.arange(len(counts)),),
        median,
        n_resamples=resamples,
        batch=200,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def mean_interval(values: Mapping[str, Sequence[float]], level: float = 0.95) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean of the subjects' means."""
    means = np.array([np.mean(list(v)) for v in values.values() if len(list(v))])
    if len(means) < 3 or np.ptp(means) == 0:
        return None
    from scipy.stats import bootstrap

    found = bootstrap(
        (means,), np.mean, confidence_level=level, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def plot_cumulative(
    path: Path, curves: Mapping[str, Sequence[Float[np.ndarray, "n"]]], title: str = ""
) -> None:
    """Percentage of vertices within an error, 0 to 8 mm; the axes of the published NoW plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(0, 8, 801)
    for name, distances in curves.items():
        if distances and sum(map(len, distances)):
            ordered = np.sort(np.concatenate(list(distances)))
            share = 100 * np.searchsorted(ordered, grid, side="right") / len(ordered)
            axes.plot(grid, share, label=f"{name} (median {np.median(ordered):.2f} mm)")
    axes.set(xlim=(0, 8), ylim=(0, 100), xlabel="Error [mm]", ylabel="Percentage", title=title)
    axes.set_xticks(range(9))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(alpha=0.4)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Scalar columns of the rows; a value of many numbers stays in the JSON."""
    scalar = [{k: plain(v) for k, v in row.items()} for row in rows]
    names = list(dict.fromkeys(k for row in scalar for k, v in row.items() if not isinstance(v, list | dict)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(scalar)


def markdown(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table; `columns` maps a key to its heading. Numbers with three decimals, nothing for None."""
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, tuple | list):
        return " – ".join(_cell(v) for v in value)
    return str(value)
