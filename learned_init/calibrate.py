"""How the closer look errs, on pictures it never saw: how far it stays with the first fit, which errors go together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.learned_init.closer_network import CloserHead, CloserTrunk, Correction
from facefit.learned_init.closer_train import inputs, unflipped
from facefit.learned_init.closer_weights import ErrorPatterns
from facefit.learned_init.losses import Batch

PATTERNS, SHAPES = 100, 150
# Whitened errors beyond this are misses; the fit's robust weights deal with them, not its covariance.
LARGEST_ERROR, LARGEST_DISPLACEMENT = 4.0, 30.0

Whitened = Float[np.ndarray, "pictures points 2"]


@torch.no_grad()
def whitened_errors(
    trunk: CloserTrunk, head: CloserHead, batches: Iterable[Batch]
) -> tuple[Whitened, Whitened]:
    """Errors of the points, and the points' true displacements from the first fit's, both in the deviations that the
    network gave the points.
    """
    errors, displacements = [], []
    for batch in batches:
        said = head(*trunk(*inputs(batch, unflipped(batch))))
        errors.append(whitened(said, said.shift - batch["shift"]))
        displacements.append(whitened(said, batch["shift"]))
    return np.concatenate(errors), np.concatenate(displacements)


def whitened(said: Correction, millimetres: Float[Tensor, "batch points 2"]) -> Whitened:
    """L^-1 of differences."""
    inverse = (-said.log_sigma).exp()
    first = millimetres[..., 0] * inverse[..., 0]
    second = millimetres[..., 1] * inverse[..., 1] - said.skew * first
    found: Whitened = torch.stack([first, second], -1).double().numpy()
    return found


def error_patterns(
    errors: Whitened, displacements: Whitened, patterns: int = PATTERNS, shapes: int = SHAPES
) -> ErrorPatterns:
    """Least squares of errors on the displacements' principal components, and the principal components of the rest."""
    pictures, points, _ = errors.shape
    error = errors.clip(-LARGEST_ERROR, LARGEST_ERROR).reshape(pictures, -1)
    moved = displacements.clip(-LARGEST_DISPLACEMENT, LARGEST_DISPLACEMENT).reshape(pictures, -1)
    _, axes = principal(moved, shapes)
    scores = moved @ axes.T
    response = np.linalg.lstsq(scores, error, rcond=None)[0]
    values, vectors = principal(error - scores @ response, len(error[0]))
    count = min(patterns, pictures - 1)
    floor = max(float(values[count:].mean()), 1e-3)
    return ErrorPatterns(
        vectors[:count].reshape(count, points, 2), np.maximum(values[:count], floor), floor,
        axes.reshape(-1, points, 2), response.reshape(-1, points, 2),
    )  # fmt: skip


def principal(
    rows: Float[np.ndarray, "pictures n"], count: int
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k n"]]:
    """Variances about zero and directions of the first principal components, the largest first."""
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    return values[::-1][:count], vectors[:, ::-1][:, :count].T
