"""Laws of the built-in model's colours: shade of hollows, tone of skin, what is drawn of lips and eyes."""

import numpy as np
import pytest

from facefit.models.builtin import store
from facefit.models.builtin.paint import BLOOD, RED, RED_DEVIATION, tone_line
from facefit.models.builtin.sky import LIFT_MM, sky_view
from facefit.models.skin import lab, skin_albedo, typology_angle_deg

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
    """Within 3.5 units of Lab from two deviations below the middle to one above."""
    melanin = np.geomspace(0.013, 0.45, 200)
    skin = skin_albedo(melanin, np.full_like(melanin, BLOOD))
    deviations = (skin[:, 0] - RED) / RED_DEVIATION
    kept = skin[(deviations > -2.0) & (deviations < 1.0)]
    middle, slope = tone_line()
    line = middle + (kept[:, :1] - RED) * slope
    assert np.linalg.norm(lab(line) - lab(kept), axis=1).max() < 3.5


def test_drawn_people_are_of_every_tone(model: dict[str, np.ndarray]) -> None:
    """Typology angles of cheeks (shade and all): light above 28 degrees, dark below -30, most between."""
    angle = typology_angle_deg(_drawn(model, "cheeks").clip(1e-3))
    assert 0 < np.median(angle) < 28
    assert (angle > 28).mean() > 0.15 and (angle < -30).mean() > 0.05


def test_drawn_lips_are_redder_than_the_skin_and_seldom_without_blue(model: dict[str, np.ndarray]) -> None:
    lips, cheeks = _drawn(model, "lips"), _drawn(model, "cheeks")
    assert (lips[:, 2] < 0.01).mean() < 0.02
    assert (_hue_deg(lips) < _hue_deg(cheeks)).mean() > 0.97
    assert (_hue_deg(lips) > 38.0).mean() > 0.97  # not mauve
    assert (lab(lips)[:, 0] < lab(cheeks)[:, 0]).mean() > 0.97


def test_drawn_irises_are_darker_than_the_white_of_the_eye_mostly_warm_and_some_blue(
    model: dict[str, np.ndarray],
) -> None:
    """Draws below nothing are black to a renderer; those that are lighter than most are never reddish."""
    iris, sclera = _drawn(model, "iris"), _drawn(model, "sclera")
    assert (iris > -0.03).all(axis=1).mean() > 0.97
    iris, sclera = iris.clip(5e-4), sclera.clip(5e-4)
    assert (lab(iris)[:, 0] < 0.7 * lab(sclera)[:, 0]).mean() > 0.97
    assert np.percentile(np.linalg.norm(lab(iris)[:, 1:], axis=1), 98) < 20.0
    warm = iris[:, 0] > iris[:, 2]
    assert 0.75 < warm.mean() < 0.95
    light = (iris[:, 0] > 1.3 * iris[:, 2]) & (iris.sum(axis=1) > np.median(iris.sum(axis=1)))
    assert (_hue_deg(iris[light]) > 30.0).mean() > 0.97


def test_irises_reach_from_brown_to_blue(model: dict[str, np.ndarray]) -> None:
    members = model["region_iris"]
    mean, bluer = model["albedo_mean"][members].mean(axis=0), model["albedo"][23, members].mean(axis=0)
    brown, blue = mean - bluer, mean + 3.0 * bluer
    assert brown[0] > 2.0 * brown[1] > 0.0 and brown[0] > 4.0 * brown[2]
    assert blue[2] > blue[1] > blue[0]
    skin = np.setdiff1d(np.arange(len(model["mean"])), model["region_eyeballs"])
    assert np.abs(model["albedo"][22:24, skin]).max() == 0.0


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
