"""A photograph's face as a picture to compare a rendering with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facefit.fitting.losses.image import Image, Mask
from facefit.fitting.losses.term import Term
from facefit.fitting.pyramid import face_pyramid
from facefit.fitting.surface_samples import face_triangles
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import Picture, render

Compare = Callable[[Image, Image, Mask], Float[Tensor, ""]]


class View:
    """The square crop around a face, `size` pixels a side (never enlarged), and a scene's rendering in it.

    Pictures are compared where they show the model's "face" region, as in the dense term: hair is not modelled,
    and a scalp that takes its colour spoils the skin's. `whole_head` compares wherever anything is rendered.
    Losses that share a view share its last rendering: differentiate their sum, not one after the other.
    """

    def __init__(
        self, observation: Observation, model: LinearFaceModel, size: int = 224, whole_head: bool = False
    ) -> None:
        self.observation, self.model = observation, model
        (level,) = face_pyramid(observation, [size])
        self.photo = torch.from_numpy(np.ascontiguousarray(level.image)).to(model.mean)
        self.usable = torch.from_numpy(level.usable).to(model.mean.device)
        self.size, self._scale = len(level.image), level.scale
        self._origin = torch.from_numpy(level.origin).to(model.mean)
        self._compared = torch.full((len(model.triangles),), whole_head, device=model.mean.device)
        self._compared[torch.from_numpy(face_triangles(model.topology, model.n_vertices))] = True
        self._last: tuple[Scene, bool, Picture] | None = None

    def scene(self, scene: Scene) -> Scene:
        """The scene as the crop's own camera sees it."""
        camera = scene.camera
        cropped = replace(
            camera,
            focal_px=camera.focal_px * self._scale,
            principal_point=(camera.principal_point - self._origin) * self._scale,
            width=self.size,
            height=self.size,
        )
        return replace(scene, camera=cropped)

    def picture(self, scene: Scene) -> Picture:
        """The scene rendered in the crop, differentiable where visibility does not change."""
        differentiable = torch.is_grad_enabled()
        if self._last is None or self._last[0] is not scene or self._last[1] is not differentiable:
            self._last = scene, differentiable, render(self.scene(scene), self.model)
        return self._last[2]

    def mask(self, picture: Picture) -> Mask:
        """Where a rendering and the photograph are compared."""
        return picture.covered & self.usable & self._compared[picture.triangle.clamp(min=0)]

    def of(self, full_size: Bool[np.ndarray, "height width"]) -> Float[Tensor, "size size"]:
        """A mask of the photograph's size, cropped and resampled as the photograph was; in [0, 1]."""
        if full_size.shape != self.observation.image.shape[:2]:
            raise ValueError(
                f"a mask of {full_size.shape} for a photograph of {self.observation.image.shape[:2]}"
            )
        grey = np.repeat(full_size.astype(np.uint8)[..., None] * 255, 3, axis=2)
        (level,) = face_pyramid(replace(self.observation, image=grey), [self.size])
        return torch.from_numpy(np.ascontiguousarray(level.image[..., 0])).to(self.photo)

    def term(self, compare: Compare, weight: float = 1.0, name: str | None = None) -> Term:
        """A comparison of two pictures as a loss of a scene."""

        def loss(scene: Scene) -> Float[Tensor, ""]:
            picture = self.picture(scene)
            return compare(picture.color, self.photo, self.mask(picture))

        found = name or getattr(compare, "name", None) or getattr(compare, "__name__", type(compare).__name__)
        return Term(loss, weight, str(found))
