"""A loss with a weight and a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from facefit.models.scene import Scene


@dataclass(frozen=True)
class Term:
    """`weight` times a function of a scene; `name` is what a stage's report calls it."""

    function: Callable[[Scene], Float[Tensor, ""]]
    weight: float
    name: str

    def __call__(self, scene: Scene) -> Float[Tensor, ""]:
        return self.weight * self.function(scene)
