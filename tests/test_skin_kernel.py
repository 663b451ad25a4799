"""The mask's kernel against the models' own light and colour."""

from __future__ import annotations

import numpy as np
import torch
from toy import toy_model, toy_scene

from facefit.fitting.occlusion import _head
from facefit.fitting.pyramid import PyramidLevel
from facefit.kernels.skin import skin_kernel
from facefit.models.lighting import irradiance_basis
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import linear_to_srgb


def test_the_head_is_what_the_rasteriser_sees_lit_by_its_normals() -> None:
    model, scene = toy_model(), toy_scene(2, 20.0)
    size = scene.camera.width
    image, usable = np.zeros((size, size, 3), np.float32), np.ones((size, size), bool)
    level = PyramidLevel(image, usable, 1.0, np.zeros(2))
    head = _head(scene, model, level, np.zeros_like(usable))
    shape = scene.shape(model)
    pixels, depth = scene.camera.project(scene.pose.apply(shape)), scene.pose.apply(shape)[:, 2]
    seen = rasterize(pixels, depth, model.triangles, size, size).triangle.numpy()
    # The two project in float32 and in float64, so a rim's pixel may differ.
    assert len(np.setxor1d(head.cell, np.flatnonzero(seen >= 0))) <= 2
    both = head.cell[seen.ravel()[head.cell] >= 0]
    a, b, c = shape[model.triangles[seen.ravel()[both]]].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    gap = np.abs(head.basis[np.isin(head.cell, both)] - irradiance_basis(normal).numpy()).max(1)
    assert np.mean(gap < 1e-4) > 0.999


def test_the_distance_from_skin_splits_into_along_and_across_and_has_the_right_slope() -> None:
    random = np.random.default_rng(0)
    basis = irradiance_basis(
        torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(50, 3))), dim=1)
    )
    albedo, observed = random.uniform(0.1, 1, (2, 50, 3))
    light = np.zeros((9, 3))
    # In part overexposed: there the colour goes straight on.
    light[0], light[1:] = 5.0, 0.3 * random.normal(size=(8, 3))

    def skin(factor: float) -> np.ndarray:
        linear = np.maximum(albedo * (basis.numpy() @ light) * factor, 1e-4)
        curve = linear_to_srgb(torch.from_numpy(linear.clip(max=1))).numpy()
        return np.where(linear > 1, 1 + (linear - 1) * 1.055 / 2.4, curve)

    along, across = np.empty((2, 50), np.float32)
    slope, difference = np.empty((2, 50, 3), np.float32)
    single = [np.ascontiguousarray(x, dtype=np.float32) for x in (basis.numpy(), albedo, observed, light)]
    skin_kernel(*single, along, across, slope, difference)
    linear = albedo * (basis.numpy() @ light)
    assert (linear > 1).mean() > 0.05 and (linear < 0.9).mean() > 0.2
    np.testing.assert_allclose(difference, observed - skin(1.0), atol=2e-6)
    np.testing.assert_allclose(along**2 + across**2, (difference**2).sum(1), rtol=1e-4, atol=1e-6)
    unit = skin(1.0) / np.linalg.norm(skin(1.0), axis=1, keepdims=True)
    np.testing.assert_allclose(along, (difference * unit).sum(1), atol=1e-5)
    # Central difference by a factor on the light: error of third order, rounding far below in float64.
    step = 1e-4
    central = (skin(1 + step) - skin(1 - step)) / (2 * step) / (basis.numpy() @ light)
    inside = np.abs(linear - 1) > 1e-3
    np.testing.assert_allclose(slope[inside], central[inside], rtol=2e-4, atol=1e-5)
