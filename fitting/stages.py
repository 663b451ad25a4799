"""Recipes as data: which unknowns are free against which evidence, from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from facefit.fitting.detail.stage import DetailSettings
from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.residual import AbstractResidual
from facefit.fitting.residuals.photometric import INDEPENDENT
from facefit.fitting.result import StageReport
from facefit.models.scene import Scene

POSE = ("rotation", "translation")
ACT = (*POSE, "expression")
SHAPE = (*POSE, "focal", "identity", "expression")
LIGHT = ("albedo", "lighting")
ALL = (*SHAPE, *LIGHT)


class Solver(Protocol):
    """Gauss-Newton, Adam, or one's own: lowers the summed cost of terms over the freed unknowns."""

    def solve(
        self, residuals: Sequence[AbstractResidual], scene: Scene, free: tuple[str, ...], name: str, /
    ) -> tuple[Scene, StageReport]: ...


@dataclass(frozen=True)
class Stage:
    """One solve: what is free, which terms speak, at which size the photograph is read (0: not at all).

    `mask` looks first where the photograph shows the face (see `occlusion`): this stage and those after it leave out
    what hides it, and believe hidden landmarks less.

    `core_only` reads the middle of the face only; `expose` begins with white light at the photograph's brightness,
    whatever light the scene had. `independent` is how many independent observations all photometric
    samples are worth (see the term); `prior` scales the belief in the coefficients' N(0, 1). With `detail`
    the stage adds displacements and texture offsets instead, whatever else it says.
    """

    name: str
    free: tuple[str, ...]
    landmarks: bool = True
    contour: bool = False
    photometric_px: int = 0
    samples: int = 0
    core_only: bool = False
    expose: bool = False
    mask: bool = False
    independent: float = INDEPENDENT
    prior: float = 1.0
    solver: Solver = GaussNewton()
    detail: DetailSettings | None = None

    def __repr__(self) -> str:
        """Its name: a recipe is the default of `fit`, and a notebook shows it with every call's help."""
        return f"<Stage {self.name}>"


# Landmarks say little about who somebody is, for they err in shapes of faces (`landmark_share`), but all about what the
# face does: with identity settled, expression follows them more closely.
FAST: tuple[Stage, ...] = (
    Stage("pose", POSE, solver=GaussNewton(steps=8, tolerance=1e-2)),
    Stage("landmarks", SHAPE, contour=True, solver=GaussNewton(steps=6, tolerance=1e-2)),
    Stage("expression", ACT, contour=True, solver=GaussNewton(steps=2, tolerance=1e-2)),
)

# Where the photograph speaks afterwards, the landmarks need not have their last word first.
BRIEFLY: tuple[Stage, ...] = tuple(
    replace(stage, solver=GaussNewton(steps=2, tolerance=1e-2)) if "identity" in stage.free else stage
    for stage in FAST
)

STANDARD: tuple[Stage, ...] = (
    *BRIEFLY,
    Stage(
        "light",
        LIGHT,
        False,
        expose=True,
        mask=True,
        photometric_px=64,
        samples=1000,
        solver=GaussNewton(steps=3, tolerance=2e-2),
    ),
    # One size is enough: the landmarks leave less than two pixels here, and what a finer picture would add is detail
    # that the coefficients cannot say (192 px: no gain on path-traced heads; 64 px first: slightly worse).
    Stage(
        "dense",
        ALL,
        True,
        True,
        photometric_px=128,
        samples=1000,
        solver=GaussNewton(steps=5, tolerance=2e-3),
    ),
    Stage(
        "dense expression",
        ACT,
        True,
        True,
        photometric_px=128,
        samples=400,
        solver=GaussNewton(steps=2, tolerance=1e-2),
    ),
    # Shape is settled. Colour may follow the photograph more closely than shape could without being bent by it: until
    # photographs' albedo coefficients are as large as their N(0, 1) says. At 600 they are half as large again, and
    # modes that cancel paint shadows onto the skin and brows away.
    Stage(
        "colour",
        LIGHT,
        False,
        mask=True,
        photometric_px=256,
        samples=1000,
        independent=200.0,
        solver=GaussNewton(steps=2),
    ),
)

# What the coefficients cannot say: wrinkles, moles, a shadow of beard.
DETAILED: tuple[Stage, ...] = (*STANDARD, Stage("detail", (), False, detail=DetailSettings()))
