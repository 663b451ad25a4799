"""Detail of several photographs: what stays is told from what moves, and what moves rides along with the expression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_joint import seen
from toy import toy_model, toy_scene

from facefit.fitting.detail.refinement import face_refinement
from facefit.fitting.detail.stage import Detail
from facefit.fitting.joint.animation import animatable, animated, height_mm, in_common
from facefit.fitting.joint.recipe import together
from facefit.fitting.joint.wrinkles import AnimatableDetail, inconsistency, separate, strain, swapped
from facefit.fitting.result import FitResult
from facefit.fitting.stages import DETAILED
from facefit.mesh import vertex_normals
from facefit.models.scene import Scene
from facefit.observation import Observation

SMILE, BROWS = 1, 3  # mouthSmileLeft, browInnerUp of the toy model
SMILES = (0.0, 0.7, 1.5, 2.2)


def reach() -> np.ndarray:
    model = toy_model()
    return strain(
        model.mean.double().numpy(), model.topology.triangles, model.expression_basis.double().numpy()
    )


def truth() -> AnimatableDetail:
    """Moles all over the face, and furrows beside the mouth that grow with a smile and with nothing else."""
    x, y, z = toy_model().mean.double().numpy().T
    random = np.random.default_rng(3)
    moles = 0.2 * np.sin(x / 4.0 + random.uniform(0, 6)) * np.cos(y / 5.0) * (z > 20)
    wrinkles = np.zeros((5, len(x)))
    furrow = np.exp(-(((x - 27) / 12) ** 2 + ((y + 42) / 12) ** 2)) * (z > 20)
    wrinkles[SMILE] = 0.4 * furrow * np.cos((x + y) / 3.0)
    return AnimatableDetail(moles, wrinkles)


def expressions() -> np.ndarray:
    """Four looks with a growing smile; brows that rise and fall without anything to do with it."""
    looks = np.zeros((len(SMILES), 5))
    looks[:, SMILE] = SMILES
    looks[:, BROWS] = (1.0, -1.0, 0.8, -0.9)
    return looks


def maps(noise_mm: float = 0.03) -> np.ndarray:
    random = np.random.default_rng(0)
    exact = np.stack([truth().at(look) for look in expressions()])
    return exact + random.normal(0, noise_mm, exact.shape)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def mouth() -> np.ndarray:
    return np.flatnonzero(np.abs(truth().wrinkles_mm[SMILE]) > 0.1)


def test_wrinkles_that_grow_with_a_smile_are_the_smile_s() -> None:
    found = separate(maps(), expressions(), reach(), noise_mm=0.03)
    face = toy_model().topology.region("face")
    assert alike(found.static_mm[face], truth().static_mm[face]) > 0.95
    assert alike(found.wrinkles_mm[SMILE, mouth()], truth().wrinkles_mm[SMILE, mouth()]) > 0.95
    others = np.delete(found.wrinkles_mm, SMILE, axis=0)[:, mouth()]
    assert np.abs(others).mean() < 0.15 * np.abs(found.wrinkles_mm[SMILE, mouth()]).mean()


def test_a_face_without_expression_shows_what_stays() -> None:
    found = separate(maps(), expressions(), reach(), noise_mm=0.03)
    np.testing.assert_array_equal(found.at(np.zeros(5)), found.static_mm)


def test_an_expression_that_was_not_seen_is_foretold() -> None:
    """The third photograph's map from the other three: nearer than any of theirs."""
    kept = [0, 1, 3]
    found = separate(maps()[kept], expressions()[kept], reach(), noise_mm=0.03)
    wanted = truth().at(expressions()[2])[mouth()]
    error = np.abs(found.at(expressions()[2])[mouth()] - wanted).mean()
    assert error < 0.5 * min(np.abs(maps()[k][mouth()] - wanted).mean() for k in kept)


def test_swapped_detail_still_explains_the_other_photograph() -> None:
    found = separate(maps(), expressions(), reach(), noise_mm=0.03)
    moved = swapped(found, maps(), expressions(), of=0, onto=3)
    assert alike(moved[mouth()], maps()[3][mouth()]) > 0.9 > alike(maps()[0][mouth()], maps()[3][mouth()])
    nothing = replace(found, wrinkles_mm=np.zeros_like(found.wrinkles_mm))
    at_mouth = AnimatableDetail(found.static_mm[mouth()], found.wrinkles_mm[:, mouth()])
    still = AnimatableDetail(nothing.static_mm[mouth()], nothing.wrinkles_mm[:, mouth()])
    assert inconsistency(at_mouth, maps()[:, mouth()], expressions()) < 0.35
    assert inconsistency(still, maps()[:, mouth()], expressions()) == pytest.approx(1)


def test_one_look_alone_is_all_static_but_for_a_share() -> None:
    """From photographs of one expression nothing tells wrinkles from moles: what is best believed is both together."""
    same = np.tile(expressions()[:1], (3, 1))
    found = separate(maps()[[0, 0, 0]], same, reach(), noise_mm=0.03)
    face = toy_model().topology.region("face")
    assert alike(found.at(same[0])[face], maps()[0][face]) > 0.98


def test_what_no_expression_strains_has_no_wrinkles() -> None:
    found = separate(maps(), expressions(), np.zeros((5, toy_model().n_vertices)))
    assert not found.wrinkles_mm.any()


def test_an_unseen_vertex_learns_from_the_photographs_that_see_it() -> None:
    spoiled, seen = maps(), np.ones((4, toy_model().n_vertices))
    spoiled[1, mouth()], seen[1, mouth()] = 5.0, 0.0
    found = separate(spoiled, expressions(), reach(), seen, noise_mm=0.03)
    assert alike(found.wrinkles_mm[SMILE, mouth()], truth().wrinkles_mm[SMILE, mouth()]) > 0.9


def test_strain_is_zero_where_nothing_changes_length() -> None:
    model = toy_model()
    vertices, triangles = model.mean.double().numpy(), model.topology.triangles
    turned = np.cross(np.array([0.1, 0.2, -0.1]), vertices) + [3.0, 1.0, 2.0]
    stretched = 0.05 * vertices
    none, twentieth = strain(vertices, triangles, np.stack([turned, stretched]))
    assert np.abs(none).max() < 1e-9
    np.testing.assert_allclose(twentieth, 0.05, rtol=1e-6)


def results() -> list[FitResult]:
    """Four fits of one person whose displacements are the truth's, along each surface's normals."""
    model, found = toy_model(), []
    for look in expressions():
        scene: Scene = replace(toy_scene(1), expression=torch.from_numpy(look).float())
        normals = vertex_normals(scene.shape(model), model.triangles)
        scene = replace(scene, offsets=torch.from_numpy(truth().at(look)).float()[:, None] * normals)
        blank = Observation(np.zeros((20, 20, 3), np.uint8), scene.camera)
        found.append(FitResult(scene, model, blank, ()))
    return found


def test_wrinkles_ride_along_with_the_model_s_expressions() -> None:
    fits = results()
    detail = animatable(fits)
    moving = animated(fits, detail)
    scene, model = moving[0].scene, moving[0].model
    assert moving[3].model is model
    for smile in (0.0, 2.0):
        look = torch.zeros(5)
        look[SMILE] = smile
        bare = replace(scene, expression=look, offsets=None)
        moved = replace(bare, offsets=scene.offsets).shape(model) - bare.shape(toy_model())
        normals = vertex_normals(bare.neutral_shape(toy_model()), model.triangles)
        height = (moved * normals).sum(1).double().numpy()
        np.testing.assert_allclose(height, detail.at(look.double().numpy()), atol=1e-4)
    neutral = scene.neutral_shape(model) - replace(scene, offsets=None).neutral_shape(toy_model())
    assert alike(neutral.norm(dim=1).numpy(), np.abs(detail.static_mm)) > 0.999


def test_displacements_are_read_back_as_they_were_put() -> None:
    for fitted, look in zip(results(), expressions(), strict=True):
        np.testing.assert_allclose(height_mm(fitted.scene, toy_model()), truth().at(look), atol=1e-5)


def test_detail_of_photographs_together_stays_finite_and_is_one_person_s() -> None:
    views = [seen(1, 7, -15.0), seen(1, 8, 15.0)]
    fits = together(views, toy_model(), DETAILED)
    first, second = fits
    assert first.scene.offsets is not None and second.scene.offsets is not None
    assert first.model is second.model and torch.equal(first.scene.offsets, second.scene.offsets)
    assert bool(torch.isfinite(first.scene.shape(first.model)).all())
    assert float(first.scene.offsets.norm(dim=1).max()) < 3
    assert bool(torch.isfinite(first.model.expression_basis).all())
    assert first.detail is not None and second.detail is not None
    assert first.detail.displacement_mm.any() and np.isfinite(first.detail.displacement_mm).all()
    np.testing.assert_array_equal(first.detail.displacement_mm, second.detail.displacement_mm)


def test_what_a_photograph_does_not_show_is_not_flat_for_that() -> None:
    """Two of four photographs miss the lower half: the moles there are as high as the others show them."""
    fits, low = results(), toy_model().mean[:, 1] < 0
    half = [
        replace(fit, scene=replace(fit.scene, offsets=torch.where(low[:, None], 0.0, fit.scene.offsets)))
        for fit in fits[:2]
    ]
    all_see, two_see = animatable(fits).static_mm, animatable([*half, *fits[2:]]).static_mm
    calm = low.numpy() & (np.abs(truth().wrinkles_mm).max(0) < 1e-3) & (np.abs(truth().static_mm) > 0.1)
    assert calm.sum() > 20
    assert np.median(two_see[calm] / all_see[calm]) > 0.85


def test_finer_relief_is_shared_by_photographs_that_are_cut_less_finely() -> None:
    """Seen by one alone it is believed nearly as it is; what two show is their mean, and nothing is lost on the way."""
    once, twice = (face_refinement(toy_model(), cuts) for cuts in (1, 2))
    coarse = np.linspace(0.1, 0.3, once.n_vertices, dtype=np.float32)
    fine = twice.halved(coarse)
    fine[: once.n_coarse] = 0
    colours = [np.full((r.n_vertices, 3), c, np.float32) for r, c in ((once, 0.1), (twice, 0.2))]
    first, none, second = in_common([Detail(once, coarse, colours[0]), None, Detail(twice, fine, colours[1])])
    assert none is None and first is not None and second is not None
    assert first.refinement is second.refinement is twice
    np.testing.assert_array_equal(first.displacement_mm, second.displacement_mm)
    believed = first.displacement_mm / twice.halved(coarse)
    np.testing.assert_allclose(believed[: once.n_coarse], 0.9, atol=1e-5)
    np.testing.assert_allclose(believed[once.n_coarse :], 18 / 19, atol=1e-5)
    assert np.allclose(first.albedo_offsets, 0.1) and np.allclose(second.albedo_offsets, 0.2)
