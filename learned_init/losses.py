"""What a guess is punished for: errors in pixels and millimetres, never in raw coefficients.

The deviations are trained beside the means, not through them: the likelihood sees the errors as given numbers. Else
the network learns to call hard points uncertain before it has learnt where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facefit.learned_init.crop import SIZE_PX
from facefit.learned_init.network import Guess
from facefit.learned_init.points import DensePoints
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import irradiance_basis

# Typical values that the network's `size` and `distance` are logarithms about.
TYPICAL_PX_PER_MM, TYPICAL_MM = 0.45, 700.0
# x-odd harmonics change sign in a mirror: (1, 1), (2, -2), (2, 1).
MIRRORED_HARMONICS = (1, 1, 1, -1, -1, 1, 1, -1, 1)
# Means of absolute errors in their units times these make the loss.
WEIGHTS = {"points": 2.0, "found": 0.7, "identity": 0.5, "expression": 0.5, "albedo": 8.0, "lighting": 2.0,
           "rotation": 0.3, "centre": 0.3, "size": 15.0, "distance": 3.0, "likelihood": 0.3}  # fmt: skip

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Yardstick:
    """A model at its dense points, to measure coefficients by what they move."""

    mean: Float[Tensor, "points 3"]
    identity: Float[Tensor, "identity points 3"]
    expression: Float[Tensor, "expression points 3"]
    albedo: Float[Tensor, "albedo points 3"]
    light: Float[Tensor, "directions 9"]
    mirror: Tensor

    @staticmethod
    def of(model: LinearFaceModel, points: DensePoints) -> Yardstick:
        directions = torch.nn.functional.normalize(points.gather(model, model.mean)[::8], dim=1)
        return Yardstick(
            points.gather(model, model.mean),
            points.gather(model, model.identity_basis),
            points.gather(model, model.expression_basis),
            points.gather(model, model.albedo_basis),
            irradiance_basis(directions),
            torch.from_numpy(points.mirror),
        )


def rotation_of(columns: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch 3 3"]:
    """A rotation from two columns that need not be orthonormal, by Gram and Schmidt.

    Source: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019.
    """
    first = torch.nn.functional.normalize(columns[:, :3], dim=1, eps=1e-6)
    second = columns[:, 3:] - (columns[:, 3:] * first).sum(1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=1, eps=1e-6)
    return torch.stack([first, second, torch.linalg.cross(first, second)], 2)


def losses(guess: Guess, truth: Batch, yard: Yardstick, flipped: Bool[Tensor, "batch"]) -> dict[str, Tensor]:
    """Mean error by part: points px, identity and expression mm, rotation mm, light and albedo in linear RGB.

    `truth` holds the numbers of the picture as drawn; where `flipped`, the network saw its mirror image.
    """
    # A point counts as far as the network can hope to know it: else hidden points in dark profiles, which nobody could
    # place, would pull as hard as the corners of eyes.
    sure = (-guess.points_log_sigma.detach().mean(-1)).exp()
    true = true_points(truth, yard, flipped)
    found = {
        "points": charbonnier(guess.points - true, 0.3, sure / sure.mean()),
        "found": charbonnier(guess.found - true, 0.3, sure / sure.mean()),
    }
    blocks = guess.blocks
    for name in ("identity", "expression", "albedo"):
        basis = getattr(yard, name).flatten(1)
        moved = truth["neutral"] if name == "identity" else by_point(truth[name] @ basis)
        moved = torch.where(flipped[:, None, None], mirrored(moved, yard, name != "albedo"), moved)
        found[name] = charbonnier(by_point(blocks[name] @ basis) - moved, 0.02 if name == "albedo" else 0.3)
    sign = torch.tensor(MIRRORED_HARMONICS).float()[:, None]
    light = by_point(truth["lighting"])
    light = torch.where(flipped[:, None, None], light * sign, light)
    found["lighting"] = charbonnier(yard.light @ (by_point(blocks["lighting"]) - light), 0.02)
    side = torch.tensor([-1.0, 1.0, 1.0])
    turn = torch.where(flipped[:, None, None], truth["rotation"] * side[:, None] * side, truth["rotation"])
    centred = yard.mean - yard.mean.mean(0)
    found["rotation"] = charbonnier(centred @ (rotation_of(blocks["rotation"]) - turn).transpose(1, 2), 0.3)
    targets = targets_of(truth, flipped)
    found["centre"] = charbonnier((blocks["centre"] - targets["centre"]) * SIZE_PX / 2, 0.3)
    for name in ("size", "distance"):
        found[name] = charbonnier(blocks[name] - targets[name], 0.02)
    found["likelihood"] = likelihood(guess, truth, targets, yard, flipped)
    return found


def by_point(rows: Float[Tensor, "batch n"]) -> Float[Tensor, "batch points 3"]:
    """Triples of numbers, of a flattened field."""
    return rows.reshape(len(rows), -1, 3)


def total(parts: dict[str, Tensor]) -> Tensor:
    return sum((WEIGHTS[name] * value for name, value in parts.items()), torch.zeros(()))


def likelihood(
    guess: Guess, truth: Batch, targets: Batch, yard: Yardstick, flipped: Bool[Tensor, "batch"]
) -> Tensor:
    """Gaussian negative log-likelihood of the errors, as functions of the deviations alone."""
    error = (guess.points - true_points(truth, yard, flipped)).detach()
    first = error[..., 0] * (-guess.points_log_sigma[..., 0]).exp()
    second = error[..., 1] * (-guess.points_log_sigma[..., 1]).exp() - guess.points_skew * first
    value = robust_square(first) + robust_square(second) + 2 * guess.points_log_sigma.sum(-1)
    found = 0.5 * value.mean()
    for name, target in targets.items():
        log_sigma = guess.blocks_log_sigma[name]
        whitened = (guess.blocks[name] - target).detach() * (-log_sigma).exp()
        one = (0.5 * robust_square(whitened) + log_sigma).mean(1)
        # A mirrored face's coefficients are not known where the modes are not symmetric.
        keep = torch.ones_like(one) if name in ("centre", "size", "distance") else (~flipped).to(one)
        found = found + 0.2 * (one * keep).sum() / keep.sum().clamp(min=1)
    return found


def robust_square(x: Tensor) -> Tensor:
    """x^2 for small x, linear beyond 4: one wild error must not set a deviation."""
    return torch.where(x.abs() < 4, x * x, 8 * x.abs() - 16)


def targets_of(truth: Batch, flipped: Bool[Tensor, "batch"]) -> Batch:
    """The numbers a head predicts, by block."""
    centre = truth["centre"] / (SIZE_PX / 2) - 1
    centre = torch.where(flipped[:, None], centre * torch.tensor([-1.0, 1.0]), centre)
    return {
        "identity": truth["identity"],
        "expression": truth["expression"],
        "albedo": truth["albedo"],
        "lighting": truth["lighting"],
        "rotation": truth["rotation"][:, :, :2].transpose(1, 2).flatten(1),
        "centre": centre,
        "size": (truth["size_px_per_mm"] / TYPICAL_PX_PER_MM).log()[:, None],
        "distance": (truth["distance_mm"] / TYPICAL_MM).log()[:, None],
    }


def true_points(
    truth: Batch, yard: Yardstick, flipped: Bool[Tensor, "batch"]
) -> Float[Tensor, "batch points 2"]:
    points = truth["points"]
    other = points[:, yard.mirror]
    other = torch.stack([SIZE_PX - other[..., 0], other[..., 1]], -1)
    return torch.where(flipped[:, None, None], other, points)


def mirrored(
    field: Float[Tensor, "batch points 3"], yard: Yardstick, vector: bool
) -> Float[Tensor, "batch points 3"]:
    """A field at the points, of the mirror image: places change, and displacements change sides."""
    other = field[:, yard.mirror]
    return other * torch.tensor([-1.0, 1.0, 1.0]) if vector else other


def charbonnier(error: Tensor, soft: float, weight: Tensor | None = None) -> Tensor:
    """Mean length of the last axis's vectors, smooth at zero; weighted."""
    length = ((error**2).sum(-1) + soft**2).sqrt() - soft
    return (length if weight is None else length * weight).mean()
