"""Training the network: pictures drawn beside it, checkpoints, resume after a kill, weights and a card at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from facefit.detection import MIRRORED_LANDMARKS
from facefit.learned_init.crop import SIZE_PX
from facefit.learned_init.losses import Batch, Yardstick, losses, total
from facefit.learned_init.network import Head, Sizes, Trunk
from facefit.learned_init.points import DensePoints, dense_points
from facefit.learned_init.shards import read_shard, shard_path
from facefit.models.face_model import LinearFaceModel

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


class Network(nn.Module):
    """The shared trunk and a head for each model trained on."""

    def __init__(self, sizes: dict[str, Sizes]) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.heads = nn.ModuleDict({name: Head(size) for name, size in sizes.items()})


@dataclass
class Student:
    """A model to learn, with its points and measures."""

    model: LinearFaceModel
    points: DensePoints
    yard: Yardstick
    shards: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    @staticmethod
    def of(model: LinearFaceModel) -> Student:
        points = dense_points(model)
        return Student(model, points, Yardstick.of(model, points))

    @property
    def sizes(self) -> Sizes:
        model = self.model
        return Sizes(len(self.points), model.n_identity, model.n_expression, model.n_albedo)

    def look(self, folder: Path, among: range) -> None:
        """Take in the shards drawn since the last look."""
        for number in range(10_000):
            path = shard_path(folder, self.model.name, number)
            if number % 20 in among and number not in self.shards and path.exists():
                self.shards[number] = read_shard(path)

    def batch(self, count: int, rng: np.random.Generator) -> Batch:
        """Pictures at random from the shards at hand."""
        numbers = rng.choice(list(self.shards), count)
        picks = [(self.shards[n], int(rng.integers(len(self.shards[n]["image"])))) for n in numbers]
        names = [name for name in picks[0][0] if name != "occluder"]
        return {name: torch.from_numpy(np.stack([shard[name][i] for shard, i in picks])) for name in names}

    def all_of(self, number: int, size: int) -> Iterator[Batch]:
        shard = self.shards[number]
        for start in range(0, len(shard["image"]), size):
            yield {k: torch.from_numpy(v[start : start + size]) for k, v in shard.items() if k != "occluder"}


def inputs(batch: Batch, flipped: Bool[Tensor, "batch"]) -> tuple[Tensor, Tensor]:
    """Pictures in 0 ... 1 and landmarks, mirrored where asked."""
    images = batch["image"].permute(0, 3, 1, 2).float() / 255
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    marks = batch["landmarks"]
    other = marks[:, list(MIRRORED_LANDMARKS)]
    other = torch.stack([SIZE_PX - other[..., 0], other[..., 1]], -1)
    return images, torch.where(flipped[:, None, None], other, marks)


def jitter(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Another camera's colours: brightness, contrast, saturation, gamma and white balance, and some noise."""
    from kornia.enhance import adjust_contrast, adjust_gamma, adjust_saturation

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(images), *shape))).float()

    images = images * draw(0.75, 1.25, 1, 1, 1) * draw(0.88, 1.12, 3, 1, 1)
    images = adjust_saturation(adjust_contrast(images.clamp(0, 1), draw(0.7, 1.3)), draw(0.4, 1.5))
    images = adjust_gamma(images.clamp(1e-4, 1), draw(0.75, 1.35))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(images.shape, generator=generator) * draw(0.0, 0.03, 1, 1, 1)
    return (images + noise).clamp(0, 1)


class Training:
    """A training that can be stopped at any moment: everything it needs lies in `folder`."""

    def __init__(self, models: Sequence[LinearFaceModel], folder: Path, data: Path, settings: Settings | None = None,
                 device: str = "cpu") -> None:  # fmt: skip
        self.settings = settings or Settings()
        self.folder, self.data, self.device = folder, data, device
        self.students = {model.name: Student.of(model) for model in models}
        sizes = {name: student.sizes for name, student in self.students.items()}
        torch.manual_seed(self.settings.seed)
        self.network = Network(sizes)
        self.average = Network(sizes)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), self.settings.rate, betas=(0.9, 0.98), weight_decay=self.settings.decay
        )
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.resume()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

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
        for student in self.students.values():
            student.look(self.data, TRAIN)
        if self.step == 0:
            self._begin()
        while self.step < self.settings.steps and time.monotonic() - began < seconds:
            if self.step % 50 == 0:
                for student in self.students.values():
                    student.look(self.data, TRAIN)
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

    def recent(self, name: str) -> float:
        """A loss as last written down; NaN before the first time."""
        return float(self.history[-1].get(name, math.nan)) if self.history else math.nan

    def _begin(self) -> None:
        """Points start at their mean layout, which costs nothing to learn."""
        for name, student in self.students.items():
            student.look(self.data, TRAIN)
            if not student.shards:
                raise FileNotFoundError(f"no pictures of {name} in {self.data}: draw some first")
            layout = next(iter(student.shards.values()))["points"].mean(0)
            for network in (self.network, self.average):
                head = network.heads[name]
                assert isinstance(head, Head)
                head.layout.copy_(torch.from_numpy(layout))

    def learn(self) -> dict[str, float]:
        """One step on a batch with equally many pictures of each model; the losses by part."""
        rng = np.random.default_rng((self.settings.seed, self.step))
        share = self.settings.batch // len(self.students)
        batches = {name: student.batch(share, rng) for name, student in self.students.items()}
        flips = {name: torch.from_numpy(rng.random(share) < 0.5) for name in batches}
        seen = [inputs(batch, flips[name]) for name, batch in batches.items()]
        images = jitter(torch.cat([i for i, _ in seen]), rng).contiguous(memory_format=torch.channels_last)
        landmarks = torch.cat([m for _, m in seen])
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16):
            features, local = self.network.trunk(images, landmarks)
        loss = torch.zeros(())
        report: dict[str, float] = {}
        parts = zip(features.float().split(share), local.float().split(share), batches.items(), strict=True)
        for part, there, (name, batch) in parts:
            found = losses(
                self.network.heads[name](part, there), batch, self.students[name].yard, flips[name]
            )
            loss = loss + total(found) / len(batches)
            report |= {f"{name} {key}": float(value.detach()) for key, value in found.items()}
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
        for mine, theirs in zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)

    @torch.no_grad()
    def validate(self, among: range = VALIDATE, limit: int = 1) -> dict[str, float]:
        """The losses by part on pictures never trained on, at most `limit` shards a model, by the averaged weights."""
        self.average.eval()
        report: dict[str, float] = {}
        for name, student in self.students.items():
            aside = Student(student.model, student.points, student.yard)
            aside.look(self.data, among)
            rows: list[dict[str, float]] = []
            for number in sorted(aside.shards)[:limit]:
                for batch in aside.all_of(number, 128):
                    flipped = torch.zeros(len(batch["image"]), dtype=torch.bool)
                    guess = self.average.heads[name](*self.average.trunk(*inputs(batch, flipped)))
                    found = losses(guess, batch, student.yard, flipped)
                    rows.append({key: float(value) for key, value in found.items()})
            if rows:
                report |= {f"{name} {key}": float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return report
