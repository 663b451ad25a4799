"""Turned heads: found where they are, on either side, and nowhere else; the detector's file can be made again."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import toy_model

from facefit.detection import DlibDetector, Hit
from facefit.errors import NoFaceFound
from facefit.learned_init.crop import crop_of_landmarks
from facefit.learned_init.detector import FaceDetector, NetworkDetector
from facefit.learned_init.synthetic import Sample
from facefit.learned_init.turned import PATH
from facefit.learned_init.turned_train import FROM_BEHIND, SEED, heads, others, trained, training_picture
from facefit.models.pack import save_model
from facefit.observation import Observation

# People that the detector was not trained on.
OTHER_SEED = SEED + 1


@cache
def profiles() -> list[Sample]:
    return list(heads(("builtin",), (60.0, 90.0), 8, OTHER_SEED))


def hits(image: np.ndarray, detector: FaceDetector) -> list[np.ndarray]:
    """Centres and sides of what is found."""
    try:
        return [np.array([*hit.centre, hit.side]) for hit in detector.find(image)]
    except NoFaceFound:
        return []


def test_the_file_is_in_the_package() -> None:
    assert files("facefit.learned_init").joinpath(PATH.name).is_file()


@pytest.mark.slow
def test_profiles_are_found_where_they_are_and_dlib_finds_none_of_them() -> None:
    detector, facing, found = FaceDetector(), DlibDetector(), 0
    for sample in profiles():
        with pytest.raises(NoFaceFound):
            facing.find(sample.image)
        true = crop_of_landmarks(sample.points[:68])
        assert true is not None
        for place in hits(sample.image, detector):
            found += 1
            assert np.linalg.norm(place[:2] - true.centre) < 0.1 * true.side
    assert found >= 7


@pytest.mark.slow
def test_a_mirrored_picture_has_the_mirrored_faces() -> None:
    detector = FaceDetector()
    for sample in profiles()[:3]:
        (one,) = hits(sample.image, detector)
        (other,) = hits(np.ascontiguousarray(sample.image[:, ::-1]), detector)
        mirrored = np.array([sample.image.shape[1] - other[0], other[1], other[2]])
        np.testing.assert_allclose(mirrored, one, atol=0.02 * one[2])


@pytest.mark.slow
def test_landmarks_of_a_profile_are_the_networks_and_its_doubt_holds_them() -> None:
    """At twice the deviations that drawn pictures show (`DOMAIN_GAP`), most points lie within one."""
    detector = FaceDetector()
    for sample in profiles()[:3]:
        (face,) = detector.detect(sample.image)
        assert face.by == "facefit"
        off = face.landmarks - sample.points[:68]
        whitened = np.linalg.solve(np.linalg.cholesky(face.covariance), off[:, :, None])
        assert np.median(np.linalg.norm(whitened, axis=(1, 2))) < 1.2


@pytest.mark.slow
def test_the_back_of_a_head_is_no_face() -> None:
    detector = FaceDetector()
    for sample in heads(("builtin",), FROM_BEHIND, 6, OTHER_SEED):
        assert hits(sample.image, detector) == []


@pytest.mark.parametrize("detector", [FaceDetector(), NetworkDetector()])
def test_without_a_face_the_error_says_that_turned_heads_were_looked_for(
    detector: FaceDetector, landscape: np.ndarray
) -> None:
    with pytest.raises(NoFaceFound, match="turned heads and profiles; crop closer.*--landmarks") as caught:
        detector.detect(landscape)
    assert caught.value.exit_code == 3


def test_a_face_that_dlib_sees_stays_dlibs(astronaut: np.ndarray) -> None:
    (ours,), (theirs,) = FaceDetector().detect(astronaut), DlibDetector().detect(astronaut)
    assert ours.by == "dlib"
    np.testing.assert_array_equal(ours.landmarks, theirs.landmarks)


@pytest.mark.slow
def test_whoever_asks_for_every_face_gets_the_profile_beside_it(astronaut: np.ndarray) -> None:
    profile = profiles()[0].image
    detector = FaceDetector()
    (alone,) = hits(profile, detector)
    height = max(len(astronaut), len(profile))
    both = np.concatenate([
        np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), "edge") for one in (astronaut, profile)
    ], 1)  # fmt: skip
    assert [hit.turned for hit in detector.find(both)] == [False]
    facing, beside = detector.find(both, every=True)
    assert (facing.turned, beside.turned) == (False, True)
    # The boxes that are proposed lie on a grid, which the wider picture shifts.
    apart = np.array(beside.centre) - alone[:2] - [astronaut.shape[1], 0]
    assert np.linalg.norm(apart) < 0.2 * alone[2] and 0.75 < beside.side / alone[2] < 1.33


@pytest.mark.slow
def test_training_again_gives_the_same_file_and_knows_its_pictures(tmp_path: Path) -> None:
    save_model(toy_model(), tmp_path / "toy.safetensors")
    names = (str(tmp_path / "toy.safetensors"),)
    pictures = [training_picture(sample) for sample in heads(names, (60.0, 90.0), 12)]
    without = others(names, 6)
    for name in ("one.svm", "two.svm"):
        detector = trained(pictures, without)
        detector.save(str(tmp_path / name))
    assert (tmp_path / "one.svm").read_bytes() == (tmp_path / "two.svm").read_bytes()
    assert sum(bool(detector(picture)) for picture, _ in pictures) >= 11
    assert not any(detector(picture) for picture in without)


@pytest.mark.slow
@pytest.mark.parametrize("lean", [-30, 30])
def test_a_leaning_profile_is_the_same_face_leaning(lean: int) -> None:
    """A raised or lowered head, seen from the side."""
    detector = FaceDetector()
    for sample in profiles()[:3]:
        picture = np.pad(sample.image, ((40, 40), (40, 40), (0, 0)), "edge")
        turned = np.asarray(Image.fromarray(picture).rotate(lean, Image.Resampling.BICUBIC))
        (face,), (leaning,) = detector.detect(picture), detector.detect(turned)
        middle = picture.shape[0] / 2
        cos, sin = np.cos(np.radians(lean)), np.sin(np.radians(lean))
        expected = (face.landmarks - middle) @ np.array([[cos, -sin], [sin, cos]]) + middle
        apart = np.linalg.norm(leaning.landmarks - expected, axis=1)
        assert apart.mean() < 0.05 * np.ptp(face.landmarks[:, 1])


def test_a_false_hit_on_an_ear_gives_way_to_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """dlib's detector takes ears of turned heads for faces, with scores up to 0.4."""
    sample = profiles()[0]
    (true,) = FaceDetector().find(sample.image)

    def ear(self: DlibDetector, image: np.ndarray, every: bool = False) -> list[Hit]:
        return [Hit(0.37, (0.25 * image.shape[1], 0.5 * image.shape[0]), 20.0, 0.0, 0)]

    monkeypatch.setattr(DlibDetector, "find", ear)
    assert FaceDetector().find(sample.image) == [true]


@pytest.mark.slow
def test_the_profile_among_the_photographs_is_found(photographs: Path) -> None:
    path = photographs / "profile_dark.jpg"
    with Image.open(path) as image:
        size = np.array(image.size)
    found = Observation.from_file(path, detector=FaceDetector())
    assert found.landmarks is not None and found.landmarks_by == "facefit"
    # It looks to the left: the tip of the nose is its leftmost landmark.
    assert np.argmin(found.landmarks[:, 0]) in (29, 30)
    assert (np.abs(found.landmarks[30] - np.array([0.415, 0.58]) * size) < 0.03 * size).all()
