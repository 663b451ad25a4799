"""How sure a fit is: the precision of the last system that held the shape, read as a Gaussian posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facefit.models.face_model import LinearFaceModel


@dataclass(frozen=True, eq=False)
class Posterior:
    """Laplace's approximation at the fitted scene: N(scene, precision^-1) over the packed unknowns.

    Residuals are whitened and priors are N(0, 1), so the Gauss-Newton matrix at the optimum is the precision.
    `layout` says where each block lies (see `Scene.layout`). `noise` is how many times larger the landmarks' errors
    are than they were believed to be, by their misfit; every standard deviation is that much larger. It is never
    below 1: a small misfit may also be luck, or errors that all landmarks share.
    """

    precision: Float[Tensor, "unknowns unknowns"]
    layout: dict[str, slice]
    noise: float = 1.0

    def without(self, blocks: tuple[str, ...]) -> Posterior:
        """As if these unknowns were known: what a posterior is where nothing is known of them."""
        left = {block: where for block, where in self.layout.items() if block not in blocks}
        kept = torch.cat([torch.arange(w.start, w.stop) for w in left.values()] or [torch.arange(0)])
        layout, start = {}, 0
        for block, where in left.items():
            size = where.stop - where.start
            layout[block], start = slice(start, start + size), start + size
        return Posterior(self.precision[kept][:, kept], layout, self.noise)

    @property
    def proper(self) -> bool:
        """Whether the precision is one: positive definite."""
        return not int(torch.linalg.cholesky_ex(self.precision)[1])

    def covariance(self, block: str) -> Float[Tensor, "n n"]:
        """Marginal covariance of one block: all other unknowns integrated out."""
        where = self.layout[block]
        size = self.precision.shape[0]
        unit = torch.zeros(size, where.stop - where.start, dtype=torch.float64)
        unit[where] = torch.eye(where.stop - where.start, dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(self.precision)
        if int(failed):
            raise ValueError(
                "the posterior's precision is not positive definite: an unknown was left without prior"
            )
        return self.noise**2 * torch.cholesky_solve(unit, factor)[where]

    def every_sigma(self) -> dict[str, Float[Tensor, "n"]]:
        """`sigma` of every block, from one inverse."""
        factor, failed = torch.linalg.cholesky_ex(self.precision)
        if int(failed):
            return {}
        every = self.noise * torch.cholesky_inverse(factor).diagonal().clamp(min=0).sqrt()
        return {block: every[where] for block, where in self.layout.items()}

    def sigma(self, block: str) -> Float[Tensor, "n"]:
        """Marginal standard deviation of each number of a block, in its own unit (log for the focal length)."""
        return self.covariance(block).diagonal().sqrt()


def misfit_noise(
    term: Float[Tensor, "unknowns unknowns"],
    cost: float,
    rows: float,
    precision: Float[Tensor, "unknowns unknowns"],
) -> float:
    """Root of a whitened term's misfit over its degrees of freedom, at least 1.

    `term` is its part of the precision: the trace of term . precision^-1 is the number of unknowns that it determines.
    """
    factor, failed = torch.linalg.cholesky_ex(precision)
    if int(failed):
        return 1.0
    determined = float(torch.cholesky_solve(term, factor).diagonal().sum())
    return max(1.0, math.sqrt(2 * cost / max(rows - determined, 1.0)))


def neutral_sigma_mm(
    model: LinearFaceModel, posterior: Posterior, vertices: Float[Tensor, "vertices 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Standard deviation of each vertex of the neutral face along the model's axes, mm.

    The pose is taken out: a motion of the whole face is no uncertainty of its shape, so from each identity mode
    the rigid motion that fits it best over the "face" region is removed.
    """
    factor = torch.linalg.cholesky(posterior.covariance("identity")).float()
    moves = (factor.T @ model.identity_basis.flatten(1)).reshape(len(factor), -1, 3)
    face = torch.from_numpy(np.asarray(model.topology.region("face"), dtype=np.int64))
    middle = vertices[face].mean(0)
    rigid = rigid_moves(vertices - middle)
    over_face = rigid[:, face].flatten(1)
    share = torch.linalg.lstsq(over_face.T, moves[:, face].flatten(1).T).solution
    kept = moves - (share.T @ rigid.flatten(1)).reshape(moves.shape)
    sigma: Float[np.ndarray, "vertices 3"] = kept.pow(2).sum(0).sqrt().numpy()
    return sigma


def rigid_moves(points: Float[Tensor, "n 3"]) -> Float[Tensor, "6 n 3"]:
    """The displacement of points under unit translations and small unit rotations about the origin."""
    shifts = torch.eye(3).to(points)[:, None].expand(3, len(points), 3)
    turns = torch.stack(
        [torch.linalg.cross(axis.expand_as(points), points) for axis in torch.eye(3).to(points)]
    )
    return torch.cat([shifts, turns])
