"""How a trained network errs: which errors of its points go together, on pictures it never saw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from facefit.learned_init.losses import Batch
from facefit.learned_init.network import Head, Trunk
from facefit.learned_init.train import inputs
from facefit.learned_init.weights import ErrorPatterns

PATTERNS = 32
# Whitened errors beyond this are misses; the fit's robust weights deal with them, not its covariance.
LARGEST = 4.0


@torch.no_grad()
def whitened_errors(
    trunk: Trunk, head: Head, batches: Iterable[Batch]
) -> Float[np.ndarray, "pictures points 2"]:
    """Errors of the points in the deviations the network gave them."""
    found = []
    for batch in batches:
        flipped = torch.zeros(len(batch["image"]), dtype=torch.bool)
        guess = head(trunk(*inputs(batch, flipped)))
        error = (guess.points - batch["points"]).double()
        inverse = (-guess.points_log_sigma.double()).exp()
        first = error[..., 0] * inverse[..., 0]
        second = error[..., 1] * inverse[..., 1] - guess.points_skew * first
        found.append(torch.stack([first, second], -1).numpy())
    return np.concatenate(found)


def error_patterns(errors: Float[np.ndarray, "pictures points 2"], count: int = PATTERNS) -> ErrorPatterns:
    """The principal components of whitened errors, and the mean variance of what they leave."""
    pictures, points, _ = errors.shape
    flat = errors.clip(-LARGEST, LARGEST).reshape(pictures, -1)
    covariance = flat.T @ flat / pictures
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = min(count, pictures, len(values))
    floor = float(values[count:].mean()) if count < len(values) else float(values[-1])
    return ErrorPatterns(vectors[:, :count].T.reshape(count, points, 2), values[:count], max(floor, 1e-3))
