"""Shapes of the gaze that moved lids alone turn the eyeballs as well, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.models.eye_turns import FULL_DEGREES, ball_centre, turn_eyes
from facefit.models.face_model import LinearFaceModel

UNIT = 0.3


def with_balls() -> tuple[LinearFaceModel, dict[str, np.ndarray]]:
    """The toy's first vertices as two eyeballs, and gaze shapes that move one vertex of skin."""
    toy = toy_model()
    ray = np.random.default_rng(0).normal(size=(40, 3))
    ray *= 12 / np.linalg.norm(ray, axis=1, keepdims=True)
    mean = toy.mean.clone()
    balls = {"left": np.arange(40), "right": np.arange(40, 80)}
    for members, x in zip(balls.values(), (31.0, -31.0), strict=True):
        mean[torch.from_numpy(members)] = torch.from_numpy(ray + [x, 0.0, 70.0]).float()
    names = ("jawOpen", "eyeLookOut_L", "eyeLookIn_R", "eyeLookUp_R")
    basis = torch.zeros(len(names), toy.n_vertices, 3)
    basis[:, 100] = 0.5
    regions = dict(toy.topology.regions) | {f"sclera_{side}": members for side, members in balls.items()}
    model = replace(
        toy,
        topology=replace(toy.topology, regions=regions),
        mean=mean,
        expression_basis=basis,
        expression_names=names,
        expression_unit=torch.full((len(names),), UNIT),
    )
    return model, balls


@pytest.mark.parametrize(
    ("name", "side", "towards"),
    [
        ("eyeLookOut_L", "left", (1.0, 0.0)),
        ("eyeLookIn_R", "right", (1.0, 0.0)),
        ("eyeLookUp_R", "right", (0.0, 1.0)),
    ],
)
def test_at_full_activation_a_ball_is_turned_about_its_centre(
    name: str, side: str, towards: tuple[float, float]
) -> None:
    model, balls = with_balls()
    number = model.expression_names.index(name)
    at = turn_eyes(model).expression_basis[number].double().numpy() / UNIT
    ball, points = balls[side], model.mean.double().numpy()
    centre = ball_centre(points[ball])
    np.testing.assert_allclose(centre, [31.0 if side == "left" else -31.0, 0.0, 70.0], atol=1e-3)
    before, after = points[ball] - centre, points[ball] + at[ball] - centre
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), atol=1e-3)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-1)
    # What pointed ahead points aside.
    turn = np.linalg.lstsq(before, after, rcond=None)[0].T
    angle = np.radians(FULL_DEGREES[name[7:-2]])
    np.testing.assert_allclose(
        turn @ [0.0, 0.0, 1.0], [*(np.sin(angle) * np.array(towards)), np.cos(angle)], atol=1e-3
    )
    others = np.setdiff1d(np.arange(model.n_vertices), ball)
    expected = np.zeros((model.n_vertices, 3))
    expected[100] = 0.5 / UNIT
    np.testing.assert_allclose(at[others], expected[others], atol=1e-6)


def test_other_shapes_stay() -> None:
    model, _ = with_balls()
    before = model.expression_basis[0].clone()
    assert torch.equal(turn_eyes(model).expression_basis[0], before)
