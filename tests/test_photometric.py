from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import SMOOTH_BLOCKS, central_difference
from toy import observe, photograph, toy_model, toy_scene

from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.residual import cost, normal_equations, to_double
from facefit.fitting.residuals.photometric import (
    CAMERA_NOISE,
    NOISE_WORTH,
    PhotometricResidual,
    read_spline,
    worth,
)
from facefit.fitting.surface_samples import face_triangles, surface_samples
from facefit.fitting.visibility import GRAZING_COSINE, visible_samples
from facefit.mesh import vertex_normals
from facefit.models.camera import Pose
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import render


def residual(
    scene: Scene, size: int = 96, samples: int = 600, observation: Observation | None = None
) -> PhotometricResidual:
    (level,) = face_pyramid(observe(scene) if observation is None else observation, [size])
    return PhotometricResidual(toy_model(), surface_samples(toy_model(), samples), level)


def whole_photo(scene: Scene) -> PyramidLevel:
    """The photograph itself, every pixel usable."""
    camera = scene.camera
    plain = Observation(np.zeros((camera.height, camera.width, 3), np.uint8), camera)
    return face_pyramid(plain, [max(camera.width, camera.height)])[0]


def lit_darker(scene: Scene) -> Scene:
    return scene.with_lighting(Lighting(0.8 * scene.lighting.coefficients))


# --- Reading the photograph


def test_a_constant_picture_reads_constant() -> None:
    """The spline's weights add up to one wherever it reads."""
    texel = torch.from_numpy(np.random.default_rng(0).uniform(1, 7.99, (200, 2)))
    value, inside = read_spline(torch.full((10, 11, 3), 0.7, dtype=torch.float64), texel)
    assert inside.all()
    torch.testing.assert_close(value, torch.full_like(value, 0.7), rtol=1e-14, atol=0)


def test_a_linear_ramp_reads_exactly() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0).double(), torch.arange(14.0).double(), indexing="ij")
    image = torch.stack([columns, rows, 0.3 * columns - 2 * rows + 5], -1)
    texel = torch.from_numpy(np.random.default_rng(1).uniform([1, 1], [11.99, 9.99], (300, 2)))
    value, inside = read_spline(image, texel)
    x, y = texel.unbind(1)
    assert inside.all()
    torch.testing.assert_close(value, torch.stack([x, y, 0.3 * x - 2 * y + 5], 1))


def test_value_and_gradient_are_continuous_across_texels() -> None:
    image = torch.from_numpy(np.random.default_rng(2).uniform(size=(9, 9, 1)))
    here = torch.tensor([[4.0, 5.0]], dtype=torch.float64)
    jump = 1e-9
    for axis in torch.eye(2, dtype=torch.float64):
        sides = [here + sign * jump * axis for sign in (-1, 1)]
        values = [read_spline(image, side)[0] for side in sides]
        slopes = [torch.func.jacrev(lambda t: read_spline(image, t)[0])(side) for side in sides]
        torch.testing.assert_close(values[0], values[1], atol=1e-8, rtol=0)
        torch.testing.assert_close(slopes[0], slopes[1], atol=1e-7, rtol=0)


def test_near_the_border_nothing_is_read() -> None:
    image = torch.ones(8, 10, 3)
    outside = torch.tensor(
        [[0.99, 4.0], [8.0, 4.0], [4.0, 0.5], [4.0, 6.0], [-3.0, 4.0], [1e9, 4.0], [torch.nan, 4.0]]
    )
    value, inside = read_spline(image, outside)
    assert not inside.any() and not value.any()
    value, inside = read_spline(image, torch.tensor([[1.0, 1.0], [7.99, 5.99]]))
    assert inside.all() and bool((value == 1).all())


# --- Which samples count


def test_chosen_samples_are_those_the_renderer_shows() -> None:
    """Every sample counted lies at the surface that the z-buffer shows there; most of the face is counted."""
    for yaw in (0.0, 45.0, -70.0):
        scene, model = toy_scene(2, yaw), toy_model()
        samples, level = surface_samples(model, 1000), whole_photo(scene)
        chosen, footprint = visible_samples(model, samples, level, scene)
        corner = model.triangles[torch.from_numpy(samples.triangles[chosen])]
        weights = torch.from_numpy(samples.barycentric[chosen]).float()
        points = (scene.pose.apply(scene.shape(model))[corner] * weights[..., None]).sum(1)
        pixels = scene.camera.project(points).long()
        behind = points[:, 2] - render(scene, model).depth[pixels[:, 1], pixels[:, 0]]
        # The z-buffer asked is coarser than this one: a few samples at the rim of a nose may differ.
        assert float((behind < 6).float().mean()) > 0.985
        assert len(chosen) > 300 and bool((torch.from_numpy(footprint) > 0).all())


def test_samples_behind_the_nose_do_not_count() -> None:
    """A nose of 50 mm on a turned head hides some of the far cheek, which faces the camera all the same."""
    model = toy_model()
    scene = replace(toy_scene(2, 30.0, spread=0.0), identity=torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0, 0.0]))
    samples = surface_samples(model, 3000)
    corner = model.triangles[torch.from_numpy(samples.triangles)]
    weights = torch.from_numpy(samples.barycentric).float()
    points = (scene.pose.apply(scene.shape(model))[corner] * weights[..., None]).sum(1)
    pixels = scene.camera.project(points).long()
    behind = points[:, 2] - render(scene, model).depth[pixels[:, 1], pixels[:, 0]] > 8
    normals = vertex_normals(scene.shape(model), model.triangles)[corner].mean(1)
    facing = -(normals @ scene.pose.camera_from_model.T)[:, 2] > 0.4
    hidden = np.flatnonzero(behind & facing)
    chosen, _ = visible_samples(model, samples, whole_photo(scene), scene)
    assert len(hidden) > 20
    # The z-buffer asked is coarse: at the nose's own outline a sample may slip through.
    assert np.isin(hidden, chosen).mean() < 0.1


def test_footprints_add_up_to_the_area_of_the_face_in_the_picture() -> None:
    """A sample covers its share of the surface, foreshortened: together, the pixels that show the face."""
    for yaw in (0.0, 40.0):
        scene, model = toy_scene(3, yaw, spread=0.0), toy_model()
        samples = surface_samples(model, 4000)
        _, footprint = visible_samples(model, samples, whole_photo(scene), scene)
        picture = render(scene, model)
        skin = np.isin(picture.triangle, face_triangles(model.topology, model.n_vertices))
        corners = scene.pose.apply(scene.shape(model))[model.triangles]
        normal = torch.nn.functional.normalize(
            torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=1
        )
        cosine = -(normal * torch.nn.functional.normalize(corners.mean(1), dim=1)).sum(1)
        counted = skin & (cosine > GRAZING_COSINE)[picture.triangle.clamp(min=0)].numpy()
        assert footprint.sum() == pytest.approx(float(counted.sum()), rel=0.03)


def test_samples_that_face_away_do_not_count() -> None:
    scene = toy_scene(0, 180.0)
    assert len(residual(toy_scene(0)).freeze(scene)(scene)) == 0


def test_samples_under_the_mask_do_not_count() -> None:
    truth = toy_scene(0)
    observation = observe(truth)
    mask = np.ones(observation.image.shape[:2], dtype=bool)
    mask[:, : truth.camera.width // 2] = False
    half = residual(truth, observation=replace(observation, mask=mask)).freeze(truth)
    assert half.frozen is not None
    points = toy_model().mean.numpy()[
        toy_model().topology.triangles[half.samples.triangles[half.frozen.chosen]]
    ]
    pixels = truth.camera.project(truth.pose.apply(torch.from_numpy(points.mean(1))))
    # A few pixels of slack: centres of triangles stand in for the samples, the mean face for this one.
    assert float(pixels[:, 0].min()) > truth.camera.width / 2 - 6 and len(points) > 100


# --- What they say


def test_the_true_scene_explains_its_photograph() -> None:
    truth = toy_scene(1)
    (level,) = face_pyramid(observe(truth), [160])
    term = PhotometricResidual(toy_model(), surface_samples(toy_model(), 2000), level)
    frozen = term.freeze(truth).frozen
    assert frozen is not None
    rms = np.sqrt((term.differences(truth, frozen.chosen) ** 2).mean())
    # What remains is the smoothing of the pyramid and the spline at lips and eyes, and linear tangents.
    assert rms < 0.012
    # What is counted out is measured by these small differences themselves.
    assert frozen.inliers > 0.85


def test_a_brighter_prediction_is_a_positive_difference() -> None:
    truth = toy_scene(1)
    term = residual(truth)
    frozen = term.freeze(truth).frozen
    assert frozen is not None
    bright = truth.with_lighting(Lighting(1.5 * truth.lighting.coefficients))
    assert float(np.median(term.differences(bright, frozen.chosen))) > 0.05


def test_the_cost_does_not_depend_on_the_number_of_samples() -> None:
    """All samples together are worth `independent` observations."""
    truth = toy_scene(1)
    wrong = lit_darker(truth)
    costs = [cost(residual(truth, samples=n).freeze(wrong), wrong) for n in (500, 1000, 4000)]
    assert max(costs) / min(costs) < 1.1
    once, twice = (replace(residual(truth), independent=n).freeze(wrong) for n in (60.0, 120.0))
    assert cost(twice, wrong) == pytest.approx(2 * cost(once, wrong), rel=1e-5)


def test_samples_are_worth_more_the_less_the_error_exceeds_noise() -> None:
    """A model's error is shared by neighbours, a camera's noise is not."""
    sizes = [1.0, 0.03, 0.01, CAMERA_NOISE, CAMERA_NOISE / 2]
    counts = [worth(25.0, sigma) for sigma in sizes]
    assert counts == sorted(counts) and counts[0] == pytest.approx(25.0, rel=1e-4)
    assert counts[1] < 1.01 * 25.0
    assert counts[3] == counts[4] == pytest.approx(NOISE_WORTH * 25.0)


def test_the_whitened_residual_of_pure_noise_has_unit_variance() -> None:
    """In noise of a known size the cost is half of three channels times the independent observations."""
    truth = toy_scene(1)
    noise = np.random.default_rng(0).normal(0, 25, (truth.camera.height, truth.camera.width, 3))
    noisy = (photograph(truth) + noise).clip(0, 255).astype(np.uint8)
    term = residual(truth, 1000, 2000, Observation(noisy, truth.camera)).freeze(truth)
    squares = 2 * cost(term, truth)
    # Geman and McClure's weights take a quarter or so of a Gaussian's squares.
    assert 0.5 * 3 * term.independent < squares < 1.1 * 3 * term.independent


def test_an_occluder_is_weighted_down() -> None:
    truth = toy_scene(1, 0, 0, 0)
    image = photograph(truth)
    clean = residual(truth, observation=Observation(image, truth.camera)).freeze(truth).frozen
    covered = image.copy()
    covered[:, : truth.camera.width // 2 - 20] = (20, 60, 250)
    found = residual(truth, observation=Observation(covered, truth.camera)).freeze(truth)
    assert clean is not None and found.frozen is not None
    difference = np.abs(found.differences(truth, found.frozen.chosen)).max(1)
    weight = found.frozen.weight / np.sqrt(found.frozen.share)
    hidden = difference > 0.3
    assert 0.1 < hidden.mean() < 0.5
    assert np.median(weight[hidden]) < 0.15 * np.median(weight[~hidden])
    assert found.frozen.inliers < clean.inliers - 0.1


def test_samples_count_by_the_area_they_cover() -> None:
    frozen = residual(toy_scene(1)).freeze(toy_scene(1)).frozen
    assert frozen is not None
    assert frozen.share.sum() == pytest.approx(1) and float(frozen.share.min()) >= 0


# --- Derivatives of the compiled kernel itself


def test_the_kernels_gradient_is_a_central_difference_of_the_kernels_cost() -> None:
    """Residuals in float32 (1e-7 of 1 to 10) over steps that change them by about 1e-2: a part in 1e3 is
    left, while the curvature over such a step, its square, is a part in 1e4.
    """
    truth = toy_scene(4)
    frozen = residual(truth).freeze(lit_darker(truth))
    scene = to_double(lit_darker(truth))
    equations = normal_equations(frozen, scene, SMOOTH_BLOCKS)
    scale = equations.matrix.diagonal().sqrt()
    difference = central_difference(
        lambda x: torch.tensor([cost(frozen, scene.with_packed(SMOOTH_BLOCKS, x))]).double(),
        scene.pack(SMOOTH_BLOCKS),
        1e-2 / scale,
    )[0]
    error = (difference - equations.gradient).abs() / (scale * (2 * equations.cost) ** 0.5)
    assert float(error.max()) < 2e-3


def test_the_kernel_equals_the_oracle_sample_by_sample() -> None:
    truth = toy_scene(4, -30.0)
    scene = lit_darker(truth)
    frozen = residual(truth).freeze(scene)
    assert frozen.frozen is not None
    exact = frozen(to_double(scene)).reshape(-1, 3).numpy()
    fast = frozen.differences(scene, frozen.frozen.chosen) * frozen.frozen.weight[:, None]
    np.testing.assert_allclose(fast, exact, atol=2e-5 * np.abs(exact).max())


def test_samples_that_leave_the_picture_fall_silent() -> None:
    """A step may take frozen samples over the border: their rows are zero, in kernel and oracle."""
    truth = toy_scene(4)
    frozen = residual(truth).freeze(truth)
    shifted = truth.with_pose(
        Pose(truth.pose.rotation, truth.pose.translation_mm + torch.tensor([110.0, 0.0, 0.0]))
    )
    assert frozen.frozen is not None
    fast = frozen.differences(shifted, frozen.frozen.chosen)
    silent = ~fast.any(1)
    assert 0.1 < silent.mean() < 0.9
    exact = frozen(to_double(shifted)).reshape(-1, 3).numpy()
    np.testing.assert_array_equal(~exact.any(1), silent)


def test_one_visible_set_is_kept_while_the_weights_follow() -> None:
    truth = toy_scene(4)
    first = residual(truth).freeze(truth)
    again = first.freeze(lit_darker(truth))
    assert first.frozen is not None and again.frozen is not None
    assert again.frozen.chosen is first.frozen.chosen
    assert not np.array_equal(again.frozen.weight, first.frozen.weight)
