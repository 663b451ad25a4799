"""Eyes that turn with the gaze, for models whose shapes of gaze move lids alone and leave the eyeballs to a rig."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from facefit.expressions import arkit_name
from facefit.models.face_model import LinearFaceModel

# How far eyes turn at full activation: as far as they go without strain.
FULL_DEGREES = {"Up": 25.0, "Down": 25.0, "In": 30.0, "Out": 30.0}


def ball_centre(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """The middle of the sphere nearest to points."""
    rows = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    centre: Float[np.ndarray, "3"] = np.linalg.lstsq(rows, (points**2).sum(1), rcond=None)[0][:3]
    return centre


def turn_eyes(model: LinearFaceModel) -> LinearFaceModel:
    """The model, its shapes of gaze now turning the balls "sclera_left" and "sclera_right" and the irises in them."""
    regions, mean = model.topology.regions, model.mean.double().numpy()
    for side, outwards in (("left", 1.0), ("right", -1.0)):
        centre = ball_centre(mean[regions[f"sclera_{side}"]])
        parts = [regions[name] for name in (f"sclera_{side}", f"iris_{side}") if name in regions]
        ball = np.concatenate(parts)
        for number, name in enumerate(map(arkit_name, model.expression_names)):
            way = name.removeprefix("eyeLook").removesuffix(side.capitalize())
            if way in FULL_DEGREES:
                moved = _turned(mean[ball] - centre, way, outwards) * float(model.expression_unit[number])
                model.expression_basis[number, ball] += model.expression_basis.new_tensor(moved)
    return model


def _turned(ray: Float[np.ndarray, "n 3"], way: str, outwards: float) -> Float[np.ndarray, "n 3"]:
    """How far points about an eye's centre move at full activation. `outwards` is the side's sign along x."""
    angle = math.radians(FULL_DEGREES[way])
    aim = {"Up": (0, 1), "Down": (0, -1), "In": (-outwards, 0), "Out": (outwards, 0)}[way]
    along = ray @ np.array([*aim, 0.0])
    across = np.array([*aim, 0.0]) * ((math.cos(angle) - 1) * along + math.sin(angle) * ray[:, 2])[:, None]
    depth = (math.cos(angle) - 1) * ray[:, 2] - math.sin(angle) * along
    moved: Float[np.ndarray, "n 3"] = across + np.array([0.0, 0.0, 1.0]) * depth[:, None]
    return moved
