"""Whether photographs show one person: how far each one's own shape is from that of the others, in its own doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.result import FitResult

# Squared distance over what independent errors alone would give. Two photographs of one person: 0.3 in the middle and
# below 0.6 on path-traced heads, 0.4 (95 %: 0.8) on drawn people who grimace behind things. Of two people: beyond
# this limit 40 % of the heads and 60 % of photographs with the built-in model, 20 and 35 % with ICT. People who look
# alike are not told apart.
USUAL, STRANGE = 0.35, 0.75


@dataclass(frozen=True)
class Likeness:
    """What a photograph by itself says about identity: Lambda and Lambda z of a Gaussian, the prior taken out."""

    precision: Float[Tensor, "identity identity"]
    information: Float[Tensor, "identity"]

    @staticmethod
    def of(result: FitResult) -> Likeness | None:
        """None where the shape was not fitted or the fit is lost."""
        posterior = result.posterior
        if posterior is None or "identity" not in posterior.layout or not result.status.ok:
            return None
        precision = torch.linalg.inv(posterior.covariance("identity"))
        identity = result.scene.identity.double()
        return Likeness(precision - torch.eye(len(identity), dtype=torch.float64), precision @ identity)

    def estimate(self) -> tuple[Float[Tensor, "identity"], Float[Tensor, "identity identity"]]:
        covariance = torch.linalg.inv(self.precision + torch.eye(len(self.precision), dtype=torch.float64))
        return covariance @ self.information, covariance


def distance(one: Likeness, other: Likeness) -> float:
    """Squared Mahalanobis distance of two estimates of identity over its expectation for one person; 1 is usual.

    An estimate is drawn towards the mean by as much as it knows little: for a person z it scatters by C Lambda C
    about (C Lambda) z, so two estimates differ by S = sum of C Lambda C + K K^T, K the difference of the C Lambda.
    """
    (z, c), (y, d) = one.estimate(), other.estimate()
    drawn = c @ one.precision - d @ other.precision
    scatter = c @ one.precision @ c + d @ other.precision @ d + drawn @ drawn.T
    weight = torch.linalg.inv(c + d)
    expected = float((scatter * weight).sum())
    return float((z - y) @ weight @ (z - y)) / max(expected, 1e-12)


def strangeness(results: Sequence[FitResult]) -> Float[np.ndarray, "photographs"]:
    """Each single fit's distance from the mean of the others; NaN where a photograph, or all others, say nothing."""
    likenesses = [Likeness.of(result) for result in results]
    known = [likeness for likeness in likenesses if likeness is not None]
    found = np.full(len(results), np.nan)
    if len(known) < 2:
        return found
    precision = torch.stack([k.precision for k in known]).sum(0)
    information = torch.stack([k.information for k in known]).sum(0)
    for index, mine in enumerate(likenesses):
        if mine is not None:
            rest = len(known) - 1
            others = Likeness((precision - mine.precision) / rest, (information - mine.information) / rest)
            found[index] = distance(mine, others)
    return found


def strangers(results: Sequence[FitResult]) -> tuple[Float[np.ndarray, "photographs"], tuple[str, ...]]:
    """The strangeness of each photograph, and sentences on those that seem to show somebody else."""
    found = strangeness(results)
    beyond = [index for index in np.argsort(-found) if found[index] > STRANGE]
    if not beyond:
        return found, ()
    if 2 * len(beyond) >= len(results):
        said = "The photographs may not show one person: their faces, each fitted by itself, differ"
    else:
        paths = [(index, results[index].observation.path) for index in sorted(beyond)]
        names = [f"photograph {index + 1}" if path is None else path.name for index, path in paths]
        said = f"{' and '.join(names)} may not show the same person as the others: fitted by itself, the face differs"
    return found, (
        f"{said} by {found[beyond[0]] / USUAL:.1f} times what photographs of one person usually do. "
        "Without --same-person each is fitted by itself.",
    )
