"""The network of the closer look: where on an unwrapped face things lie that the fit so far puts elsewhere.

Pose and lens are taken out, so that what is left is local: each point reads a map of features at its own place, and
the whole face adds what the map cannot see there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from facefit.learned_init.network import LOG_SIGMA_RANGE, Block
from facefit.learned_init.unwrap import CELLS

FEATURES, CHANNELS = 256, 48
# Detected landmarks lie about so far from the fit's, mm; the network's numbers are of order one.
TYPICAL_MARK_MM, TYPICAL_CORRECTION_MM = 5.0, 4.0


@dataclass(frozen=True)
class Correction:
    """How far each point lies from where the fit has it, mm at the face's distance in the crop's axes, and how surely.

    The covariance is L L^T with L = [[s0, 0], [k s1, s1]].
    """

    shift: Float[Tensor, "batch points 2"]
    log_sigma: Float[Tensor, "batch points 2"]
    skew: Float[Tensor, "batch points"]


class CloserTrunk(nn.Module):
    """Unwrapped picture, normals and landmarks to a feature vector of the face and a map over the cylinder."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.fine = Block(24 + 3 + 2, 32, 2)
        self.middle = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1))
        self.coarse = nn.Sequential(Block(64, 96, 2), Block(96, 96, 1))
        self.whole = nn.Sequential(Block(96, 128, 2), nn.Conv2d(128, 48, 1), nn.ReLU(), nn.Flatten())
        self.marks = nn.Sequential(nn.Linear(68 * 3 + 2, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU())
        self.mix = nn.Sequential(nn.Linear(48 * (CELLS // 16) ** 2 + 96, FEATURES), nn.ReLU())
        self.from_fine = nn.Conv2d(32, CHANNELS, 1)
        self.from_middle = nn.Conv2d(64, CHANNELS, 1, bias=False)
        self.from_coarse = nn.Conv2d(96, CHANNELS, 1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.context = nn.Linear(FEATURES, CHANNELS)
        self.local = nn.Sequential(
            nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        cell = (torch.arange(CELLS) + 0.5) * 2 / CELLS - 1
        self.places = nn.Buffer(
            torch.stack(torch.meshgrid(cell, cell, indexing="ij"))[None], persistent=False
        )

    def forward(
        self,
        pictures: Float[Tensor, "batch 3 128 128"],
        normals: Float[Tensor, "batch 3 64 64"],
        marks: Float[Tensor, "batch 68 2"],
        view: Float[Tensor, "batch 2"],
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch channels 32 32"]]:
        """`pictures` in 0 ... 1; `marks` from the fit's landmarks to the detected ones, mm, NaN where unknown; `view`
        as in `closer_look.view_of`.
        """
        pictures = pictures - pictures.mean((1, 2, 3), keepdim=True)
        pictures = pictures / (pictures.std((1, 2, 3), keepdim=True) + 0.03)
        stem = self.stem(pictures)
        places = self.places.to(stem.dtype).expand(len(stem), -1, -1, -1)
        fine = self.fine(torch.cat([stem, normals.to(stem.dtype), places], 1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        known = torch.isfinite(marks).all(-1)[..., None]
        off = torch.where(known, marks / TYPICAL_MARK_MM, torch.zeros_like(marks)).clamp(-4, 4)
        said = self.marks(torch.cat([torch.cat([off, known.to(off)], -1).flatten(1), view], 1))
        whole: Tensor = self.mix(torch.cat([self.whole(coarse).float(), said.float()], 1))
        wide = self.from_fine(fine) + doubled(self.from_middle(middle) + doubled(self.from_coarse(coarse)))
        return whole, self.local(self.norm(wide) + self.context(whole)[:, :, None, None])


class CloserHead(nn.Module):
    """Features and map to the corrections of one model's points, at their `places` on the cylinder's picture."""

    def __init__(self, places: Float[np.ndarray, "points 2"]) -> None:
        super().__init__()
        count = len(places)
        self.points = nn.Linear(FEATURES, 2 * count)
        self.read = nn.Parameter(0.01 * torch.randn(count, CHANNELS, 5))
        self.bias = nn.Parameter(torch.zeros(count, 5))
        last = nn.Linear(64, 3 * count)
        self.spread = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), last)
        self.places = nn.Buffer(torch.from_numpy(places).float()[None, None] * 2 - 1, persistent=False)
        for layer in (self.points, last):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(
        self, whole: Float[Tensor, "batch features"], local: Float[Tensor, "batch channels 32 32"]
    ) -> Correction:
        count = len(whole)
        grid = self.places.expand(count, -1, -1, -1)
        there = nn.functional.grid_sample(local.float(), grid, align_corners=False)[:, :, 0]
        read = torch.einsum("ncp,pco->npo", there, self.read) + self.bias
        shift = self.points(whole).reshape(count, -1, 2) + read[..., :2]
        spread = self.spread(whole).reshape(count, -1, 3) + read[..., 2:]
        return Correction(
            TYPICAL_CORRECTION_MM * shift,
            spread[..., :2].clamp(*LOG_SIGMA_RANGE),
            spread[..., 2].clamp(-3, 3),
        )


def doubled(maps: Float[Tensor, "batch channels n m"]) -> Float[Tensor, "batch channels n2 m2"]:
    return nn.functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
