"""Eyes and lips: how far apart their two edges are, whatever else is wrong with the landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.fitting.projection import landmark_points, point_rows, project_points
from facefit.fitting.residual import AbstractResidual, Total, add_to, alone, cost, normal_equations
from facefit.fitting.residuals.landmarks import geometry_of, has_shape, landmark_covariance
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.models.surface_points import SurfacePoints
from facefit.observation import Observation

# (upper, lower) in iBUG's numbers.
EYES = ((37, 41), (38, 40), (43, 47), (44, 46))
LIPS = ((61, 67), (62, 66), (63, 65))

# Share of a landmark's variance that it has in common with its neighbour across the slit.
SHARED = 0.5


@dataclass(frozen=True)
class ClosureResidual(AbstractResidual):
    """Offset from lower to upper lid or lip: the model's minus the photograph's, whitened, in pixels.

    A shift common to both edges does not matter, so a landmark set that sits a little low on the face still
    says exactly whether the eyes are shut. `points` holds the upper points, then the lower ones in the same
    order. Robust as the landmarks are: `freeze` scales a pair down by 1 / (1 + r^2 / tolerance^2). `share` is the
    landmarks' own.

    Source: Jiang, "Learning Animatable 3D Face Models from In-the-Wild Images", section 2.1, "relative offset
    between eye keypoints"; from Feng et al. (DECA), SIGGRAPH 2021, equation 4, which has weights for sigmas.
    """

    points: SurfacePoints
    offset: Float[np.ndarray, "pairs 2"]
    whitening: Float[np.ndarray, "pairs 2 2"]
    tolerance: float = 3.0
    weight: Float[np.ndarray, "pairs"] | None = None
    share: float = 1.0
    name: str = "closure"

    def __call__(self, scene: Scene) -> Float[Tensor, "rows"]:
        upper, lower = scene.camera.project(scene.pose.apply(self.points.at(scene))).chunk(2)
        difference = upper - lower - torch.from_numpy(self.offset).to(upper)
        return torch.einsum("pri,pi->pr", torch.from_numpy(self.weighted).to(upper), difference).reshape(-1)

    @property
    def weighted(self) -> Float[np.ndarray, "pairs 2 2"]:
        whitening: Float[np.ndarray, "pairs 2 2"] = self.whitening * self.share**0.5
        return whitening if self.weight is None else whitening * self.weight[:, None, None]

    def freeze(self, scene: Scene) -> ClosureResidual:
        squared = ((self.whitening @ self.difference(scene)[:, :, None]) ** 2).sum((1, 2))
        return replace(self, weight=1 / (1 + squared / self.tolerance**2))

    def difference(self, scene: Scene) -> Float[np.ndarray, "pairs 2"]:
        """Model minus photograph in pixels, not whitened, in float64."""
        upper, lower = _halves(project_points(scene, self.points))
        difference: Float[np.ndarray, "pairs 2"] = upper - lower - self.offset
        return difference


def _halves(rows: Float[np.ndarray, "two_n columns"]) -> tuple[np.ndarray, np.ndarray]:
    half = len(rows) // 2
    return rows[:half], rows[half:]


@add_to.register
def _(residual: ClosureResidual, total: Total, scene: Scene) -> None:
    whitening = residual.weighted
    both = np.concatenate([whitening, -whitening])
    upper, lower = _halves(point_rows(scene, residual.points, both, with_shape=has_shape(total.free)))
    values = (whitening @ residual.difference(scene)[:, :, None]).ravel()
    total.add_rows(upper + lower, values, scene, geometry_of(total.free))


normal_equations.register(ClosureResidual, alone)


@cost.register
def _(residual: ClosureResidual, scene: Scene) -> float:
    return 0.5 * float(((residual.weighted @ residual.difference(scene)[:, :, None]) ** 2).sum())


def closure_residual(
    observation: Observation,
    model: LinearFaceModel,
    pairs: tuple[tuple[int, int], ...] = EYES + LIPS,
    shared: float = SHARED,
    share: float = 1.0,
) -> ClosureResidual | None:
    """The term for those pairs that the photograph and the model both know; None where there are none.

    Where two points share the part `shared` of their variance, their difference has the covariance
    (1 - shared) (C_upper + C_lower). The landmark term takes points for independent and has counted
    1 / (C_upper + C_lower) of that precision; what it missed, shared / (1 - shared) times as much, is this
    term's. Together the two weigh a difference as it deserves.
    """
    if not 0 < shared < 1:
        raise ValueError(f"shared = {shared}: the share of the variance in common lies between 0 and 1")
    if observation.landmarks is None:
        return None
    landmarks = model.topology.landmarks
    row = {int(number): i for i, number in enumerate(landmarks.numbers)}
    known = np.isfinite(observation.landmarks).all(1)
    kept = [pair for pair in pairs if all(n in row and known[n] for n in pair)]
    if not kept:
        return None
    upper, lower = np.array(kept).T
    points = landmark_points(model, tuple(row[int(n)] for n in np.concatenate([upper, lower])))
    covariance = landmark_covariance(observation)
    missed = (covariance[upper] + covariance[lower]) * (1 - shared) / shared
    offset = (observation.landmarks[upper] - observation.landmarks[lower]).astype(np.float64)
    return ClosureResidual(points, offset, np.linalg.inv(np.linalg.cholesky(missed)), share=share)
