"""The scenes of several photographs of one person: what they share is one value, and packed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from facefit.models.scene import Scene

# What belongs to the person; the rest of a scene belongs to the photograph.
SHARED = ("identity", "albedo")


@dataclass(frozen=True, eq=False)
class Scenes:
    """One scene per photograph, the person's blocks the same in all.

    A solver asks it what it asks a `Scene`: `layout`, `pack`, `with_packed`. Packed, each photograph's own unknowns
    come first, one after the other, and the person's last. `known_focal[i]`: photograph i's focal length stays.
    """

    each: tuple[Scene, ...]
    known_focal: tuple[bool, ...]

    @staticmethod
    def of(scenes: Sequence[Scene], known_focal: Sequence[bool]) -> Scenes:
        """Scenes with the first one's person in all of them."""
        if not scenes or len(scenes) != len(known_focal):
            raise ValueError(
                f"{len(scenes)} scenes and {len(known_focal)} focal lengths: one of each per photograph"
            )
        return Scenes(tuple(of_person(scene, scenes[0]) for scene in scenes), tuple(known_focal))

    def __len__(self) -> int:
        return len(self.each)

    def replaced(self, scenes: Sequence[Scene]) -> Scenes:
        return Scenes.of(scenes, self.known_focal)

    def free(self, index: int, free: tuple[str, ...]) -> tuple[str, ...]:
        """The unknowns that one photograph speaks about: the person's and its own."""
        return tuple(name for name in free if name != "focal" or not self.known_focal[index])

    def own(self, index: int, free: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in self.free(index, free) if name not in SHARED)

    def layout(self, free: tuple[str, ...]) -> dict[str, slice]:
        """Where each photograph's own unknowns lie ("0", "1", ...), and the person's ("shared")."""
        sizes = {str(i): size for i, size in enumerate(own_sizes(self, free))}
        sizes["shared"] = _size(self.each[0], shared(free))
        slices, start = {}, 0
        for name, size in sizes.items():
            if size:
                slices[name] = slice(start, start + size)
                start += size
        return slices

    def pack(self, free: tuple[str, ...]) -> Float[Tensor, "unknowns"]:
        own = [scene.pack(self.own(i, free)) for i, scene in enumerate(self.each)]
        return torch.cat([*own, self.each[0].pack(shared(free))])

    def with_packed(self, free: tuple[str, ...], x: Float[Tensor, "unknowns"]) -> Scenes:
        layout = self.layout(free)
        scenes = list(self.each)
        for i, scene in enumerate(scenes):
            if (where := layout.get(str(i))) is not None:
                scenes[i] = scene.with_packed(self.own(i, free), x[where])
        if (where := layout.get("shared")) is not None:
            first = scenes[0].with_packed(shared(free), x[where])
            scenes = [of_person(scene, first) for scene in scenes]
        return Scenes(tuple(scenes), self.known_focal)


def of_person(scene: Scene, person: Scene) -> Scene:
    """The scene with another's person in it."""
    return replace(scene, identity=person.identity, albedo=person.albedo)


def shared(free: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in free if name in SHARED)


# Every term of every photograph asks.
@lru_cache(maxsize=4)
def own_sizes(scenes: Scenes, free: tuple[str, ...]) -> tuple[int, ...]:
    """How many unknowns each photograph has to itself."""
    return tuple(_size(scene, scenes.own(i, free)) for i, scene in enumerate(scenes.each))


def _size(scene: Scene, free: tuple[str, ...]) -> int:
    return sum(scene.size(name) for name in free)
