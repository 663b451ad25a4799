"""The eyes look where the photograph has them: the expressions say so, and the skin stays where it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_eyes import level_of, model, observed, scene, without_eyes

from facefit.fitting import fit
from facefit.fitting.eyeballs import eyeballs_of
from facefit.fitting.eyes import with_eyes
from facefit.fitting.gaze import Gaze, gaze_shapes, with_gaze
from facefit.fitting.stages import FAST
from facefit.models.camera import Camera, Pose
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.result_json import result_dict

FULL = {"Left": ("Out", "In"), "Right": ("In", "Out")}


def turned(start: Scene, left_deg: float, up_deg: float) -> Scene:
    """The scene with eyes that look there, its lids where they were."""
    eyes = eyeballs_of(model())
    assert eyes is not None
    shapes = gaze_shapes(model(), eyes)
    assert shapes is not None
    gaze = np.tan(np.radians([left_deg, up_deg, 0.0]))
    return with_gaze(start, shapes, eyes, gaze, np.eye(3), True)[0]


def seen(truth: Scene) -> tuple[Scene, Gaze]:
    """What is found from the truth but for its eyes."""
    mean = truth.albedo.clone()
    eyes = eyeballs_of(model())
    assert eyes is not None
    mean[torch.from_numpy(eyes.modes)] = 0.0
    found, gaze = with_eyes(turned(replace(truth, albedo=mean), 0, 0), model(), level_of(observed(truth)))
    assert gaze is not None
    return found, gaze


def activations(found: Scene) -> dict[str, float]:
    """By name, of the shapes that turn the eyes."""
    values = (found.expression * model().expression_unit).tolist()
    return {n: v for n, v in zip(model().expression_names, values, strict=True) if n.startswith("eyeLook")}


def pupils(at: Scene) -> torch.Tensor:
    """Directions of the pupils from the eyes' centres, degrees to the subject's left and up."""
    eyes = eyeballs_of(model())
    assert eyes is not None
    centre = eyes.centre_mean + np.tensordot(at.identity.numpy(), eyes.centre_basis, 1)
    ray = at.shape(model())[torch.from_numpy(eyes.pupil)].double() - torch.from_numpy(centre)
    return torch.rad2deg(torch.atan2(ray[:, :2], ray[:, 2:]))


@pytest.mark.parametrize("left", [-25.0, -12.0, 0.0, 12.0, 25.0])
@pytest.mark.parametrize("up", [-15.0, 0.0, 10.0])
def test_the_gaze_of_a_rendering_comes_back(left: float, up: float) -> None:
    found, gaze = seen(turned(scene(-0.5, 1.0), left, up))
    assert gaze.seen
    assert abs(gaze.left_deg - left) < 4 and abs(gaze.up_deg - up) < 4
    # And that is where the mesh's own pupils look.
    expected = torch.tensor([[gaze.left_deg, gaze.up_deg]] * 2, dtype=torch.float64)
    torch.testing.assert_close(pupils(found), expected, atol=1.5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"lighting": Lighting.directional(torch.tensor([-1.0, 0.4, 0.6]), 0.9, 0.25)},
        {"lighting": Lighting.directional(torch.tensor([0.3, 1.0, 0.5]), 0.4, 0.3)},
        {"albedo": scene(1.5, -1.0).albedo},
        {"albedo": scene(-2.0, 3.0).albedo},
        {"camera": Camera.from_field_of_view(320, 320, 60.0)},
        {"pose": Pose(torch.tensor([-0.1, -0.4, 0.1]), torch.tensor([0.0, 10.0, 620.0]))},
    ],
    ids=["from the side", "dim from above", "brown", "blue in shade", "small", "turned"],
)
def test_whatever_the_light_the_colour_and_the_size(change: dict[str, object]) -> None:
    for left in (-18.0, 10.0):
        _, gaze = seen(turned(replace(scene(-0.5, 1.0), **change), left, 0.0))  # type: ignore[arg-type]
        assert gaze.seen and abs(gaze.left_deg - left) < 4 and abs(gaze.up_deg) < 6


def test_shapes_of_the_gaze_are_activations_and_each_way_excludes_its_opposite() -> None:
    for left, up in ((40.0, 30.0), (-40.0, -30.0), (10.0, -5.0)):
        found = activations(turned(scene(0.0, 0.0), left, up))
        assert all(0 <= value <= 1 + 1e-6 for value in found.values())
        for side, ways in (*FULL.items(), ("Left", ("Up", "Down")), ("Right", ("Up", "Down"))):
            assert min(found[f"eyeLook{way}{side}"] for way in ways) == 0
            assert max(found[f"eyeLook{way}{side}"] for way in ways) > 0


def test_the_skin_stays_where_the_lids_were_found() -> None:
    start = scene(0.0, 0.0, eyeBlinkLeft=0.2, eyeLookDownRight=0.1)
    eyes = eyeballs_of(model())
    assert eyes is not None
    skin = np.setdiff1d(np.arange(model().n_vertices), eyes.vertices)
    aside, down = (turned(start, *gaze) for gaze in ((20.0, 0.0), (0.0, -20.0)))
    moved = [(at.shape(model()) - start.shape(model()))[skin].norm(dim=1) for at in (aside, down)]
    # Looking aside moves no lid, but the lid that hung by a downward gaze now hangs by itself.
    assert float(moved[0].max()) < 0.15
    # What the lids' other shapes cannot undo of the full downward gaze's 3.6 mm.
    assert float(moved[1].max()) < 1.0 and float(moved[1].square().mean().sqrt()) < 0.15


@pytest.mark.parametrize("how", ["glasses", "closed", "profile", "no picture"])
def test_eyes_that_are_not_seen_look_straight_ahead(how: str) -> None:
    truth = scene(0.0, 3.0, **dict.fromkeys(("eyeBlinkLeft", "eyeBlinkRight"), float(how == "closed")))
    if how == "profile":
        truth = replace(truth, pose=Pose(torch.tensor([0.0, 1.3, 0.0]), truth.pose.translation_mm))
    observation = observed(turned(truth, 15.0, 0.0))
    assert observation.landmarks is not None
    if how == "glasses":
        image = observation.image.copy()
        left, top = (observation.landmarks[36:48].min(0) - 10).astype(int)
        right, bottom = (observation.landmarks[36:48].max(0) + 10).astype(int)
        image[top:bottom, left:right] = (12, 12, 14)
        observation = replace(observation, image=image)
    # The lids of a fit may have been moved by shapes of the gaze.
    start = replace(truth, expression=truth.expression + scene(0.0, 0.0, eyeLookInLeft=0.3).expression)
    found, gaze = with_eyes(start, model(), None if how == "no picture" else level_of(observation))
    assert gaze is not None and not gaze.seen
    assert (gaze.left_deg, gaze.up_deg) == (0, 0) and gaze.left_sigma_deg > 10
    assert not any(activations(found).values())


def test_a_fit_brings_the_gaze_along_and_says_how_sure_it_is() -> None:
    result = fit(observed(turned(scene(-0.5, 1.0), -18.0, 0.0)), model())
    gaze = result.gaze
    assert gaze is not None and gaze.seen
    assert abs(gaze.left_deg + 18) < 4 and abs(gaze.up_deg) < 6
    assert 0.5 < gaze.left_sigma_deg < 5
    told = result_dict(result)
    assert told["gaze"]["left_deg"] == gaze.left_deg
    inwards = next(e for e in told["parameters"]["expression"]["value"] if e["name"] == "eyeLookInLeft")
    # The shape turns the eye by 30 degrees.
    assert inwards["activation"] == pytest.approx(-gaze.left_deg / 30, abs=0.1)
    units = model().expression_unit.tolist()[model().expression_names.index("eyeLookInLeft")]
    assert inwards["coefficient_sigma"] * units == pytest.approx(gaze.left_sigma_deg / 30, rel=0.25)


def test_landmarks_alone_say_nothing_of_the_gaze() -> None:
    result = fit(observed(turned(scene(-0.5, 1.0), -18.0, 0.0)), model(), stages=FAST)
    assert result.gaze is not None and not result.gaze.seen
    assert not any(activations(result.scene).values())


@pytest.mark.slow
def test_each_photograph_of_a_person_has_a_gaze_of_its_own() -> None:
    one = scene(-0.5, 1.0)
    other = replace(one, pose=Pose(torch.tensor([0.0, -0.3, 0.0]), one.pose.translation_mm))
    looks = (15.0, -15.0)
    photographs = [observed(turned(at, left, 0.0)) for at, left in zip((one, other), looks, strict=True)]
    found = [result.gaze for result in fit(photographs, model()).results]
    for gaze, left in zip(found, looks, strict=True):
        assert gaze is not None and abs(gaze.left_deg - left) < 4


def test_a_second_look_finds_the_same() -> None:
    truth = turned(scene(-0.5, 1.0), 12.0, -6.0)
    level = level_of(observed(truth))
    first, second = (with_eyes(without_eyes(truth), model(), level) for _ in range(2))
    assert torch.equal(first[0].expression, second[0].expression)
    assert torch.equal(first[0].albedo, second[0].albedo)
