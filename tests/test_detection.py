"""Detection: coordinates do not depend on how the photograph lies or how large it is; doubt is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facefit.detection import LANDMARK_SIGMA, DlibDetector, Face, landmark_covariance, unturn
from facefit.errors import ModelFileError, NoFaceFound
from facefit.observation import Observation


@pytest.fixture(scope="module")
def face(astronaut: np.ndarray) -> Face:
    return DlibDetector().detect(astronaut)[0]


def eye_distance(face: Face) -> float:
    return float(np.linalg.norm(face.landmarks[45] - face.landmarks[36]))


def test_the_portrait_has_one_face_where_it_is(face: Face, astronaut: np.ndarray) -> None:
    assert len(DlibDetector().detect(astronaut, every=True)) == 1  # and not the badge on the suit
    left, top, right, bottom = face.box
    assert 150 < left < right < 300
    assert 50 < top < bottom < 200
    # Eyes above nose above mouth above chin; the subject's right eye is on the left of the picture.
    eyes, nose, mouth, chin = (
        face.landmarks[s].mean(axis=0) for s in (slice(36, 48), [33], slice(48, 60), [8])
    )
    assert eyes[1] < nose[1] < mouth[1] < chin[1]
    assert face.landmarks[36, 0] < face.landmarks[45, 0]


@given(
    quarter=st.integers(0, 3),
    row=st.integers(0, 6),
    column=st.integers(0, 4),
)
def test_a_pixel_is_found_again_after_turning(quarter: int, row: int, column: int) -> None:
    image = np.zeros((7, 5))
    image[row, column] = 1
    turned = np.rot90(image, quarter)
    r, c = np.argwhere(turned)[0]
    centre = unturn(np.array([[c + 0.5, r + 0.5]]), quarter, turned.shape)
    np.testing.assert_array_equal(centre, [[column + 0.5, row + 0.5]])


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_photograph_on_its_side_gives_the_same_landmarks_of_the_same_person(
    astronaut: np.ndarray, face: Face, quarter: int
) -> None:
    turned = np.ascontiguousarray(np.rot90(astronaut, quarter))
    found = DlibDetector().detect(turned)[0]
    assert found.turned_deg == (360 - 90 * quarter) % 360
    np.testing.assert_allclose(unturn(found.landmarks, quarter, turned.shape), face.landmarks, atol=1e-9)
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarter)
    np.testing.assert_allclose(turn @ found.covariance @ turn.T, face.covariance, atol=1e-9)


@pytest.mark.parametrize("degrees", [20, 35, 45, 55, -30, -45, -60])
def test_a_leaning_head_has_the_same_landmarks_leaning(
    astronaut: np.ndarray, face: Face, degrees: int
) -> None:
    leaning = np.asarray(Image.fromarray(astronaut).rotate(degrees, Image.Resampling.BICUBIC))
    found = DlibDetector().detect(leaning)[0]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    expected = (face.landmarks - 256) @ np.array([[cos, -sin], [sin, cos]]) + 256
    assert np.linalg.norm(found.landmarks - expected, axis=1).mean() < 0.015 * eye_distance(face)


def test_enlarging_the_photograph_enlarges_the_landmarks_about_the_corner(
    astronaut: np.ndarray, face: Face
) -> None:
    # Half a pixel of a wrong convention would move all landmarks by half a pixel of the small picture.
    large = np.asarray(Image.fromarray(astronaut).resize((1536, 1536), Image.Resampling.BICUBIC))
    found = DlibDetector().detect(large)[0]
    difference = (found.landmarks / 3 - face.landmarks)[17:]
    assert np.abs(difference.mean(axis=0)).max() < 0.25
    assert np.linalg.norm(difference, axis=1).mean() < 0.02 * eye_distance(face)


def test_a_mirrored_portrait_gives_mirrored_landmarks(astronaut: np.ndarray, face: Face) -> None:
    found = DlibDetector().detect(np.ascontiguousarray(astronaut[:, ::-1]))[0]
    # Nose and chin keep their numbers: mirrored about the picture's middle, not a pixel beside it.
    middle = [27, 28, 29, 30, 33, 8, 51, 57]
    mirrored = np.stack([512 - found.landmarks[middle, 0], found.landmarks[middle, 1]], axis=1)
    assert np.linalg.norm(mirrored - face.landmarks[middle], axis=1).mean() < 0.02 * eye_distance(face)


def test_a_landscape_has_no_face_and_the_way_out_is_named(landscape: np.ndarray) -> None:
    with pytest.raises(NoFaceFound, match="2 scales and in four orientations.*--landmarks") as caught:
        DlibDetector().detect(landscape)
    assert caught.value.exit_code == 3


def test_a_face_of_twenty_pixels_is_not_found(astronaut: np.ndarray) -> None:
    small = np.asarray(Image.fromarray(astronaut).resize((112, 112), Image.Resampling.LANCZOS))
    with pytest.raises(NoFaceFound, match="at least 40 pixels"):
        DlibDetector().detect(small)


@pytest.mark.slow
def test_a_small_face_in_a_large_photograph_is_found(astronaut: np.ndarray) -> None:
    large = np.full((3000, 4000, 3), 90, np.uint8)
    large[2200:2712, 3000:3512] = astronaut
    found = DlibDetector().detect(large)[0]
    assert 3150 < found.landmarks[33, 0] < 3300
    assert 2250 < found.landmarks[33, 1] < 2400


def test_several_faces_come_with_the_most_prominent_first(astronaut: np.ndarray, tmp_path: Path) -> None:
    head = Image.fromarray(astronaut[20:260, 120:340])
    pair = Image.new("RGB", (600, 400), (90, 90, 90))
    pair.paste(head, (10, 100))
    pair.paste(head.resize((330, 360), Image.Resampling.BICUBIC), (260, 20))
    pair.save(tmp_path / "pair.png")
    both = Observation.all_from_file(tmp_path / "pair.png")
    assert len(both) == 2
    assert both[0].interocular_px > 1.2 * both[1].interocular_px
    second = Observation.from_file(tmp_path / "pair.png", face=2)
    np.testing.assert_array_equal(second.landmarks, both[1].landmarks)


def test_every_landmark_has_one_sigma() -> None:
    numbers = sorted(n for group, _ in LANDMARK_SIGMA for n in group)
    assert numbers == list(range(68))


def test_the_covariance_scales_and_turns_with_the_face(face: Face) -> None:
    turn = 3.0 * np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    moved = landmark_covariance(face.landmarks @ turn.T + [100, -20])
    np.testing.assert_allclose(
        moved, turn @ landmark_covariance(face.landmarks) @ turn.T, rtol=1e-9, atol=1e-9
    )
    assert np.linalg.eigvalsh(moved).min() > 0
    # Jaw points slide along the contour: there the doubt is larger than across.
    assert (np.linalg.eigvalsh(moved[:17])[:, 1] > 4 * np.linalg.eigvalsh(moved[:17])[:, 0]).all()


def test_unknown_landmarks_leave_the_others_a_covariance(face: Face) -> None:
    partial = face.landmarks.copy()
    partial[[3, 36, 45]] = np.nan
    covariance = landmark_covariance(partial)
    assert np.isfinite(covariance).all()
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_the_detector_knows_when_it_guesses(astronaut: np.ndarray, face: Face) -> None:
    spoiled = astronaut.copy()
    spoiled[int(face.landmarks[33, 1]) : 200, 150:320] = 128  # mouth and chin behind a grey card
    guessed = DlibDetector().detect(spoiled)
    mouth = slice(48, 68)
    sure, unsure = (np.trace(f.covariance[mouth], axis1=1, axis2=2).mean() for f in (face, guessed[0]))
    assert unsure > 2 * sure


def test_a_missing_predictor_is_a_missing_model_file(astronaut: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no landmark predictor"):
        DlibDetector(tmp_path / "none.dat").detect(astronaut)
    (tmp_path / "bad.dat").write_bytes(b"not a predictor")
    with pytest.raises(ModelFileError, match="not a dlib landmark predictor"):
        DlibDetector(tmp_path / "bad.dat").detect(astronaut)


def test_the_package_of_the_predictor_is_located_and_never_imported() -> None:
    # Its __init__ needs pkg_resources, which is gone from setuptools.
    code = (
        "import sys; from facefit.detection import _packaged_predictor;"
        "assert _packaged_predictor().name.endswith('.dat');"
        "assert 'face_recognition_models' not in sys.modules and 'dlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_faces_are_found_in_real_photographs(photographs: Path) -> None:
    frontal = [path for path in sorted(photographs.glob("*.*g")) if "profile" not in path.name]
    assert frontal
    for path in frontal:
        observation = Observation.from_file(path)
        assert observation.interocular_px > 20, path.name
    group = Observation.all_from_file(photographs / "group_of_eight.jpg")
    assert len(group) >= 6
