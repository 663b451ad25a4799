"""What lips leave of the light for teeth, tongue and the lining of the mouth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_model

from facefit.models.builtin import load
from facefit.models.camera import Camera
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.mouth_light import THROUGH, mouth_light, slit_view_factor
from facefit.picture import render


@pytest.fixture(scope="module")
def model() -> LinearFaceModel:
    return load()


def opened(model: LinearFaceModel, jaw: float) -> torch.Tensor:
    expression = torch.zeros(model.n_expression)
    at = model.expression_names.index("jawOpen")
    expression[at] = jaw / float(model.expression_unit[at])
    return expression


def front_teeth(model: LinearFaceModel) -> np.ndarray:
    teeth = model.topology.regions["teeth"]
    x, _, z = model.mean.numpy()[teeth].T
    return np.asarray(teeth[(np.abs(x) < 10) & (z > z.max() - 3)])


@pytest.mark.parametrize(
    ("above", "below"),
    [((3.0, 7.0), (-1.0, 6.0)), ((5.0, 2.0), (1.0, 4.0)), ((1.0, -2.0), (-9.0, 3.0))],
)
def test_the_slits_share_is_the_integral_of_the_cosine_over_its_directions(
    above: tuple[float, float], below: tuple[float, float]
) -> None:
    # Light arrives evenly from all angles in the plane across the slit.
    angles = np.linspace(-math.pi / 2, math.pi / 2, 200_001)
    low, high = (math.atan2(y, max(z, 0.0)) for y, z in (below, above))
    seen = np.cos(angles) * ((angles > low) & (angles < high))
    expected = seen.mean() * math.pi / 2
    found = slit_view_factor(torch.tensor([above]), torch.tensor([below]))
    np.testing.assert_allclose(found, [expected], atol=1e-3)


def test_teeth_are_dark_behind_closed_lips_and_bright_in_an_open_mouth(model: LinearFaceModel) -> None:
    identity, teeth = torch.zeros(model.n_identity), front_teeth(model)
    shares = []
    for jaw in (0.0, 0.05, 0.1, 0.2, 0.4, 1.0):
        light = mouth_light(model, model.vertices(identity, opened(model, jaw)))
        assert light is not None
        shares.append(float(light[teeth].mean()))
    assert all(low < high for low, high in zip(shares[:-1], shares[1:], strict=True))
    assert shares[0] < 0.15 and 0.99 < shares[-1] <= 1


def test_skin_and_eyes_keep_their_light_and_nothing_gets_more_than_all(model: LinearFaceModel) -> None:
    light = mouth_light(model, model.mean)
    assert light is not None
    regions = model.topology.regions
    outside = np.setdiff1d(
        np.arange(model.n_vertices), np.concatenate([regions["teeth"], regions["mouth_inside"]])
    )
    assert bool((light[outside] == 1).all())
    assert float(light.min()) >= THROUGH - 1e-6 and float(light.max()) == 1


def test_a_model_without_a_mouth_is_left_alone() -> None:
    assert mouth_light(toy_model(), toy_model().mean) is None


def test_a_picture_shows_no_teeth_between_closed_lips(model: LinearFaceModel) -> None:
    """Lips parted by a millimetre, seen closely."""
    camera = Camera.from_field_of_view(256, 256, 8.0)
    scene = replace(Scene.neutral(model, camera), expression=opened(model, 0.05))
    down = float(model.landmark_points(model.mean)[[60, 64], 1].mean())
    scene = replace(scene, pose=replace(scene.pose, translation_mm=torch.tensor([0.0, down, 600.0])))
    picture = render(scene, model)
    corners = model.topology.triangles[picture.triangle.clamp(min=0).numpy()]
    level = picture.color.mean(-1).numpy()

    def of(region: str) -> np.ndarray:
        inside = np.isin(corners, model.topology.regions[region]).all(-1)
        return level[inside & picture.covered.numpy()]

    assert len(of("teeth")) > 50
    assert of("teeth").max() < 0.9 * np.median(of("lips"))
