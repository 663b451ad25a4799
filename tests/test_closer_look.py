from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import observe, toy_model, toy_scene

from facefit.errors import ModelFileError
from facefit.fitting.linear import landmark_start
from facefit.learned_init import closer_samples, shards
from facefit.learned_init.calibrate import error_patterns
from facefit.learned_init.closer_look import Looker, inputs_of, look_closer, mirrored, whitening_of
from facefit.learned_init.closer_network import CloserHead, CloserTrunk, Correction
from facefit.learned_init.closer_samples import CloserSynthesizer
from facefit.learned_init.closer_train import CloserTraining, likelihood
from facefit.learned_init.closer_weights import CloserNetwork, ErrorPatterns, read_closer, write_closer
from facefit.learned_init.crop import SIZE_PX, Crop, crop_of_landmarks
from facefit.learned_init.points import dense_points
from facefit.learned_init.rim import Rim
from facefit.learned_init.training import Settings
from facefit.learned_init.unwrap import CELLS, PIXELS, Axis, Cylinder, places_on_cylinder
from facefit.models.camera import FACING
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

MODEL = toy_model()


@lru_cache
def looker() -> Looker:
    return Looker(MODEL, dense_points(MODEL, 60))


@lru_cache
def untrained() -> CloserNetwork:
    torch.manual_seed(0)
    points = dense_points(MODEL, 60)
    none = np.zeros((0, len(points), 2))
    head = CloserHead(places_on_cylinder(MODEL, points)).eval()
    return CloserNetwork(
        CloserTrunk().eval(),
        head,
        points,
        ErrorPatterns(none, np.zeros(0), 1.0, none, none),
        {"model": "toy"},
    )


def gradient_picture() -> np.ndarray:
    """A picture that says where it is read: red is the column, green the row."""
    row, column = np.mgrid[0:SIZE_PX, 0:SIZE_PX]
    return np.stack([2 * column, 2 * row, 0 * row], 2).astype(np.uint8)


# Unwrapping


def test_a_cell_of_the_cylinder_is_read_where_its_surface_is_seen() -> None:
    scene = toy_scene(2)
    cylinder = Cylinder(MODEL)
    crop = crop_of_landmarks(looker().pixels(scene)[:68])
    assert crop is not None
    found = cylinder.unwrap(gradient_picture(), crop, scene)
    places = crop.apply(scene.camera.project(scene.pose.apply(cylinder.cells.at(scene))).double().numpy())
    cells = found.picture.reshape(CELLS, 2, CELLS, 2, 3).astype(float).mean((1, 3))[..., :2].reshape(-1, 2)
    inside = ((places > 4) & (places < SIZE_PX - 4)).all(1)
    # Between cells the surface is taken as straight; the picture rises by two a pixel from its first centre.
    assert inside.sum() > 1000
    assert np.median(np.abs(cells / 2 + 0.5 - places)[inside]) < 0.3


def test_points_lie_on_the_cylinder_where_their_cells_are() -> None:
    """The surface of the cell at a point's place is the surface at the point."""
    points = dense_points(MODEL, 60)
    places = places_on_cylinder(MODEL, points)
    cells = Cylinder(MODEL).cells.mean.numpy().reshape(CELLS, CELLS, 3)
    column, row = (places * CELLS).astype(int).clip(0, CELLS - 1).T
    surface = points.gather(MODEL, MODEL.mean).numpy()
    apart = np.linalg.norm(cells[row, column] - surface, axis=1)
    assert np.median(apart) < 4.0


def test_normals_of_a_face_look_at_the_camera_and_are_of_unit_length() -> None:
    scene = toy_scene(2)
    crop = Crop((0.0, 0.0), 100.0)
    normals = Cylinder(MODEL).unwrap(np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8), crop, scene).normals
    middle = normals[CELLS // 2 - 8 : CELLS // 2 + 8, CELLS // 2 - 8 : CELLS // 2 + 8].reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 1, atol=1e-3)
    assert abs(np.sign(middle[:, 2]).sum()) == len(middle)


def test_what_the_network_is_shown_of_a_mirror_image_is_mirrored_twice_the_same() -> None:
    rng = np.random.default_rng(0)
    shown = (
        torch.from_numpy(rng.random((2, 3, PIXELS, PIXELS))), torch.from_numpy(rng.random((2, 3, CELLS, CELLS))),
        torch.from_numpy(rng.random((2, 68, 2))), torch.from_numpy(rng.random((2, 2))),
    )  # fmt: skip
    for one, two in zip(shown, mirrored(*mirrored(*shown)), strict=True):
        torch.testing.assert_close(one, two)


# Landmarks as detectors give them


def test_the_rim_is_the_jaw_of_a_frontal_face_and_the_cheek_of_a_turned_one() -> None:
    rim = Rim(MODEL)
    marks = MODEL.landmark_points(MODEL.mean).double().numpy()
    vertices = MODEL.mean.double().numpy()[rim.vertices]

    def seen(yaw: float) -> tuple[np.ndarray, np.ndarray]:
        turn = np.array(FACING) @ [
            [math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]
        ]  # fmt: skip
        return rim.seen((vertices @ turn.T)[:, :2], turn), (marks @ turn.T)[:, :2]

    straight, jaw = seen(0.0)
    assert np.linalg.norm(straight - jaw[:17], axis=1).max() < 12.0
    for yaw in (-0.7, 0.7):
        turned, jaw = seen(yaw)
        away = turned[:, 0] - jaw[:17, 0]
        # The outline lies outside the surface's own jaw points on the far side, and nowhere far inside them.
        outwards = np.concatenate([away[:8], -away[9:]]) * np.sign(jaw[0, 0] - jaw[16, 0])
        assert outwards.max() > 4.0
        assert outwards.min() > -6.0


# Answers


def test_a_look_at_nothing_is_answered_with_finite_points() -> None:
    """A black picture and no landmarks at all."""
    truth = toy_scene(2)
    photo = replace(observe(truth), landmarks=None, landmark_covariance=None)
    photo = replace(photo, image=np.zeros_like(photo.image))
    found = look_closer(untrained(), looker(), photo, truth)
    assert found is not None
    assert np.isfinite(found.pixels).all()
    np.testing.assert_allclose(found.reference, looker().pixels(truth))


def test_a_scene_behind_the_camera_is_not_looked_at() -> None:
    truth = toy_scene(2)
    behind = replace(truth, pose=replace(truth.pose, translation_mm=torch.tensor([0.0, 0.0, torch.nan])))
    assert look_closer(untrained(), looker(), observe(truth), behind) is None


def test_points_move_by_what_the_network_says_in_millimetres_of_the_face() -> None:
    """A head that says (3, -2) mm of every point moves each by as much of the face's scale, in the crop's axes."""
    torch.manual_seed(0)
    truth, network = toy_scene(2), untrained()
    head = CloserHead(places_on_cylinder(MODEL, network.points)).eval()
    with torch.no_grad():
        head.points.weight.zero_()
        head.read.zero_()
        head.points.bias.copy_(torch.tensor([3.0, -2.0]).repeat(len(network.points)) / 4)
    # Of a symmetric network the mirror image's shift across is taken away again.
    found = look_closer(replace(network, head=head), looker(), observe(truth), truth)
    assert found is not None
    pixels = looker().pixels(truth)
    crop = crop_of_landmarks(pixels[:68])
    assert crop is not None
    depth = float(truth.pose.apply(MODEL.mean.mean(0)[None])[0, 2])
    moved = (found.pixels - pixels) @ crop.turn.T * depth / float(truth.camera.focal_px)
    np.testing.assert_allclose(moved, np.tile([0.0, -2.0], (len(moved), 1)), atol=1e-3)


def test_whitening_undoes_the_covariance_the_network_states() -> None:
    rng = torch.Generator().manual_seed(2)
    said = Correction(
        torch.zeros(1, 5, 2), torch.randn(1, 5, 2, generator=rng), torch.randn(1, 5, generator=rng)
    )
    first, second = said.log_sigma[0].exp().double().unbind(-1)
    lower = torch.zeros(5, 2, 2, dtype=torch.double)
    lower[:, 0, 0], lower[:, 1, 0], lower[:, 1, 1] = first, said.skew[0] * second, second
    np.testing.assert_allclose(
        whitening_of(said)[0] @ lower.numpy(), np.tile(np.eye(2), (5, 1, 1)), atol=1e-6
    )


def test_the_stated_deviations_are_likeliest_where_they_are_true() -> None:
    rng = torch.Generator().manual_seed(3)
    error = 2.0 * torch.randn(400, 10, 2, generator=rng)

    def cost(sigma: float) -> float:
        said = Correction(error, torch.full_like(error, math.log(sigma)), torch.zeros(400, 10))
        return float(likelihood(error, said))

    assert cost(2.0) < min(cost(1.5), cost(2.7))


# Samples, training, weights


@lru_cache
def synthesizer() -> CloserSynthesizer:
    return CloserSynthesizer(MODEL, lambda photo, model: landmark_start(photo, model))


def test_a_sample_says_how_far_the_first_fit_is_off() -> None:
    """The truth of a sample is where the picture's points are, seen from the first fit's."""
    sample = synthesizer().pictures(3, 1)
    found = list(synthesizer()(3, 1))
    again = list(synthesizer()(3, 1))
    assert found and len(found) == len(again)
    for one, two in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.picture, two.picture)
        np.testing.assert_array_equal(one.shift, two.shift)
        assert np.isnan(one.marks[:17]).all() and np.isfinite(one.marks[17:]).all()
    # Two fits of one picture: their points and corrections differ by the same, up to each fit's own scale.
    assert not np.allclose(found[0].shift, found[-1].shift)
    assert np.abs(sample.points).max() < 400


def test_the_closer_look_learns_from_the_first_ones_errors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fit of each picture begins at landmarks as a detector gives them, one where the first look has them; and the
    samples say how far off the points are from there.
    """
    begun: list[np.ndarray] = []

    def first_fit(photo: Observation, model: LinearFaceModel) -> Scene:
        assert photo.landmarks is not None
        begun.append(photo.landmarks)
        return landmark_start(photo, model)

    drawing = CloserSynthesizer(MODEL, first_fit, object())  # type: ignore[arg-type]
    sample = drawing.pictures(3, 1)
    shut = sample.marked.copy()
    shut[60:68, 1] = shut[60:68, 1].mean() + 3.0
    monkeypatch.setattr(closer_samples, "look", lambda *_: (np.stack([shut - 1, shut + 1]), None, None))
    one, other = drawing(3, 1)
    assert not np.allclose(begun[0], shut, atol=0.1)
    np.testing.assert_allclose(begun[1], shut)
    known = slice(17, 68)
    here = (other.marks - other.shift[:68])[known]
    # A landmark minus the truth, in one unit of length: what the first look has wrong.
    scale = np.linalg.norm(here) / np.linalg.norm((shut - sample.points[:68])[known])
    np.testing.assert_allclose(here, scale * (shut - sample.points[:68])[known], atol=1e-3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in (0, 14, 17):
        shards.draw_shard(synthesizer(), MODEL.name, tmp_path / "pictures", 1, number, 8)
    return tmp_path / "pictures"


@pytest.mark.slow
def test_training_learns_and_goes_on_after_a_stop(tmp_path: Path, pictures: Path) -> None:
    """Stopped and resumed it ends where it would have ended; and the points come nearer."""
    settings = Settings(steps=12, batch=8, warm_up=2, save_every=3)
    whole = CloserTraining([MODEL], tmp_path / "whole", pictures, settings)
    whole.run()
    parts = CloserTraining([MODEL], tmp_path / "parts", pictures, settings)
    parts.look()
    for _ in range(6):
        parts.learn()
        parts.step += 1
    parts.save()
    second = CloserTraining([MODEL], tmp_path / "parts", pictures, settings)
    assert second.step == 6
    second.run()
    for name, one in whole.network.state_dict().items():
        torch.testing.assert_close(one, second.network.state_dict()[name], atol=1e-5, rtol=1e-4, msg=name)
    assert whole.history[-1]["toy points"] < whole.history[0]["toy points"]
    assert set(whole.validate()) == {"toy first fit", "toy points"}


def test_patterns_of_errors_are_found_again() -> None:
    """A share of a displacement missing, one shift of all points, independent noise: each is found for what it is."""
    rng = np.random.default_rng(0)
    bump = np.linalg.qr(rng.normal(size=(60, 1)))[0].T.reshape(1, 30, 2)
    moved = 8.0 * rng.normal(size=(800, 1, 1)) * bump
    shared = rng.normal(size=(800, 1, 1)) * np.array([1.0, 0.0])
    found = error_patterns(0.5 * rng.normal(size=(800, 30, 2)) + shared - 0.05 * moved, moved, 4, 1)
    assert found.variances[0] > 10 * found.variances[1]
    assert found.floor == pytest.approx(0.25, rel=0.15)
    assert abs(found.patterns[0][:, 0].mean()) * math.sqrt(30) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(np.vdot(found.response, found.shapes), -0.05, atol=0.02)


def test_weights_come_back_and_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "toy_closer.safetensors"
    write_closer(path, untrained())
    # Others may read what lies in a shared place.
    assert path.stat().st_mode & 0o044 == 0o044
    found = read_closer(path, MODEL)
    truth = toy_scene(2)
    crop = crop_of_landmarks(looker().pixels(truth)[:68])
    assert crop is not None
    shown = inputs_of(looker()(crop.cut(observe(truth).image), crop, np.full((68, 2), np.nan), truth))
    with torch.no_grad():
        one = untrained().head(*untrained().trunk(*shown)).shift
        two = found.head(*found.trunk(*shown)).shift
    torch.testing.assert_close(one, two, atol=0.05, rtol=0)
    assert found.card == untrained().card


def test_weights_of_the_other_look_are_refused_by_name(tmp_path: Path) -> None:
    from facefit.learned_init.weights import read_weights

    path = tmp_path / "toy.safetensors"
    write_closer(path, untrained())
    with pytest.raises(ModelFileError, match="closer look"):
        read_weights(path, MODEL)


def test_the_axis_stands_behind_the_face() -> None:
    axis = Axis.of(MODEL)
    assert axis.z < float(MODEL.mean[:, 2].max()) - 60
    assert axis.bottom < axis.top


@pytest.mark.slow
def test_shipped_weights_correct_the_landmarks_of_a_portrait(astronaut: np.ndarray) -> None:
    """The closer look brings the first look's landmarks nearer to dlib's, an instrument of its own."""
    from facefit.detection import DlibDetector
    from facefit.learned_init.detector import NetworkDetector
    from facefit.observation import Observation
    from facefit.reconstruct import sharpened

    theirs = DlibDetector().detect(astronaut)[0].landmarks
    first = Observation.from_array(astronaut, detector=NetworkDetector())
    # The toy model has no weights of its own: the built-in model's look for it.
    closer = sharpened(first, MODEL)
    eyes = np.linalg.norm(theirs[36] - theirs[45])

    def apart(photo: Observation) -> float:
        assert photo.landmarks is not None
        return float(np.linalg.norm(photo.landmarks - theirs, axis=1)[17:].mean() / eyes)

    assert apart(closer) < 0.05
    assert apart(closer) < apart(first)
    assert closer.landmarks is not None and first.landmarks is not None
    np.testing.assert_array_equal(closer.landmarks[:17], first.landmarks[:17])


def test_landmarks_of_others_are_left_alone() -> None:
    from facefit.reconstruct import sharpened

    photo = observe(toy_scene(2))
    assert sharpened(photo, MODEL) is photo
