from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import in_double, landmark_plan, toy_model

from facefit.errors import ModelFileError
from facefit.mesh import vertex_normals
from facefit.models.face_model import Landmarks, LinearFaceModel


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return toy_model()


def coefficients(model: LinearFaceModel, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = (model.n_identity, model.n_expression, model.n_albedo)
    identity, expression, albedo = (torch.randn(n, generator=random, dtype=model.mean.dtype) for n in sizes)
    return identity, expression, albedo


def test_no_coefficients_give_the_mean_face(model: LinearFaceModel) -> None:
    zeros = torch.zeros(model.n_identity), torch.zeros(model.n_expression)
    assert torch.equal(model.vertices(*zeros), model.mean)
    assert torch.equal(model.vertices(torch.zeros(0), torch.zeros(0)), model.mean)
    for count in (0, model.n_albedo):
        assert torch.equal(model.albedo(torch.zeros(count)), model.albedo_mean)


def test_shape_and_albedo_are_linear_in_the_coefficients(model: LinearFaceModel) -> None:
    exact = in_double(model)
    a, b = coefficients(exact, 0), coefficients(exact, 1)
    mix = [0.3 * p + 0.7 * q for p, q in zip(a, b, strict=True)]
    shape = 0.3 * exact.vertices(*a[:2]) + 0.7 * exact.vertices(*b[:2])
    torch.testing.assert_close(exact.vertices(mix[0], mix[1]), shape)
    torch.testing.assert_close(exact.albedo(mix[2]), 0.3 * exact.albedo(a[2]) + 0.7 * exact.albedo(b[2]))


def test_one_unit_of_a_mode_moves_the_mean_by_the_mode(model: LinearFaceModel) -> None:
    for k in range(model.n_expression):
        one = torch.eye(model.n_expression)[k]
        moved = model.vertices(torch.zeros(model.n_identity), one) - model.mean
        torch.testing.assert_close(moved, model.expression_basis[k], atol=1e-5, rtol=0)


def test_missing_trailing_coefficients_count_as_zero(model: LinearFaceModel) -> None:
    identity, expression, albedo = coefficients(model, 2)
    padded = identity.clone()
    padded[2:] = 0
    torch.testing.assert_close(model.vertices(identity[:2], expression), model.vertices(padded, expression))
    dull = albedo.clone()
    dull[1:] = 0
    torch.testing.assert_close(model.albedo(albedo[:1]), model.albedo(dull))


def test_truncation_keeps_the_leading_modes(model: LinearFaceModel) -> None:
    short = model.truncated(3, 2)
    assert (short.n_identity, short.n_expression, short.n_albedo) == (3, 2, model.n_albedo)
    assert short.expression_names == model.expression_names[:2]
    identity, expression, _ = coefficients(model, 3)
    torch.testing.assert_close(
        short.vertices(identity[:3], expression[:2]), model.vertices(identity[:3], expression[:2])
    )
    assert model.truncated(3).n_expression == model.n_expression


def test_a_model_without_expressions_and_albedo_modes_is_a_model(model: LinearFaceModel) -> None:
    plain = replace(model.truncated(2, 0), albedo_basis=model.albedo_basis[:0])
    vertices = plain.vertices(torch.ones(2), torch.zeros(0))
    torch.testing.assert_close(vertices, model.mean + model.identity_basis[:2].sum(0))
    assert torch.equal(plain.albedo(torch.zeros(0)), model.albedo_mean)


def test_landmarks_lie_where_the_plan_puts_them_and_follow_the_surface(model: LinearFaceModel) -> None:
    points = model.landmark_points(model.mean).numpy()
    np.testing.assert_allclose(points[:, :2], landmark_plan(), atol=1e-3)
    shifted = model.landmark_points(model.mean + torch.tensor([1.0, 2.0, 3.0])).numpy()
    np.testing.assert_allclose(shifted - points, np.tile([1.0, 2.0, 3.0], (68, 1)), atol=1e-4)


def test_the_toy_head_is_closed_outward_and_symmetric(model: LinearFaceModel) -> None:
    normals = vertex_normals(model.mean, model.triangles)
    outward = (normals * model.mean).sum(1)
    assert float((outward > 0).float().mean()) > 0.99
    mirror = model.topology.mirror
    assert mirror is not None
    np.testing.assert_allclose(model.mean[mirror], model.mean * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4)


@pytest.mark.parametrize(
    "name", ["mean", "identity_basis", "expression_basis", "albedo_mean", "albedo_basis"]
)
def test_an_array_of_another_vertex_count_is_refused_by_name_with_its_shape(
    model: LinearFaceModel, name: str
) -> None:
    wrong = getattr(model, name)[..., :, :2] if name == "mean" else getattr(model, name)[..., :-1, :]
    with pytest.raises(
        ModelFileError, match=rf"{name} has shape \({'.*' if wrong.ndim == 2 else wrong.shape[0]}"
    ):
        replace(model, **{name: wrong})


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["mean", "identity_basis", "expression_basis", "albedo_mean", "albedo_basis"]
)
def test_numbers_that_are_not_finite_are_refused_by_name(
    model: LinearFaceModel, name: str, poison: float
) -> None:
    array = getattr(model, name).clone()
    array.view(-1)[7] = poison
    with pytest.raises(ModelFileError, match=f"{name} holds NaN or infinite"):
        replace(model, **{name: array})


@pytest.mark.parametrize(("unit", "factor"), [("metres", 1e-3), ("micrometres", 1e3), ("decimetres", 1e-2)])
def test_a_mean_face_in_another_unit_is_refused_with_its_width(
    model: LinearFaceModel, unit: str, factor: float
) -> None:
    with pytest.raises(ModelFileError, match=f"{re.escape(f'{90 * factor:.4g}')} mm apart.*another unit"):
        replace(model, mean=factor * model.mean)


def test_triangles_must_index_the_vertices(model: LinearFaceModel) -> None:
    for wrong in (model.topology.triangles + 1, model.topology.triangles - 1, model.topology.triangles[:0]):
        with pytest.raises(ModelFileError, match="triangles must index the 961 vertices from 0"):
            replace(model, topology=replace(model.topology, triangles=wrong))


def test_expression_names_units_and_modes_agree_in_number(model: LinearFaceModel) -> None:
    with pytest.raises(ModelFileError, match="differ in number"):
        replace(model, expression_names=("jawOpen",))
    with pytest.raises(ModelFileError, match="differ in number"):
        replace(model, expression_unit=torch.ones(2))


def test_landmarks_must_lie_on_the_models_triangles(model: LinearFaceModel) -> None:
    marks = model.topology.landmarks
    beyond = marks.triangles.copy()
    beyond[5] = len(model.topology.triangles)
    for wrong in (
        replace(marks, triangles=beyond),
        replace(marks, numbers=marks.numbers + 1),
        replace(marks, barycentric=2 * marks.barycentric),
        Landmarks(marks.numbers, marks.triangles[:-1], marks.barycentric),
    ):
        with pytest.raises(ModelFileError, match="landmark"):
            replace(model, topology=replace(model.topology, landmarks=wrong))


def test_regions_and_mirror_must_index_the_vertices(model: LinearFaceModel) -> None:
    with pytest.raises(ModelFileError, match="face"):
        replace(model, topology=replace(model.topology, regions={"face": np.array([0, model.n_vertices])}))
    with pytest.raises(ModelFileError, match="mirror"):
        replace(model, topology=replace(model.topology, mirror=np.arange(5)))


def test_an_unknown_region_is_named_with_the_known_ones(model: LinearFaceModel) -> None:
    with pytest.raises(KeyError, match="'scalp'; it has face, jaw_contour, rigid"):
        model.topology.region("scalp")


def test_models_are_compared_as_objects(model: LinearFaceModel) -> None:
    assert model == model and model != replace(model)
    assert len({model, replace(model)}) == 2


def test_moving_to_a_device_keeps_every_number(model: LinearFaceModel) -> None:
    moved = model.to("cpu")
    assert torch.equal(moved.mean, model.mean) and torch.equal(moved.expression_unit, model.expression_unit)
    assert moved.expression_names == model.expression_names
