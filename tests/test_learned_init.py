from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import landmarks_of, observe, toy_model, toy_scene

from facefit.errors import ModelFileError
from facefit.learned_init import shards
from facefit.learned_init.crop import SIZE_PX, Crop, crop_of_landmarks
from facefit.learned_init.detector import NetworkDetector
from facefit.learned_init.losses import TYPICAL_MM, TYPICAL_PX_PER_MM, Yardstick, losses, rotation_of
from facefit.learned_init.network import Guess, Head, Sizes, Trunk
from facefit.learned_init.points import dense_points
from facefit.learned_init.predict import NO_MARKS, decode, predict
from facefit.learned_init.synthetic import Sample, Synthesizer, in_crop
from facefit.learned_init.train import FirstTraining
from facefit.learned_init.training import Settings
from facefit.learned_init.weights import Initialiser, read_weights, write_weights
from facefit.models.scene import Scene

MODEL = toy_model()


@lru_cache
def synthesizer() -> Synthesizer:
    return Synthesizer(MODEL)


@lru_cache
def untrained() -> Initialiser:
    torch.manual_seed(0)
    points = dense_points(MODEL, 60)
    head = Head(Sizes(len(points), MODEL.n_identity, MODEL.n_expression, MODEL.n_albedo)).eval()
    head.layout.copy_(torch.rand(len(points), 2) * SIZE_PX)
    return Initialiser(Trunk().eval(), head, points, {"model": MODEL.name})


# Crops


def test_a_crops_pixels_go_back_to_where_they_came_from() -> None:
    crop = Crop((210.0, 95.0), 77.0, 0.4)
    points = np.random.default_rng(1).uniform(0, 300, (20, 2))
    np.testing.assert_allclose(crop.invert(crop.apply(points)), points, atol=1e-9)
    np.testing.assert_allclose(crop.apply(np.array([210.0, 95.0])), [SIZE_PX / 2] * 2)


@pytest.mark.parametrize("side", [90.0, 310.0, 700.0])
def test_a_cut_shows_what_lies_under_its_pixels(side: float) -> None:
    """The centre of a bright spot lies in the cut where the crop says."""
    columns, rows = np.meshgrid(np.arange(400) + 0.5, np.arange(400) + 0.5)
    spot = np.array([217.0, 171.0])
    bright = 250 * np.exp(-((columns - spot[0]) ** 2 + (rows - spot[1]) ** 2) / 2 / 8**2)
    crop = Crop((200.0, 190.0), side, 0.3)
    found = crop.cut(np.repeat(bright[..., None], 3, 2).astype(np.uint8))[..., 0].astype(float)
    centres = np.stack(np.meshgrid(np.arange(SIZE_PX) + 0.5, np.arange(SIZE_PX) + 0.5), 2)
    centroid = (centres * found[..., None]).sum((0, 1)) / found.sum()
    np.testing.assert_allclose(centroid, crop.apply(spot), atol=0.15)


def test_a_crop_follows_the_face() -> None:
    """Turned, moved and enlarged landmarks give the crop turned, moved and enlarged."""
    marks = landmarks_of(toy_scene(2))
    first = crop_of_landmarks(marks)
    c, s = math.cos(0.5), math.sin(0.5)
    second = crop_of_landmarks(1.7 * marks @ np.array([[c, s], [-s, c]]) + [30, 40])
    assert first is not None and second is not None
    assert second.roll == pytest.approx(first.roll + 0.5)
    assert second.side == pytest.approx(1.7 * first.side)


def test_without_enough_landmarks_there_is_no_crop() -> None:
    assert crop_of_landmarks(NO_MARKS) is None


# Points


def test_points_come_in_mirror_pairs_and_begin_with_the_landmarks() -> None:
    points = dense_points(MODEL, 100)
    places = points.gather(MODEL, MODEL.mean).numpy()
    assert (points.mirror[points.mirror] == np.arange(len(points))).all()
    np.testing.assert_allclose(places[points.mirror] * [-1, 1, 1], places, atol=4.0)
    np.testing.assert_allclose(places[:68], MODEL.landmark_points(MODEL.mean).numpy(), atol=1e-4)


def test_points_spread_over_the_face() -> None:
    """No two of them closer than a fifth of the mean spacing."""
    places = dense_points(MODEL, 100).gather(MODEL, MODEL.mean).numpy()[68:]
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1e3 * np.eye(100)
    assert apart.min() > 0.2 * apart.min(1).mean()


# Drawn pictures


def test_a_picture_is_its_seed() -> None:
    one, again, other = synthesizer()(3, 5), synthesizer()(3, 5), synthesizer()(3, 6)
    for field in fields(Sample):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(again, field.name))
    assert (one.image != other.image).mean() > 0.5


def test_pictures_show_the_face_where_their_points_are() -> None:
    """Painted white on black without anything in front, the head covers its visible points."""
    found = [synthesizer()(0, i) for i in range(12)]
    assert all(sample.image.shape == (SIZE_PX, SIZE_PX, 3) for sample in found)
    centre = np.array([sample.points[17:68].mean(0) for sample in found])
    assert (np.abs(centre - SIZE_PX / 2) < SIZE_PX / 3).all()
    assert (
        np.isnan([s.landmarks[0, 0] for s in found]).any()
        and np.isfinite([s.landmarks[0, 0] for s in found]).any()
    )


def test_the_truth_of_a_picture_projects_to_its_points() -> None:
    """Rotation, size, distance and centre, in the crop's frame, give the points that pixels show, but for the crop's
    being flat (a few tenths of a pixel off the axis of the camera)."""
    for index in range(6):
        sample = synthesizer()(4, index)
        places = synthesizer().points.gather(MODEL, MODEL.mean).double().numpy() + sample.neutral
        moved = torch.einsum(
            "e,epc->pc",
            torch.from_numpy(sample.expression).float(),
            synthesizer().points.gather(MODEL, MODEL.expression_basis),
        )
        local = (places + moved.numpy() - synthesizer().middle.numpy()) @ sample.rotation.T
        scale = sample.size_px_per_mm * sample.distance_mm
        pixels = scale * local[:, :2] / (sample.distance_mm + local[:, 2:]) + sample.centre
        assert np.abs(pixels - sample.points).mean() < 1.5


# Network and losses


def test_any_crop_and_any_landmarks_give_a_finite_guess() -> None:
    network = untrained()
    images = torch.stack([torch.zeros(3, 128, 128), torch.ones(3, 128, 128), torch.rand(3, 128, 128)])
    marks = torch.full((3, 68, 2), torch.nan)
    marks[1] = 1e6
    marks[2, :5] = 40.0
    guess = network.head(*network.trunk(images, marks))
    assert torch.isfinite(guess.points).all() and torch.isfinite(guess.points_log_sigma).all()
    assert all(
        torch.isfinite(block).all() for block in (*guess.blocks.values(), *guess.blocks_log_sigma.values())
    )


def test_the_network_is_small() -> None:
    sizes = Sizes(520, 100, 53, 38)
    count = sum(p.numel() for module in (Trunk(), Head(sizes)) for p in module.parameters())
    assert count <= 3_000_000


def truth_batch(count: int = 4) -> dict[str, torch.Tensor]:
    arrays = shards.stacked([synthesizer()(9, i) for i in range(count)])
    return {name: torch.from_numpy(a) for name, a in arrays.items() if name != "occluder"}


def perfect(batch: dict[str, torch.Tensor], flipped: torch.Tensor) -> Guess:
    from facefit.learned_init.losses import targets_of, true_points

    yard = Yardstick.of(MODEL, synthesizer().points)
    blocks = targets_of(batch, flipped)
    points = true_points(batch, yard, flipped)
    zero = torch.zeros_like(points)
    return Guess(
        points, zero, zero[..., 0], blocks, {name: torch.zeros_like(b) for name, b in blocks.items()}, points
    )


def test_the_truth_costs_nothing_and_its_mirror_image_neither() -> None:
    batch = truth_batch()
    batch["neutral"] = (
        batch["identity"] @ Yardstick.of(MODEL, synthesizer().points).identity.flatten(1)
    ).unflatten(1, (-1, 3))
    yard = Yardstick.of(MODEL, synthesizer().points)
    straight = torch.zeros(4, dtype=torch.bool)
    for name, value in losses(perfect(batch, straight), batch, yard, straight).items():
        assert float(value) == pytest.approx(0, abs=1e-4), name
    found = losses(perfect(batch, ~straight), batch, yard, ~straight)
    for name in ("points", "centre", "size", "distance"):
        assert float(found[name]) == pytest.approx(0, abs=1e-4), name


def test_six_numbers_make_a_rotation() -> None:
    found = rotation_of(torch.randn(5, 6, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found @ found.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(5))


# From the guess back to a scene


@pytest.mark.parametrize("roll", [0.0, 0.5])
def test_a_perfect_guess_is_the_scene(roll: float) -> None:
    """What a network would say of a scene, decoded, projects to the scene's pixels; the crop upright or leaning."""
    truth = toy_scene(2)
    network = untrained()
    points = network.points
    photo = truth.camera.project(truth.pose.apply(points.gather(MODEL, truth.shape(MODEL)))).double().numpy()
    crop = replace(crop_of_landmarks(photo[:68]) or Crop((0, 0), 1), roll=roll)
    middle = points.gather(MODEL, MODEL.mean).mean(0)
    at = truth.pose.apply(middle[None])[0].double().numpy()
    ray = at / at[2]
    pixel = truth.camera.project(torch.from_numpy(at)[None].float())[0].double().numpy()
    focal = float(truth.camera.focal_px)
    rotation = in_crop(crop, ray) @ truth.pose.camera_from_model.double().numpy()
    blocks = {
        "identity": truth.identity, "expression": truth.expression, "albedo": truth.albedo,
        "lighting": truth.lighting.coefficients.reshape(-1),
        "rotation": torch.from_numpy(rotation[:, :2].T.reshape(-1)),
        "centre": torch.from_numpy(crop.apply(pixel) / (SIZE_PX / 2) - 1),
        "size": torch.tensor([math.log(crop.scale * focal / at[2] / TYPICAL_PX_PER_MM)]),
        "distance": torch.tensor([math.log(at[2] / TYPICAL_MM)]),
    }  # fmt: skip
    guess = Guess(
        torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(1, 1),
        {name: block[None] for name, block in blocks.items()},
        {name: torch.full_like(block[None], -3.0) for name, block in blocks.items()}, torch.zeros(1, 1, 2),
    )  # fmt: skip
    found = decode(guess, photo, points, crop, replace(observe(truth), focal_sigma=0.3), MODEL).scene
    again = found.camera.project(found.pose.apply(points.gather(MODEL, found.shape(MODEL)))).double().numpy()
    # A focal length pulled a little towards the prior moves nothing of what is seen by more than this.
    assert np.abs(again - photo).max() < 0.5


def test_a_known_focal_length_is_kept() -> None:
    truth = toy_scene(2)
    observation = replace(observe(truth), focal_sigma=0.0)
    found = predict(observation, MODEL, initialiser=untrained())
    assert found is not None
    assert float(found.scene.camera.focal_px) == float(observation.camera.focal_px)


def test_a_photograph_without_landmarks_is_guessed_too() -> None:
    bare = replace(observe(toy_scene(2)), landmarks=None, landmark_covariance=None)
    found = predict(bare, MODEL, initialiser=untrained())
    assert found is not None
    assert np.isfinite(found.points).all()
    assert torch.isfinite(found.scene.pack(("identity", "rotation", "translation"))).all()
    assert isinstance(found.scene, Scene)


def test_a_model_without_weights_has_no_guess() -> None:
    assert predict(observe(toy_scene(2)), MODEL) is None


# Weights and training


def test_weights_come_back_and_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    write_weights(path, untrained())
    found = read_weights(path, MODEL)
    image, marks = torch.rand(1, 3, 128, 128), torch.full((1, 68, 2), torch.nan)
    one = untrained().head(*untrained().trunk(image, marks)).points
    two = found.head(*found.trunk(image, marks)).points
    # Half precision of the weights.
    torch.testing.assert_close(one, two, atol=0.1, rtol=0)
    assert found.card == untrained().card
    assert (found.points.mirror == untrained().points.mirror).all()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "other"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "toy.safetensors"
    write_weights(path, untrained())
    data = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"not weights at all", "cut": data[: len(data) // 2], "other": data}[damage]
    )
    model = MODEL if damage != "other" else MODEL.truncated(1)
    with pytest.raises(ModelFileError, match="safetensors"):
        read_weights(path, model)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in (0, 14, 17):
        shards.draw_shard(
            lambda seed, index: [synthesizer()(seed, index)], MODEL.name, tmp_path / "pictures", 1, number, 16
        )
    return tmp_path / "pictures"


@pytest.mark.slow
def test_training_learns_and_goes_on_after_a_stop(tmp_path: Path, pictures: Path) -> None:
    """Stopped and resumed it ends where it would have ended; and the points come nearer."""
    settings = Settings(steps=16, batch=8, warm_up=2, save_every=4)
    whole = FirstTraining([MODEL], tmp_path / "whole", pictures, settings)
    whole.run()
    first = FirstTraining([MODEL], tmp_path / "parts", pictures, settings)
    first.look()
    first.begin()
    for _ in range(8):
        first.learn()
        first.step += 1
    first.save()
    second = FirstTraining([MODEL], tmp_path / "parts", pictures, settings)
    assert second.step == 8
    second.run()
    assert whole.step == second.step == 16
    for name, one in whole.network.state_dict().items():
        torch.testing.assert_close(one, second.network.state_dict()[name], atol=1e-5, rtol=1e-4, msg=name)
    assert whole.history[-1]["toy points"] < whole.history[0]["toy points"]
    assert "toy points" in whole.validate()


@pytest.mark.slow
def test_shipped_weights_find_the_landmarks_of_a_portrait(astronaut: np.ndarray) -> None:
    """dlib and the network agree on the inner landmarks, the network looking from the detector's box alone."""
    from facefit.detection import DlibDetector

    theirs = DlibDetector().detect(astronaut)[0].landmarks
    ours = NetworkDetector().detect(astronaut)[0].landmarks
    eyes = np.linalg.norm(theirs[36] - theirs[45])
    assert np.linalg.norm(ours - theirs, axis=1)[17:].mean() < 0.07 * eyes
