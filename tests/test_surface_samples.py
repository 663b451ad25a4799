from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.fitting.surface_samples import (
    SurfaceSamples,
    draw,
    face_triangles,
    surface_samples,
    tangent_frame,
)
from facefit.mesh import vertex_normals
from facefit.models.face_model import LinearFaceModel

COUNT = 800


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return toy_model()


@pytest.fixture(scope="module")
def samples(model: LinearFaceModel) -> SurfaceSamples:
    return surface_samples(model, COUNT)


def shape(model: LinearFaceModel, seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Coefficients (identity then expression) and the vertices they give."""
    x = torch.randn(model.n_identity + model.n_expression, generator=torch.Generator().manual_seed(seed))
    return x.numpy(), model.vertices(x[: model.n_identity], x[model.n_identity :])


def on_surface(samples: SurfaceSamples, model: LinearFaceModel, values: np.ndarray) -> np.ndarray:
    corners = values[model.topology.triangles[samples.triangles]]
    return np.asarray((corners * samples.barycentric[..., None]).sum(1))


def test_samples_lie_on_face_triangles(samples: SurfaceSamples, model: LinearFaceModel) -> None:
    assert len(samples) == COUNT
    assert np.isin(samples.triangles, face_triangles(model.topology, model.n_vertices)).all()
    assert (samples.barycentric >= 0).all()
    np.testing.assert_allclose(samples.barycentric.sum(1), 1)


def test_each_sample_stands_for_an_equal_share_of_the_area(
    samples: SurfaceSamples, model: LinearFaceModel
) -> None:
    mean, faces = model.mean.numpy().astype(float), model.topology.triangles
    chosen = faces[face_triangles(model.topology, model.n_vertices)]
    edges = mean[chosen[:, 1]] - mean[chosen[:, 0]], mean[chosen[:, 2]] - mean[chosen[:, 0]]
    total = 0.5 * np.linalg.norm(np.cross(*edges), axis=1).sum()
    assert samples.area_mm2.sum() == pytest.approx(total, rel=1e-6)
    assert np.ptp(samples.area_mm2) == 0


@pytest.mark.parametrize("order", ["as made", "shuffled"])
def test_samples_are_spread_by_area(model: LinearFaceModel, order: str) -> None:
    """Stratified: of 100 samples an eighth of the face misses its share by 1.6, where chance would miss by 3.3.

    The order in which a file happens to list its triangles does not matter.
    """
    if order == "shuffled":
        shuffle = np.random.default_rng(0).permutation(len(model.topology.triangles))
        place = np.argsort(shuffle)
        marks = replace(model.topology.landmarks, triangles=place[model.topology.landmarks.triangles])
        triangles = model.topology.triangles[shuffle]
        model = replace(model, topology=replace(model.topology, triangles=triangles, landmarks=marks))
    mean, faces = model.mean.numpy().astype(float), model.topology.triangles
    skin = face_triangles(model.topology, model.n_vertices)
    corners = mean[faces[skin]]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    expected = 100 * np.bincount(eighth(corners.mean(1)), area, 8) / area.sum()
    missed = [
        np.bincount(eighth(mean[faces[draw(model, 100, seed)[0]]].mean(1)), minlength=8) - expected
        for seed in range(10)
    ]
    assert np.sqrt((np.array(missed) ** 2).mean()) < 2.2


def eighth(points: np.ndarray) -> np.ndarray:
    """Left or right, and one of four storeys."""
    storey = np.clip((points[:, 1] + 90) // 45, 0, 3)
    return np.asarray(storey + 4 * (points[:, 0] > 0), dtype=np.int64)


def test_position_follows_the_surface_and_is_linear(samples: SurfaceSamples, model: LinearFaceModel) -> None:
    for seed in range(3):
        x, vertices = shape(model, seed)
        position = samples.geometry_mean[:, :3] + samples.geometry_basis[:, :3] @ x
        np.testing.assert_allclose(position, on_surface(samples, model, vertices.numpy()), atol=1e-4)


def test_albedo_follows_the_surface_and_is_linear(samples: SurfaceSamples, model: LinearFaceModel) -> None:
    a = torch.randn(model.n_albedo, generator=torch.Generator().manual_seed(0))
    albedo = samples.albedo_mean + samples.albedo_basis @ a.numpy()
    np.testing.assert_allclose(albedo, on_surface(samples, model, model.albedo(a).numpy()), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_tangents_cross_along_the_shading_normal(
    samples: SurfaceSamples, model: LinearFaceModel, seed: int
) -> None:
    """Linear tangents cannot give the renderer's normal exactly: at one standard deviation, a few degrees."""
    x, vertices = shape(model, seed)
    x, vertices = (0 * x, model.mean) if seed == 0 else (x, vertices)
    rows = samples.geometry_mean + samples.geometry_basis @ x
    normal = np.cross(rows[:, 3:6], rows[:, 6:])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    wanted = on_surface(samples, model, vertex_normals(vertices, model.triangles).numpy())
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((normal * wanted).sum(1), -1, 1)))
    assert np.median(angle) < 1.0
    assert np.percentile(angle, 99) < (3.0 if seed == 0 else 8.0)


def test_tangents_stretch_with_the_head(samples: SurfaceSamples, model: LinearFaceModel) -> None:
    """Any linear map of all vertices is the same map of positions and tangents, exactly."""
    matrix = np.random.default_rng(0).normal(size=(3, 3)) + 2 * np.eye(3)
    mapped = model.mean.double().numpy() @ matrix.T
    moved = surface_samples(
        replace(model, identity_basis=torch.tensor(mapped[None] - model.mean.numpy()).float()), COUNT
    )
    rows = (moved.geometry_mean + moved.geometry_basis[..., 0]).reshape(-1, 3, 3)
    np.testing.assert_allclose(rows, samples.geometry_mean.reshape(-1, 3, 3) @ matrix.T, atol=2e-4)


def test_the_same_seed_draws_the_same_samples_and_another_others(model: LinearFaceModel) -> None:
    first, again, other = draw(model, 200, 0), draw(model, 200, 0), draw(model, 200, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    assert surface_samples(model, 200) is surface_samples(model, 200)


def test_a_model_without_expressions_or_albedo_modes_has_samples(model: LinearFaceModel) -> None:
    plain = replace(model.truncated(2, 0), albedo_basis=model.albedo_basis[:0])
    samples = surface_samples(plain, 50)
    assert samples.geometry_basis.shape == (50, 9, 2) and samples.albedo_basis.shape == (50, 3, 0)


def test_a_degenerate_triangle_leaves_the_samples_finite(model: LinearFaceModel) -> None:
    mean = model.mean.clone()
    corner = model.topology.triangles[face_triangles(model.topology, model.n_vertices)[100]]
    mean[corner[1]] = mean[corner[0]]
    samples = surface_samples(replace(model, mean=mean), 400)
    assert np.isfinite(samples.geometry_mean).all() and np.isfinite(samples.geometry_basis).all()


def test_a_tangent_frame_is_orthonormal_and_right_handed() -> None:
    normals = np.vstack([np.eye(3), -np.eye(3), np.random.default_rng(0).normal(0, 5, (50, 3))])
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    first, second = tangent_frame(normals)
    frame = np.stack([first, second, unit], 1)
    np.testing.assert_allclose(
        frame @ frame.transpose(0, 2, 1), np.tile(np.eye(3), (len(unit), 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.cross(first, second), unit, atol=1e-12)
