"""What is believed of many scenes before their photographs are seen; `residuals.priors` is its oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.batched.geometry import COLOUR, Scenes
from facefit.fitting.batched.terms import AbstractTerm
from facefit.fitting.residuals.priors import AMBIENT, TINTS, LightPrior, light_rows
from facefit.observation import Observation


@dataclass(frozen=True, eq=False)
class PriorTerm(AbstractTerm):
    """rows . (block - centre): coefficients' N(0, 1), the focal length's, the light's."""

    block: str
    rows: Float[Tensor, "photos rows n"]
    centre: Float[Tensor, "photos n"]

    @property
    def blocks(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.block,)

    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]:
        return (self.rows @ (scenes[self.block] - self.centre)[..., None])[..., 0]

    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]:
        return self.values(scenes), self.rows


@dataclass(frozen=True, eq=False)
class LightTerm(AbstractTerm):
    """The light prior in shares of each photograph's own frozen ambient level, its directions in that one's tint.

    `rows` and `tinted` are those of `light_rows`.
    """

    rows: Float[Tensor, "rows 27"]
    tinted: Float[Tensor, "24 27"]
    exposure: float
    level: Float[Tensor, "photos"] | None = None
    unit_rows: Float[Tensor, "photos rows 27"] | None = None
    blocks: tuple[str, ...] = COLOUR[1:]

    def freeze(self, scenes: Scenes) -> LightTerm:
        level = scenes.light[:, 0].mean(-1).clamp(min=0.1)
        tint = (scenes.light[:, 0] / level[:, None]).clamp(*TINTS)
        unit_rows = self.rows.repeat(len(tint), 1, 1)
        unit_rows[:, 3:27] += tint.repeat(1, 8)[:, :, None] * self.tinted
        return replace(self, level=level, unit_rows=unit_rows)

    def values(self, scenes: Scenes) -> Float[Tensor, "photos rows"]:
        assert self.level is not None and self.unit_rows is not None
        values = (self.unit_rows @ scenes["lighting"][..., None])[..., 0] / self.level[:, None]
        constant = ((AMBIENT * self.level).log() - 1) / self.exposure
        return torch.cat([values[:, :-1], values[:, -1:] + constant[:, None]], 1)

    def linearise(
        self, scenes: Scenes
    ) -> tuple[Float[Tensor, "photos rows"], Float[Tensor, "photos rows columns"]]:
        assert self.level is not None and self.unit_rows is not None
        return self.values(scenes), self.unit_rows / self.level[:, None, None]


def prior_terms(
    free: tuple[str, ...], weight: float, observations: Sequence[Observation], scenes: Scenes
) -> list[AbstractTerm]:
    """What is believed without the photographs, as in the single recipe."""
    found: list[AbstractTerm] = []
    photos = len(observations)
    for block in ("identity", "expression", "albedo"):
        if block in free and (size := scenes[block].shape[1]):
            rows = weight * torch.eye(size, device=scenes.x.device).expand(photos, size, size)
            found.append(PriorTerm(block, rows, torch.zeros_like(scenes[block])))
    if "focal" in free:
        # A focal length that is known is held by a prior too tight to leave.
        sigma = [max(o.focal_sigma, 1e-5) for o in observations]
        centre = [[math.log(float(o.camera.focal_px))] for o in observations]
        rows = (1 / torch.tensor(sigma, device=scenes.x.device))[:, None, None]
        found.append(PriorTerm("focal", rows, torch.tensor(centre, device=scenes.x.device)))
    if "lighting" in free:
        prior = LightPrior()
        black, tinted = light_rows(prior.chroma, prior.contrast, prior.exposure)
        black_rows, tinted_rows = torch.from_numpy(black).to(scenes.x), torch.from_numpy(tinted).to(scenes.x)
        found.append(LightTerm(black_rows, tinted_rows, prior.exposure))
    return found
