"""Where the eyes look, and the expressions that make a model's eyes look there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.expressions import arkit_name, part_of
from facefit.fitting.eyeballs import Eyeballs
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

# The names of the shapes that turn the left and the right eye to the subject's left, right, up and down.
WAYS = (("Out", "In", "Up", "Down"), ("In", "Out", "Up", "Down"))
# A shape that moves the pupil by less turns no eye.
LEAST_MM = 1.0
# The lids' other expressions hold the skin where it is; one unit of them costs this, in mm^2 over all vertices.
HOLD_MM2 = 1.0
# What a photograph does not say of the pupils' place, mm across and up: between two models' fits of the same one.
DOUBT_MM = np.array([0.8, 1.0])


@dataclass(frozen=True, eq=False)
class Gaze:
    """Where the eyes look in the head, as far as the model's eyes turn: degrees to the subject's left and up, with
    standard deviations; `converging_deg` is how far each turns inwards besides.

    Where no eye is `seen` they look straight ahead, and the deviations are those of people in photographs.
    `coefficient_sigma` holds the deviations of the expressions that turn the eyes, by their numbers.
    """

    left_deg: float
    up_deg: float
    converging_deg: float
    left_sigma_deg: float
    up_sigma_deg: float
    seen: bool
    coefficient_sigma: dict[int, float]


@dataclass(frozen=True, eq=False)
class GazeShapes:
    """The expressions that turn the left and the right eye to the subject's left, right, up and down.

    `move_mm` is how one unit of each moves the middle of the pupil, `full` how many units are the full shape. Whoever
    changes these coefficients keeps the skin, as far as the lids' other shapes can, by adding `hold` times the change.
    """

    number: Int[np.ndarray, "2 4"]
    move_mm: Float[np.ndarray, "2 4 3"]
    full: Float[np.ndarray, "2 4"]
    hold: Float[np.ndarray, "expression 8"]

    def coefficients(self, radius_mm: float, slope: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 4"]:
        """What turns each pupil's middle to a slope, left and up per forward, as far as the full shapes go."""
        found = np.zeros((2, 4))
        for eye, (left, up) in enumerate(slope):
            ways = [0 if left > 0 else 1, 2 if up > 0 else 3]
            move = self.move_mm[eye, ways]
            # radius e_z + move^T w lies along (left, up, 1).
            matrix = move[:, :2].T - np.outer([left, up], move[:, 2])
            found[eye, ways] = np.linalg.solve(matrix, radius_mm * np.array([left, up]))
        return found.clip(0, self.full)


@lru_cache(maxsize=4)
def gaze_shapes(model: LinearFaceModel, eyes: Eyeballs) -> GazeShapes | None:
    """None for a model whose expressions have no ARKit names for the gaze, or whose eyes do not turn with them."""
    names = [arkit_name(name) for name in model.expression_names]
    wanted = [
        [f"eyeLook{way}{side}" for way in ways] for side, ways in zip(("Left", "Right"), WAYS, strict=True)
    ]
    if not {name for row in wanted for name in row} <= set(names):
        return None
    number = np.array([[names.index(name) for name in row] for row in wanted])
    basis, full = model.expression_basis.numpy(), 1 / model.expression_unit.double().numpy()[number]
    move = np.stack([basis[number[eye], eyes.pupil[eye]] for eye in range(2)]).astype(np.float64)
    if (np.linalg.norm(move, axis=2) * full).min() < LEAST_MM:
        return None
    lids = [k for k, name in enumerate(names) if part_of(name) == "Eyes" and k not in number]
    products = np.empty((len(lids), len(lids) + number.size))
    # One after the other: a copy of all shapes would stay in the process's memory.
    for row, lid in enumerate(lids):
        skin = basis[lid].copy()
        skin[eyes.vertices] = 0
        products[row] = [skin.ravel() @ basis[k].ravel() for k in (*lids, *number.ravel())]
    hold = np.zeros((len(names), number.size))
    hold[lids] = -np.linalg.solve(
        products[:, : len(lids)] + HOLD_MM2 * np.eye(len(lids)), products[:, len(lids) :]
    )
    return GazeShapes(number, move, full, hold)


def with_gaze(
    scene: Scene,
    shapes: GazeShapes,
    eyes: Eyeballs,
    gaze: Float[np.ndarray, "3"],
    covariance: Float[np.ndarray, "3 3"],
    seen: bool,
) -> tuple[Scene, Gaze]:
    """The scene with eyes that look left, up and inwards by slopes, and its skin where it was."""
    left, up, inwards = gaze
    slope = np.array([[left - inwards, up], [left + inwards, up]])
    wanted, turns = shapes.coefficients(eyes.radius, slope).ravel(), torch.from_numpy(shapes.number.ravel())
    change = wanted - scene.expression[turns].double().numpy()
    expression = scene.expression + torch.from_numpy(shapes.hold @ change).to(scene.expression)
    expression[turns] = torch.from_numpy(wanted).to(expression)
    doubt = DOUBT_MM / eyes.radius if seen else np.zeros(2)
    sigma = np.sqrt(covariance.diagonal()[:2] + doubt**2)
    # Per unit of each shape the pupil goes across or up by so much of the radius.
    per_unit = np.abs(shapes.move_mm[:, [0, 1, 2, 3], [0, 0, 1, 1]]) / eyes.radius
    of_each = (sigma[[0, 0, 1, 1]] / per_unit).ravel()
    left_deg, up_deg, converging_deg = np.degrees(np.arctan(gaze)).tolist()
    left_sigma_deg, up_sigma_deg = np.degrees(sigma / (1 + gaze[:2] ** 2)).tolist()
    return replace(scene, expression=expression), Gaze(
        left_deg=left_deg,
        up_deg=up_deg,
        converging_deg=converging_deg,
        left_sigma_deg=left_sigma_deg,
        up_sigma_deg=up_sigma_deg,
        seen=seen,
        coefficient_sigma=dict(zip(shapes.number.ravel().tolist(), of_each.tolist(), strict=True)),
    )
