"""How a trained network errs, on pictures it never saw: how far it leans to the mean face, which errors go together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.learned_init.losses import Batch, Yardstick, by_point
from facefit.learned_init.network import Guess, Head, Trunk
from facefit.learned_init.train import inputs
from facefit.learned_init.weights import ErrorPatterns

PATTERNS, SHAPES = 100, 150
# Whitened errors beyond this are misses; the fit's robust weights deal with them, not its covariance.
LARGEST_ERROR, LARGEST_DISPLACEMENT = 4.0, 30.0

Whitened = Float[np.ndarray, "pictures points 2"]


@torch.no_grad()
def whitened_errors(
    trunk: Trunk, head: Head, yard: Yardstick, batches: Iterable[Batch]
) -> tuple[Whitened, Whitened]:
    """Errors of the points, and the points' displacements from the mean face's in the same pose, both in the deviations
    that the network gave the points.
    """
    errors, displacements = [], []
    for batch in batches:
        guess = head(*trunk(*inputs(batch, torch.zeros(len(batch["image"]), dtype=torch.bool))))
        errors.append(whitened(guess, guess.points - batch["points"]))
        displacements.append(whitened(guess, displacement(batch, yard)))
    return np.concatenate(errors), np.concatenate(displacements)


def whitened(guess: Guess, pixels: Float[Tensor, "batch points 2"]) -> Whitened:
    """L^-1 of differences in crop pixels."""
    inverse = (-guess.points_log_sigma).exp()
    first = pixels[..., 0] * inverse[..., 0]
    second = pixels[..., 1] * inverse[..., 1] - guess.points_skew * first
    found: Whitened = torch.stack([first, second], -1).double().numpy()
    return found


def displacement(batch: Batch, yard: Yardstick) -> Float[Tensor, "batch points 2"]:
    """How person and expression move the points in the crop, seen along the crop's axis."""
    mean = (yard.mean - yard.mean.mean(0)).expand_as(batch["neutral"])
    expression = by_point(batch["expression"] @ yard.expression.flatten(1))

    def project(points: Float[Tensor, "batch points 3"]) -> Float[Tensor, "batch points 2"]:
        local = points @ batch["rotation"].transpose(1, 2)
        distance = batch["distance_mm"][:, None, None]
        return (
            batch["size_px_per_mm"][:, None, None] * distance * local[..., :2] / (distance + local[..., 2:])
        )

    return project(mean + batch["neutral"] + expression) - project(mean)


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
