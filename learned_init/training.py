"""The loop every training here shares: a schedule, averaged weights, checkpoints, resume after a kill."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Of every twenty shards fourteen train, three choose (validation), three are kept for the last word (test).
TRAIN, VALIDATE, TEST = range(14), range(14, 17), range(17, 20)


@dataclass(frozen=True)
class Settings:
    """How long and how fast to learn. `steps` is the whole schedule, over all slices of the training."""

    steps: int = 20_000
    batch: int = 64
    rate: float = 1.5e-3
    decay: float = 0.03
    warm_up: int = 400
    average: float = 0.999
    save_every: int = 250
    seed: int = 7


class Training(ABC):
    """A training that can be stopped at any moment: everything it needs lies in `folder`."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.folder = folder
        torch.manual_seed(self.settings.seed)
        self.network, self.average = self.build(), self.build()
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), self.settings.rate, betas=(0.9, 0.98), weight_decay=self.settings.decay
        )
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.resume()

    @abstractmethod
    def build(self) -> nn.Module:
        """A network with fresh weights."""

    @abstractmethod
    def look(self) -> None:
        """Take in the pictures drawn since the last look."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether there are pictures of every model to learn from."""

    @abstractmethod
    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts by name."""

    def begin(self) -> None:
        """Before the first step."""
        return

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def over(self) -> bool:
        return self.step >= self.settings.steps

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.history = state["step"], state["history"]

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "history": self.history,
        }
        temporary = self.checkpoint.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        (self.folder / "history.json").write_text(json.dumps(self.history, indent=1))

    def rate(self) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        settings = self.settings
        if self.step < settings.warm_up:
            return settings.rate * (self.step + 1) / settings.warm_up
        share = min(1.0, (self.step - settings.warm_up) / max(1, settings.steps - settings.warm_up))
        return settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    def run(self, seconds: float = math.inf) -> None:
        """Learn until the schedule or the time is over; saves every few minutes and at the end."""
        began, since = time.monotonic(), 0
        sums: dict[str, float] = {}
        self.look()
        if self.step == 0:
            self.begin()
        while not self.over and time.monotonic() - began < seconds:
            if self.step % 50 == 0:
                self.look()
            parts = self.learn()
            since += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            if self.step % self.settings.save_every == 0:
                line = {"step": self.step, "seconds": round(time.monotonic() - began), "rate": self.rate()}
                self.history.append(line | {name: value / since for name, value in sums.items()})
                sums, since = {}, 0
                self.save()
        self.save()

    def latest(self) -> dict[str, float]:
        """The losses as last written down; nothing before the first time."""
        return dict(self.history[-1]) if self.history else {}

    def learn(self) -> dict[str, float]:
        """One step; the losses by part."""
        self.network.train()
        loss, report = self.loss(np.random.default_rng((self.settings.seed, self.step)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self._follow()
        return report

    @torch.no_grad()
    def _follow(self) -> None:
        """The average of the weights over the last thousand steps is better than any of them."""
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        mine, theirs = self.average.state_dict().values(), self.network.state_dict().values()
        for kept, new in zip(mine, theirs, strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1 - keep)
