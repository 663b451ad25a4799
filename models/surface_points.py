"""Points fixed on a model's surface, wherever its coefficients move them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

MODES_AT_A_TIME = 8


class SurfacePoints:
    """Points fixed on a model's surface (triangle and barycentric weights), with their rows of the shape basis."""

    def __init__(
        self,
        model: LinearFaceModel,
        triangles: Int[np.ndarray, "points"],
        barycentric: Float[np.ndarray, "points 3"],
    ) -> None:
        corner = model.triangles[torch.as_tensor(np.asarray(triangles), dtype=torch.int64)]
        weights = torch.as_tensor(np.asarray(barycentric)).to(model.mean)
        self.mean = (model.mean[corner] * weights[..., None]).sum(1)
        self.basis = self.mean.new_empty(*self.mean.shape, model.n_identity + model.n_expression)
        # A few modes after the other: the corners of all modes are three times the memory of the points.
        for basis, first in ((model.identity_basis, 0), (model.expression_basis, model.n_identity)):
            for start in range(0, len(basis), MODES_AT_A_TIME):
                part = basis[start : start + MODES_AT_A_TIME, corner]
                at = first + start
                self.basis[..., at : at + len(part)] = (part * weights[..., None]).sum(2).permute(1, 2, 0)

    @cached_property
    def mean64(self) -> Float[np.ndarray, "points 3"]:
        """In float64 arrays, as `basis64`: for the analytic path."""
        return self.mean.double().numpy()

    @cached_property
    def basis64(self) -> Float[np.ndarray, "points 3 shape"]:
        return self.basis.double().numpy()

    def __len__(self) -> int:
        return len(self.mean)

    def at(self, scene: Scene) -> Float[torch.Tensor, "points 3"]:
        """The points in the model frame."""
        coefficients = torch.cat([scene.identity, scene.expression])
        return self.mean.to(coefficients) + self.basis.to(coefficients) @ coefficients

    def blended(self, corner: Int[np.ndarray, "n 3"], weights: Float[np.ndarray, "n 3"]) -> SurfacePoints:
        """New points between three of these each."""
        found = object.__new__(SurfacePoints)
        index, share = torch.from_numpy(corner), torch.from_numpy(weights).to(self.mean)
        found.mean = (self.mean[index] * share[..., None]).sum(1)
        found.basis = (self.basis[index] * share[..., None, None]).sum(1)
        return found
