"""Skin from published absorption data, and the albedo prior built on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.models.albedo_prior import MELANIN_RANGE, TONE_MODES, population, with_albedo_prior
from facefit.models.face_model import LinearFaceModel
from facefit.models.face_paint import masks
from facefit.models.landmark_map import NO_LANDMARKS
from facefit.models.regions import plan
from facefit.models.skin import lab, rgb_of_reflectance, skin_albedo, typology_angle_deg

# Individual typology angle, degrees: very light, light, intermediate, tan, brown, dark (Chardon et al. 1991),
# the instrument's counterpart of Fitzpatrick's types I-VI.
TYPES = {"I": (55, 90), "II": (41, 55), "III": (28, 41), "IV": (10, 28), "V": (-30, 10), "VI": (-90, -30)}


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return with_albedo_prior(toy_model())


@pytest.fixture(scope="module")
def cheek(model: LinearFaceModel) -> int:
    """A vertex of bare skin."""
    at = torch.tensor([35.0, -5.0, 60.0])
    return int((model.mean - at).norm(dim=1).argmin())


@pytest.mark.parametrize("name", TYPES)
def test_every_fitzpatrick_type_lies_within_reach(name: str, model: LinearFaceModel, cheek: int) -> None:
    """With no tone coefficient beyond 2.5 standard deviations, and as the type it is meant to be."""
    low, high = TYPES[name]
    melanin, blood, scores = population()
    angle = typology_angle_deg(skin_albedo(melanin, blood))
    people = scores[(angle > low + 2) & (angle < high - 2) & (np.abs(scores) <= 2.5).all(axis=1)]
    assert len(people) >= 3
    for tone in people:
        coefficients = torch.zeros(model.n_albedo)
        coefficients[:TONE_MODES] = torch.from_numpy(tone)
        reached = model.albedo(coefficients)[cheek].double().numpy()
        assert (reached > 0).all() and low - 4 < typology_angle_deg(reached) < high + 4


def test_the_darkest_published_tones_are_skin_of_this_model() -> None:
    """Tones 7-10 of the Monk scale (2022) within a colour difference of 7; light skin alone spans 60."""
    monk = [(0x82, 0x5C, 0x43), (0x60, 0x41, 0x34), (0x3A, 0x31, 0x2A), (0x29, 0x24, 0x20)]
    encoded = np.array(monk) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    melanin, blood = np.meshgrid(np.geomspace(*MELANIN_RANGE, 60), np.geomspace(0.003, 0.04, 12))
    manifold = lab(skin_albedo(melanin.ravel(), blood.ravel()))
    away = np.linalg.norm(lab(linear)[:, None] - manifold[None], axis=2).min(axis=1)
    assert (away < 7.0).all(), away


def test_a_perfect_white_is_white() -> None:
    np.testing.assert_allclose(rgb_of_reflectance(np.ones(31)), 1.0, atol=1e-12)
    np.testing.assert_allclose(lab(np.ones(3)), [100.0, 0.0, 0.0], atol=1e-2)


def test_melanin_darkens_and_blood_reddens() -> None:
    melanin = np.geomspace(*MELANIN_RANGE, 30)
    assert (np.diff(skin_albedo(melanin, np.full(30, 0.01)), axis=0) < 0).all()
    blood = np.geomspace(0.002, 0.05, 30)
    assert (np.diff(lab(skin_albedo(np.full(30, 0.03), blood))[:, 1]) > 0).all()


def test_light_facial_skin_has_the_measured_colour() -> None:
    """Korean faces average L* 58-64, a* 8-12, b* 17 (Han et al.

    2006); the model lies within 5 units of that.
    """
    colours = lab(skin_albedo(np.full(5, 0.03), np.geomspace(0.006, 0.02, 5)))
    assert (np.abs(colours - [61.0, 10.0, 17.0]) < 6.0).all(axis=1).any()


def test_the_prior_has_twenty_to_forty_modes_on_any_topology(model: LinearFaceModel) -> None:
    assert 20 <= model.n_albedo <= 40
    bare = replace(toy_model(), topology=replace(toy_model().topology, landmarks=NO_LANDMARKS))
    without = with_albedo_prior(bare)
    assert TONE_MODES < without.n_albedo <= 40, "without landmarks tone and smooth variation remain"
    assert torch.isfinite(without.albedo_basis).all()


def test_people_have_the_modes_standard_deviations() -> None:
    _, _, scores = population()
    np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(scores.T @ scores / len(scores), np.eye(TONE_MODES), atol=1e-9)


def test_the_mean_and_most_people_are_colours(model: LinearFaceModel) -> None:
    """Reflectance between 0 and 1 at the mean, and for the population's tones."""
    assert (model.albedo_mean > 0).all() and (model.albedo_mean < 1).all()
    _, _, scores = population()
    for tone in scores[::37]:
        coefficients = torch.zeros(model.n_albedo)
        coefficients[:TONE_MODES] = torch.from_numpy(tone)
        albedo = model.albedo(coefficients)
        assert (albedo > -0.03).all() and (albedo < 0.9).all()


def test_masks_lie_where_the_landmarks_say() -> None:
    toy = toy_model()
    vertices = toy.mean.double().numpy()
    view = plan(vertices, toy.topology.triangles, toy.topology.landmarks)
    assert view is not None
    where = masks(view, toy.topology)
    for mask, numbers, radius in (
        (where.lips, range(48, 68), 30.0),
        (where.brows, range(17, 27), 45.0),
        (where.iris, range(36, 48), 45.0),
        (where.moustache, [*range(31, 36), *range(48, 55)], 40.0),
    ):
        assert mask.max() > 0.2 and mask.min() >= 0
        centre = (mask[:, None] * vertices).sum(axis=0) / mask.sum()
        expected = view.marks[list(numbers), :2].mean(axis=0)
        assert np.linalg.norm(centre[:2] - expected) < 8.0
        far = np.linalg.norm(vertices[:, :2] - expected, axis=1) > 2 * radius
        assert mask[far].max() < 1e-3
    assert (where.eye >= where.iris - 1e-9).all() and (where.iris >= where.pupil - 1e-9).all()


def test_a_symmetric_face_has_symmetric_paint(model: LinearFaceModel) -> None:
    mirror = torch.from_numpy(model.topology.mirror)
    torch.testing.assert_close(model.albedo_mean[mirror], model.albedo_mean, atol=2e-3, rtol=0)
    for mode in model.albedo_basis:
        even, odd = (mode[mirror] - mode).abs().max(), (mode[mirror] + mode).abs().max()
        assert min(float(even), float(odd)) < 4e-3


def test_the_tone_does_not_colour_the_eyes(model: LinearFaceModel) -> None:
    toy = toy_model()
    view = plan(toy.mean.double().numpy(), toy.topology.triangles, toy.topology.landmarks)
    assert view is not None
    inside = torch.from_numpy(masks(view, toy.topology).eye > 0.99)
    if inside.any():
        assert model.albedo_basis[:TONE_MODES, inside].abs().max() < 1e-2
