"""Training the closer look: unwrapped faces in, corrections of their points out, several models on one trunk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from facefit.learned_init.closer_look import MIRROR, mirrored
from facefit.learned_init.closer_network import CloserHead, CloserTrunk, Correction
from facefit.learned_init.losses import Batch, charbonnier, robust_square
from facefit.learned_init.points import DensePoints, dense_points
from facefit.learned_init.shards import Pictures
from facefit.learned_init.train import jitter
from facefit.learned_init.training import TRAIN, VALIDATE, Settings, Training
from facefit.learned_init.unwrap import places_on_cylinder
from facefit.models.face_model import LinearFaceModel

# Errors below this count by their square, mm; a point much surer than the others counts no more than so many.
SOFT_MM, SUREST = 0.2, 3.0
LIKELIHOOD = 0.15


class CloserNetworks(nn.Module):
    """The shared trunk and a head for each model trained on."""

    def __init__(self, places: dict[str, Float[np.ndarray, "points 2"]]) -> None:
        super().__init__()
        self.trunk = CloserTrunk()
        self.heads = nn.ModuleDict({name: CloserHead(at) for name, at in places.items()})


class CloserTraining(Training):
    """Trains the network of the closer look on the unwrapped pictures in `data`."""

    def __init__(
        self, models: Sequence[LinearFaceModel], folder: Path, data: Path, settings: Settings | None = None
    ) -> None:
        self.data = data
        self.models = {model.name: model for model in models}
        self.points: dict[str, DensePoints] = {model.name: dense_points(model) for model in models}
        self.pictures = {name: Pictures(data, name, TRAIN) for name in self.models}
        super().__init__(folder, settings)

    def build(self) -> nn.Module:
        return CloserNetworks(
            {name: places_on_cylinder(model, self.points[name]) for name, model in self.models.items()}
        )

    def look(self) -> None:
        for pictures in self.pictures.values():
            pictures.look()

    def ready(self) -> bool:
        self.look()
        return all(pictures.shards for pictures in self.pictures.values())

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """A batch with equally many pictures of each model."""
        share = self.settings.batch // len(self.models)
        batches = {name: pictures.batch(share, rng) for name, pictures in self.pictures.items()}
        flips = {name: torch.from_numpy(rng.random(share) < 0.5) for name in batches}
        seen = [inputs(batch, flips[name]) for name, batch in batches.items()]
        pictures, normals, marks, view = (torch.cat(part) for part in zip(*seen, strict=True))
        pictures = jitter(pictures, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            whole, local = self.network.get_submodule("trunk")(pictures, normals, marks, view)
        loss = torch.zeros(())
        report: dict[str, float] = {}
        parts = zip(whole.float().split(share), local.float().split(share), batches.items(), strict=True)
        for part, there, (name, batch) in parts:
            said: Correction = self.network.get_submodule(f"heads.{name}")(part, there)
            error = said.shift - true_shift(batch, flips[name], self.points[name])
            sure = (-said.log_sigma.detach().mean(-1)).exp().clamp(max=SUREST)
            # The deviations are trained beside the means, as in `losses`.
            unsure = likelihood(error.detach(), said)
            loss = loss + charbonnier(error, SOFT_MM, sure / sure.mean()) + LIKELIHOOD * unsure
            report[f"{name} points"] = float(error.detach().norm(dim=-1).mean())
            report[f"{name} likelihood"] = float(unsure.detach())
        return loss, report

    @torch.no_grad()
    def validate(self, among: range = VALIDATE, limit: int = 1) -> dict[str, float]:
        """Mean error of the points in mm, before and after the correction, on pictures never trained on."""
        self.average.eval()
        report: dict[str, float] = {}
        for name in self.models:
            aside = Pictures(self.data, name, among)
            aside.look()
            before, after = [], []
            for batch in aside.batches(limit):
                seen = self.average.get_submodule("trunk")(*inputs(batch, unflipped(batch)))
                said = self.average.get_submodule(f"heads.{name}")(*seen)
                before.append(batch["shift"].norm(dim=-1).mean())
                after.append((said.shift - batch["shift"]).norm(dim=-1).mean())
            if before:
                report |= {f"{name} first fit": float(torch.stack(before).mean())}
                report |= {f"{name} points": float(torch.stack(after).mean())}
        return report


def unflipped(batch: Batch) -> Bool[Tensor, "batch"]:
    return torch.zeros(len(batch["shift"]), dtype=torch.bool)


def inputs(batch: Batch, flipped: Bool[Tensor, "batch"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network is shown, mirrored where asked."""
    pictures = batch["picture"].permute(0, 3, 1, 2).float() / 255
    normals = batch["normals"].permute(0, 3, 1, 2).float() / 127
    straight = (pictures, normals, batch["marks"], batch["view"])
    return tuple(  # type: ignore[return-value]
        torch.where(flipped.reshape(-1, *[1] * (here.ndim - 1)), there, here)
        for here, there in zip(straight, mirrored(*straight), strict=True)
    )


def true_shift(
    batch: Batch, flipped: Bool[Tensor, "batch"], points: DensePoints
) -> Float[Tensor, "batch points 2"]:
    other = batch["shift"][:, torch.from_numpy(points.mirror)] * MIRROR
    return torch.where(flipped[:, None, None], other, batch["shift"])


def likelihood(error: Float[Tensor, "batch points 2"], said: Correction) -> Tensor:
    """Gaussian negative log-likelihood of the errors, as a function of the deviations."""
    first = error[..., 0] * (-said.log_sigma[..., 0]).exp()
    second = error[..., 1] * (-said.log_sigma[..., 1]).exp() - said.skew * first
    return 0.5 * (robust_square(first) + robust_square(second) + 2 * said.log_sigma.sum(-1)).mean()
