"""Training the first look: crops in, points and coefficients out, several models on one trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from facefit.detection import MIRRORED_LANDMARKS
from facefit.learned_init.crop import SIZE_PX
from facefit.learned_init.losses import Batch, Yardstick, losses, total
from facefit.learned_init.network import Head, Sizes, Trunk
from facefit.learned_init.points import DensePoints, dense_points
from facefit.learned_init.shards import Pictures
from facefit.learned_init.training import TRAIN, VALIDATE, Settings, Training
from facefit.models.face_model import LinearFaceModel


class Network(nn.Module):
    """The shared trunk and a head for each model trained on."""

    def __init__(self, sizes: dict[str, Sizes]) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.heads = nn.ModuleDict({name: Head(size) for name, size in sizes.items()})


@dataclass(frozen=True)
class Student:
    """A model to learn, with its points and measures."""

    model: LinearFaceModel
    points: DensePoints
    yard: Yardstick
    pictures: Pictures

    @staticmethod
    def of(model: LinearFaceModel, data: Path) -> Student:
        points = dense_points(model)
        return Student(model, points, Yardstick.of(model, points), Pictures(data, model.name, TRAIN))

    @property
    def sizes(self) -> Sizes:
        model = self.model
        return Sizes(len(self.points), model.n_identity, model.n_expression, model.n_albedo)


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


class FirstTraining(Training):
    """Trains the network of the first look on the drawn pictures in `data`."""

    def __init__(
        self, models: Sequence[LinearFaceModel], folder: Path, data: Path, settings: Settings | None = None
    ) -> None:
        self.data = data
        self.students = {model.name: Student.of(model, data) for model in models}
        super().__init__(folder, settings)

    def build(self) -> nn.Module:
        return Network({name: student.sizes for name, student in self.students.items()})

    def look(self) -> None:
        for student in self.students.values():
            student.pictures.look()

    def ready(self) -> bool:
        self.look()
        return all(student.pictures.shards for student in self.students.values())

    def begin(self) -> None:
        """Points start at their mean layout, which costs nothing to learn."""
        for name, student in self.students.items():
            layout = student.pictures.any()["points"].mean(0)
            for network in (self.network, self.average):
                network.get_submodule(f"heads.{name}").get_buffer("layout").copy_(torch.from_numpy(layout))

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """A batch with equally many pictures of each model."""
        share = self.settings.batch // len(self.students)
        batches = {name: student.pictures.batch(share, rng) for name, student in self.students.items()}
        flips = {name: torch.from_numpy(rng.random(share) < 0.5) for name in batches}
        seen = [inputs(batch, flips[name]) for name, batch in batches.items()]
        images = jitter(torch.cat([i for i, _ in seen]), rng).contiguous(memory_format=torch.channels_last)
        landmarks = torch.cat([m for _, m in seen])
        with torch.autocast("cpu", torch.bfloat16):
            features, local = self.network.get_submodule("trunk")(images, landmarks)
        loss = torch.zeros(())
        report: dict[str, float] = {}
        parts = zip(features.float().split(share), local.float().split(share), batches.items(), strict=True)
        for part, there, (name, batch) in parts:
            guess = self.network.get_submodule(f"heads.{name}")(part, there)
            found = losses(guess, batch, self.students[name].yard, flips[name])
            loss = loss + total(found) / len(batches)
            report |= {f"{name} {key}": float(value.detach()) for key, value in found.items()}
        return loss, report

    @torch.no_grad()
    def validate(self, among: range = VALIDATE, limit: int = 1) -> dict[str, float]:
        """The losses by part on pictures never trained on, at most `limit` shards a model, by the averaged weights."""
        self.average.eval()
        report: dict[str, float] = {}
        for name, student in self.students.items():
            aside = Pictures(self.data, name, among)
            aside.look()
            rows: list[dict[str, float]] = []
            for batch in aside.batches(limit):
                flipped = torch.zeros(len(batch["image"]), dtype=torch.bool)
                seen = self.average.get_submodule("trunk")(*inputs(batch, flipped))
                guess = self.average.get_submodule(f"heads.{name}")(*seen)
                found = losses(guess, batch, student.yard, flipped)
                rows.append({key: float(value) for key, value in found.items()})
            if rows:
                report |= {f"{name} {key}": float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return report
