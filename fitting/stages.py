"""Recipes as data: which unknowns are free against which evidence, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

from facefit.fitting.gauss_newton import GaussNewton

POSE = ("rotation", "translation")
SHAPE = (*POSE, "focal", "identity", "expression")
LIGHT = ("albedo", "lighting")
ALL = (*SHAPE, *LIGHT)


@dataclass(frozen=True)
class Stage:
    """One solve: what is free, which terms speak, at which size the photograph is read (0: not at all)."""

    name: str
    free: tuple[str, ...]
    landmarks: bool = True
    contour: bool = False
    photometric_px: int = 0
    samples: int = 0
    solver: GaussNewton = GaussNewton()


FAST: tuple[Stage, ...] = (
    Stage("pose", POSE, solver=GaussNewton(steps=10)),
    Stage("landmarks", SHAPE, contour=True, solver=GaussNewton(steps=8, tolerance=1e-3)),
)

STANDARD: tuple[Stage, ...] = (
    *FAST,
    Stage("light", LIGHT, landmarks=False, photometric_px=64, samples=1500, solver=GaussNewton(steps=6, tolerance=1e-2)),
    Stage("coarse", ALL, contour=True, photometric_px=64, samples=1500, solver=GaussNewton(steps=6)),
    Stage("medium", ALL, contour=True, photometric_px=128, samples=2500, solver=GaussNewton(steps=6)),
    Stage("fine", ALL, contour=True, photometric_px=256, samples=4000, solver=GaussNewton(steps=6)),
)
