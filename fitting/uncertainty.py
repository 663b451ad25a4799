"""How far the parts of a fitted face may be off, as figures and as half a sentence."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from facefit.models.face_model import LinearFaceModel

# Landmarks (iBUG 68) that name a part of the face, and how far from them it reaches.
PARTS = {
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "brows": range(17, 27),
    "mouth": range(48, 68),
    "chin": range(6, 11),
    "jaw": (*range(6), *range(11, 17)),
}
REACH_MM = 18.0

# What the model cannot say of a person widens the doubt: on path-traced heads, most of them outside the models' spaces,
# intervals had to be this much wider to hold 90 % of the surface.
MISMATCH = 1.1

# One photograph does not show size: heads of adults differ by this much, and so may the fitted one.
SCALE_SIGMA = 0.05


@lru_cache(maxsize=4)
def face_parts(model: LinearFaceModel) -> dict[str, Int[np.ndarray, "n"]]:
    """The "face" region's vertices by part: each belongs to its nearest landmark's, else to forehead or cheeks."""
    face = np.asarray(model.topology.region("face"), dtype=np.int64)
    points = model.mean.numpy()[face]
    marks = dict(
        zip(model.topology.landmarks.numbers.tolist(), model.landmark_points(model.mean).numpy(), strict=True)
    )
    names = [name for name, numbers in PARTS.items() if any(n in marks for n in numbers)]
    if not names:
        return {"face": face}
    gaps = np.stack(
        [
            np.linalg.norm(
                points[:, None] - np.stack([marks[n] for n in PARTS[name] if n in marks]), axis=2
            ).min(1)
            for name in names
        ]
    )
    nearest = gaps.argmin(0)
    far = gaps.min(0) > REACH_MM
    brow = max((marks[n][1] for n in PARTS["brows"] if n in marks), default=np.inf)
    above = points[:, 1] > brow
    found = {name: face[(nearest == i) & ~far & ~above] for i, name in enumerate(names)}
    found["forehead"] = face[above]
    found["cheeks"] = face[far & ~above]
    return {name: members for name, members in found.items() if len(members)}


def part_sigma_mm(
    model: LinearFaceModel, vertex_sigma_mm: Float[np.ndarray, "vertices 3"]
) -> dict[str, float]:
    """Standard deviation per axis of each part's vertices: root mean square over vertices and axes."""
    return {
        name: float(np.sqrt((vertex_sigma_mm[members] ** 2).mean()))
        for name, members in face_parts(model).items()
    }


def in_words(part_sigma: dict[str, float]) -> str:
    """The parts from surest to least sure, and what the size is worth."""
    ordered = sorted(part_sigma.items(), key=lambda item: item[1])
    parts = ", ".join(f"{name} +-{sigma:.1f}" for name, sigma in ordered)
    return f"standard deviations: {parts} mm; scale is a prior +-{100 * SCALE_SIGMA:.0f} %"
