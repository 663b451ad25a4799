"""The network: a small residual CNN over the crop, the landmarks as a second input, one head per face model.

Plain 3 x 3 convolutions rather than depthwise ones: on a CPU they are as fast, and train twice as fast in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from facefit.learned_init.crop import SIZE_PX

FEATURES = 320
# Cells along a side of the map on which points are looked for, and its channels.
CELLS, CHANNELS = SIZE_PX // 8, 64
# Logarithms of standard deviations are kept within these, so that no sample can dominate a batch.
LOG_SIGMA_RANGE = (-3.5, 3.0)


@dataclass(frozen=True)
class Sizes:
    """How many numbers a head predicts: points on the surface, and coefficients by block."""

    points: int
    identity: int
    expression: int
    albedo: int

    @property
    def blocks(self) -> dict[str, int]:
        """Blocks of one number each with its own deviation, in the head's order.

        `rotation` is the first two columns of the crop-frame rotation, `centre` in half crops from the middle,
        `size` and `distance` logarithms about typical values (see `predict`).
        """
        return {"identity": self.identity, "expression": self.expression, "albedo": self.albedo,
                "lighting": 27, "rotation": 6, "centre": 2, "size": 1, "distance": 1}  # fmt: skip


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            pool: nn.Module = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class Trunk(nn.Module):
    """Crop and landmarks to a feature vector of the whole face, and to a map of what lies where."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            Block(24, 32, 2), Block(32, 64, 2), Block(64, 64, 1),
            Block(64, 128, 2), Block(128, 128, 1), Block(128, 160, 2), nn.Flatten(),
        )  # fmt: skip
        self.marks = nn.Sequential(nn.Linear(68 * 3, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU())
        cells = (SIZE_PX // 32) ** 2
        self.mix = nn.Sequential(nn.Linear(160 * cells + 96, FEATURES), nn.ReLU())

        self.joined = nn.Sequential(nn.Conv2d(64 + 128, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.context = nn.Linear(FEATURES, CHANNELS)
        self.local = nn.Sequential(
            nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )

    def forward(
        self, images: Float[Tensor, "batch 3 128 128"], landmarks: Float[Tensor, "batch 68 2"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch channels cells cells"]]:
        """`images` in 0 ... 1; `landmarks` in crop pixels, NaN where unknown."""
        known: Bool[Tensor, "batch 68"] = torch.isfinite(landmarks).all(-1)
        places = torch.where(
            known[..., None], landmarks / (SIZE_PX / 2) - 1, torch.zeros_like(landmarks)
        ).clamp(-3, 3)
        marks = self.marks(torch.cat([places, known[..., None].to(places)], -1).flatten(1))
        fine = self.picture[:6]((images - 0.45) * 3)
        coarse = self.picture[6:8](fine)
        whole: Tensor = self.mix(torch.cat([self.picture[8:](coarse).float(), marks.float()], 1))
        wide = nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        joined = self.joined(torch.cat([fine, wide], 1)) + self.context(whole)[:, :, None, None]
        return whole, self.local(joined)


@dataclass(frozen=True)
class Guess:
    """What the network says of a batch: means and logarithms of standard deviations.

    `points` in crop pixels, `found` where the map alone has them; `points_log_sigma` are two axes' and `points_skew`
    how the second follows the first: the covariance is L L^T with L = [[s0, 0], [k s1, s1]]. `blocks` and
    `blocks_log_sigma` go by the names of `Sizes.blocks`.
    """

    points: Float[Tensor, "batch points 2"]
    points_log_sigma: Float[Tensor, "batch points 2"]
    points_skew: Float[Tensor, "batch points"]
    blocks: dict[str, Tensor]
    blocks_log_sigma: dict[str, Tensor]
    found: Float[Tensor, "batch points 2"]


class Head(nn.Module):
    """Features and map to one model's points and coefficients.

    A point is a mixture of two answers: the whole face's, by regression, which knows where hidden points must be, and
    the map's, the mean place under a softmax over cells, which sees where visible points are.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        total = sum(sizes.blocks.values())
        self.points = nn.Linear(FEATURES, 2 * sizes.points)
        self.numbers = nn.Linear(FEATURES, total)
        self.certainty = nn.Linear(FEATURES, total)
        self.heat = nn.Conv2d(CHANNELS, sizes.points, 1)
        self.trust = nn.Parameter(torch.full((sizes.points, 1), -1.0))
        self.layout = nn.Buffer(torch.zeros(sizes.points, 2))
        cell = (torch.arange(CELLS) + 0.5) * SIZE_PX / CELLS
        self.places = nn.Buffer(torch.cartesian_prod(cell, cell).flip(1), persistent=False)
        last = nn.Linear(64, 3 * sizes.points)
        self.spread = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), last)
        for layer in (self.points, last, self.numbers, self.certainty):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Float[Tensor, "batch features"], local: Float[Tensor, "batch channels cells cells"]
    ) -> Guess:
        count = len(features)
        # In sixteenths of the crop, so that weights of one size move points by pixels.
        whole = self.layout + 8 * self.points(features).reshape(count, -1, 2)
        found = self.heat(local).flatten(2).float().softmax(2) @ self.places
        points = whole + torch.sigmoid(self.trust) * (found - whole)
        spread = self.spread(features).reshape(count, -1, 3)
        names = list(self.sizes.blocks)
        lengths = list(self.sizes.blocks.values())
        numbers = dict(zip(names, self.numbers(features).split(lengths, 1), strict=True))
        certainty = dict(
            zip(names, self.certainty(features).clamp(*LOG_SIGMA_RANGE).split(lengths, 1), strict=True)
        )
        return Guess(
            points,
            spread[..., :2].clamp(*LOG_SIGMA_RANGE),
            spread[..., 2].clamp(-3, 3),
            numbers,
            certainty,
            found,
        )
