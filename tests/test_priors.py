from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toy import toy_scene

from facefit.fitting.gauss_newton import GaussNewton
from facefit.fitting.residual import cost, normal_equations
from facefit.fitting.residuals.priors import AMBIENT, CoefficientPrior, FocalPrior, LightPrior
from facefit.models.lighting import Lighting


def gaussian_integral(densities: list[float], step: float) -> float:
    return sum(densities) * step


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("block", ["identity", "expression", "albedo"])
def test_a_coefficients_prior_integrates_like_a_standard_normal(block: str, weight: float) -> None:
    """exp(-cost) over one coefficient is sqrt(2 pi) / weight: a normal density of deviation 1 / weight."""
    scene = replace(toy_scene(), **{block: torch.zeros_like(getattr(toy_scene(), block))})
    prior = CoefficientPrior(block, weight)
    step = 0.05
    densities = []
    for k in range(-160, 161):
        x = scene.block(block).clone()
        x[1] = k * step
        densities.append(math.exp(-cost(prior, scene.with_packed((block,), x))))
    assert gaussian_integral(densities, step) == pytest.approx(math.sqrt(2 * math.pi) / weight, rel=1e-5)


def test_the_focal_prior_is_a_normal_density_of_the_logarithm() -> None:
    scene, sigma, centre = toy_scene(), 0.3, math.log(500.0)
    prior, step = FocalPrior(centre, sigma), 0.01
    costs = [
        cost(prior, scene.with_packed(("focal",), torch.tensor([centre + k * step])))
        for k in range(-250, 251)
    ]
    integral = gaussian_integral([math.exp(-c) for c in costs], step)
    assert integral == pytest.approx(math.sqrt(2 * math.pi) * sigma, rel=1e-4)
    assert min(costs) == costs[250] == pytest.approx(0, abs=1e-9)
    # One sigma, either way, costs one half: a factor of exp(sigma) in focal length.
    assert costs[250 + 30] == pytest.approx(0.5, rel=1e-3) == pytest.approx(costs[250 - 30], rel=1e-3)


def test_a_prior_pulls_towards_its_mean_in_one_step() -> None:
    scene = toy_scene()
    for prior, block, mean in (
        (CoefficientPrior("identity"), "identity", torch.zeros(6).double()),
        (FocalPrior(6.2, 0.1), "focal", torch.tensor([6.2]).double()),
    ):
        equations = normal_equations(prior, scene, (block,))
        step = -torch.linalg.solve(equations.matrix, equations.gradient)
        torch.testing.assert_close(scene.block(block).double() + step, mean, atol=1e-6, rtol=0)


def test_a_prior_is_silent_on_other_blocks_but_still_counts() -> None:
    scene = toy_scene()
    equations = normal_equations(CoefficientPrior("identity"), scene, ("rotation", "albedo"))
    assert not equations.matrix.any() and not equations.gradient.any()
    assert equations.cost == pytest.approx(cost(CoefficientPrior("identity"), scene))


def test_each_prior_has_a_name_of_its_own() -> None:
    priors = [CoefficientPrior(block) for block in ("identity", "expression", "albedo")]
    names = [prior.name for prior in (*priors, FocalPrior(6, 0.3), LightPrior())]
    assert len(set(names)) == 5


def test_white_ambient_light_that_exposes_white_as_white_costs_nothing() -> None:
    scene = toy_scene().with_lighting(Lighting.ambient(1.0))
    assert cost(LightPrior().freeze(scene), scene) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("stops", [-1.5, 1.0])
def test_exposure_costs_by_its_logarithm_and_nothing_else_does(stops: float) -> None:
    """The colour and the contrast of a light do not change with its level."""
    scene, prior = toy_scene(), LightPrior()
    level = AMBIENT * float(scene.lighting.coefficients[0].mean())
    brighter = scene.with_lighting(Lighting(2**stops * scene.lighting.coefficients))
    costs = [cost(prior.freeze(s), s) for s in (scene, brighter)]
    logs = [math.log(level), math.log(level) + stops * math.log(2)]
    expected = (logs[1] ** 2 - logs[0] ** 2) / (2 * prior.exposure**2)
    assert costs[1] - costs[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("start", [0.3, 2.5])
def test_a_free_level_comes_to_one_where_nothing_else_is_known(start: float) -> None:
    scene = toy_scene().with_lighting(Lighting.ambient(start))
    scene, report = GaussNewton(steps=20, tolerance=1e-9).solve([LightPrior()], scene, ("lighting",))
    torch.testing.assert_close(
        scene.lighting.coefficients, Lighting.ambient(1.0).coefficients, atol=1e-3, rtol=0
    )


def test_colour_costs_more_than_the_same_light_in_white() -> None:
    grey = toy_scene().with_lighting(Lighting.directional(torch.tensor([1.0, 0.5, 1.0]), 0.5, 0.5))
    tinted = grey.with_lighting(Lighting(grey.lighting.coefficients * torch.tensor([1.3, 1.0, 0.7])))
    prior = LightPrior().freeze(grey)
    assert cost(prior, tinted) > cost(prior, grey) + 1


def test_one_colour_for_all_directions_costs_what_the_ambients_colour_costs() -> None:
    """A camera's white balance colours all light alike; a lamp of a colour of its own is another matter."""
    tint = torch.tensor([1.3, 1.0, 0.7])
    lamp = Lighting.directional(torch.tensor([1.0, 0.5, 1.0]), 0.6, 0.5).coefficients
    ambient, directions = lamp[:1], lamp[1:]

    def colour_cost(coefficients: torch.Tensor) -> float:
        prior = LightPrior(contrast=1e6, exposure=1e6)
        scene = toy_scene().with_lighting(Lighting(coefficients))
        return cost(prior.freeze(scene), scene)

    alone = colour_cost(torch.cat([tint * ambient, torch.zeros(8, 3)]))
    assert alone > 1
    assert colour_cost(tint * lamp) == pytest.approx(alone, rel=1e-4)
    assert colour_cost(torch.cat([tint * ambient, directions])) > alone + 1
    assert colour_cost(torch.cat([ambient, tint * directions])) > 1


def test_a_stronger_contrast_costs_more() -> None:
    lamps = [
        Lighting.directional(torch.tensor([0.0, 0.0, 1.0]), level, 1 - 0.25 * level)
        for level in (0.0, 0.5, 1.0)
    ]
    # The mean level is the same for all, since a lamp lights a quarter of its level on average.
    scenes = [toy_scene().with_lighting(lamp) for lamp in lamps]
    costs = [cost(LightPrior().freeze(scene), scene) for scene in scenes]
    assert costs[0] == pytest.approx(0, abs=1e-9) and costs[2] == pytest.approx(4 * costs[1], rel=1e-4)


def test_a_black_light_is_finite() -> None:
    dark = toy_scene().with_lighting(Lighting(torch.zeros(9, 3)))
    prior = LightPrior().freeze(dark)
    assert math.isfinite(cost(prior, dark))
    assert bool(torch.isfinite(normal_equations(prior, dark, ("lighting",)).matrix).all())


def test_unfrozen_the_light_prior_takes_the_present_level() -> None:
    scene = toy_scene()
    assert cost(LightPrior(), scene) == pytest.approx(cost(LightPrior().freeze(scene), scene), rel=1e-6)
