"""Laws of the built-in model's colours: shade of hollows, tone of skin, what is drawn of lips and eyes."""

import numpy as np
import pytest

from facefit.models.builtin import store
from facefit.models.builtin.paint import BLOOD, RED, RED_DEVIATION, tone_line
from facefit.models.builtin.sky import LIFT_MM, sky_view
from facefit.models.skin import lab, skin_albedo

RADIUS_MM = 20.0


@pytest.fixture(scope="module")
def model() -> dict[str, np.ndarray]:
    return store.read()


def test_a_ball_sees_its_whole_sky() -> None:
    points, triangles = _ball(np.pi)
    assert sky_view(points, triangles, points / RADIUS_MM, len(points)).min() > 0.999


def test_the_bottom_of_a_bowl_sees_the_cone_its_rim_leaves_open() -> None:
    """Light of an overcast sky, (1 + 2 sin height) / 3, upon level ground, over angles from the zenith to the
    rim against all of it: ((1 - c^2) / 6 + 2 (1 - c^3) / 9) / (7 / 18) with c the rim's cosine.
    """
    points, triangles = _ball(np.pi / 2)
    seen = sky_view(points * np.array([1.0, -1.0, 1.0]), triangles, points / RADIUS_MM, 1)[0]
    depth = RADIUS_MM - LIFT_MM
    cosine = depth / np.hypot(depth, RADIUS_MM)
    expected = ((1.0 - cosine**2) / 6.0 + 2.0 * (1.0 - cosine**3) / 9.0) / (7.0 / 18.0)
    assert seen == pytest.approx(expected, abs=0.02)


def test_the_line_of_tones_stays_near_the_curve_of_skin() -> None:
    """Within 3.1 units of Lab from two deviations below the middle to one above."""
    melanin = np.geomspace(0.013, 0.45, 200)
    skin = skin_albedo(melanin, np.full_like(melanin, BLOOD))
    deviations = (skin[:, 0] - RED) / RED_DEVIATION
    kept = skin[(deviations > -2.0) & (deviations < 1.0)]
    middle, slope = tone_line()
    line = middle + (kept[:, :1] - RED) * slope
    assert np.linalg.norm(lab(line) - lab(kept), axis=1).max() < 3.1


def test_drawn_lips_are_redder_than_the_skin_and_seldom_without_blue(model: dict[str, np.ndarray]) -> None:
    lips, cheeks = _drawn(model, "lips"), _drawn(model, "cheeks")
    assert (lips[:, 2] < 0.01).mean() < 0.02
    assert (_hue_deg(lips) < _hue_deg(cheeks)).mean() > 0.97
    assert (_hue_deg(lips) > 38.0).mean() > 0.97  # not mauve
    assert (lab(lips)[:, 0] < lab(cheeks)[:, 0]).mean() > 0.97


def test_drawn_irises_are_brown_and_darker_than_the_white_of_the_eye(model: dict[str, np.ndarray]) -> None:
    """Dark brown has hardly any blue (half of them less than 0.01); orange would be lighter and more colourful."""
    iris = _drawn(model, "iris")
    assert (iris > 0.0).all(axis=1).mean() > 0.99
    assert ((_hue_deg(iris) > 30.0) & (_hue_deg(iris) < 75.0)).mean() > 0.97
    assert np.percentile(np.linalg.norm(lab(iris)[:, 1:], axis=1), 98) < 18.0
    assert (lab(iris)[:, 0] < 0.5 * lab(_drawn(model, "sclera"))[:, 0]).mean() > 0.97


def _ball(reach: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball's upper part, from the pole at the top to an angle from it, seen from outside."""
    rings, around = 24, 48
    angle = np.linspace(0.0, reach, rings + 1)[1:, None]
    turn = 2.0 * np.pi * np.arange(around) / around
    ring = np.stack(
        [np.sin(angle) * np.sin(turn), np.cos(angle) + 0.0 * turn, np.sin(angle) * np.cos(turn)], axis=2
    )
    points = RADIUS_MM * np.concatenate([[[0.0, 1.0, 0.0]], ring.reshape(-1, 3)])
    j = np.arange(around)
    beside = (j + 1) % around
    triangles = [np.stack([np.zeros_like(j), 1 + j, 1 + beside], axis=1)]
    for k in range(rings - 1):
        a, b = 1 + k * around, 1 + (k + 1) * around
        triangles += [np.stack([a + j, b + j, b + beside], axis=1)]
        triangles += [np.stack([a + j, b + beside, a + beside], axis=1)]
    return points, np.concatenate(triangles)


def _drawn(model: dict[str, np.ndarray], region: str) -> np.ndarray:
    """The region's mean colour in two thousand people drawn at random, linear RGB."""
    members = model[f"region_{region}"]
    coefficients = np.random.default_rng(1).standard_normal((2000, len(model["albedo"])))
    modes = model["albedo"][:, members].mean(axis=1)
    return model["albedo_mean"][members].mean(axis=0) + coefficients @ modes


def _hue_deg(rgb: np.ndarray) -> np.ndarray:
    colour = lab(rgb)
    return np.degrees(np.arctan2(colour[:, 2], colour[:, 1]))
