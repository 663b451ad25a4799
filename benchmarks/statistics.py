"""From distances to figures: pooled statistics and intervals over subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.run import Row

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
