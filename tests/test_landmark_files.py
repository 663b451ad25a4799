"""Landmark files: what is written comes back, half a pixel is where it belongs, nothing odd is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facefit.errors import UnreadableInput
from facefit.landmark_files import as_landmarks, read_landmarks, read_points, write_pts

POINTS = np.random.default_rng(1).uniform(0, 500, (68, 2))


def test_pts_written_and_read_are_the_same(tmp_path: Path) -> None:
    write_pts(tmp_path / "a.pts", POINTS)
    np.testing.assert_allclose(read_landmarks(tmp_path / "a.pts"), POINTS, atol=1e-4)


def test_the_first_pixel_of_a_pts_file_is_one_one_and_has_its_centre_at_a_half(tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_text("version: 1\nn_points:  1\n{\n1 1\n}\n")
    np.testing.assert_array_equal(read_points(tmp_path / "a.pts"), [[0.5, 0.5]])


def test_npy_is_taken_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS.astype(np.float32))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "a.npy"), POINTS.astype(np.float32))


def test_fifty_one_points_are_the_inner_ones() -> None:
    full = as_landmarks(POINTS[17:])
    assert np.isnan(full[:17]).all()
    np.testing.assert_array_equal(full[17:], POINTS[17:])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pts", "version: 1\nn_points: 3\n{\n1 1\n2 2\n}\n", "announces 3 points and holds 2"),
        ("a.pts", "version: 2\nn_points: 1\n{\n1 1\n}\n", "not a .pts file"),
        ("a.pts", "version: 1\nn_points: 1\n{\n1 x\n}\n", "not two numbers"),
        ("a.pts", "version: 1\nn_points: 1\n{\n1 2 3\n}\n", "not two numbers"),
        ("a.pts", "version: 1\nn_points: 1\n{\n1 1\n} {", "not a .pts file"),
        ("a.pts", "", "not a .pts file"),
        ("a.npy", "", "not a plain .npy"),
        ("a.npy", "no numpy", "not a plain .npy"),
        ("a.txt", "1 1", "not .txt"),
        ("a.pts", "x" * 2_000_000, "is it the right file"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UnreadableInput, match=said) as caught:
        read_points(tmp_path / name)
    assert name in str(caught.value)


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableInput, match="plain .npy"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(67, 2), (68, 3), (68,), (2, 68)])
def test_a_wrong_shape_is_refused_with_both_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(UnreadableInput, match=r"\(68, 2\)"):
        read_landmarks(tmp_path / "a.npy")


@pytest.mark.parametrize("bad", [np.inf, 1e9])
def test_impossible_coordinates_are_refused(bad: float) -> None:
    points = POINTS.copy()
    points[3, 0] = bad
    with pytest.raises(UnreadableInput, match="million pixels"):
        as_landmarks(points)


def test_all_unknown_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="fewer than 6"):
        as_landmarks(np.full((68, 2), np.nan))


def test_no_such_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="No such file"):
        read_points(tmp_path / "none.pts")


@given(content=st.binary(max_size=400))
def test_no_bytes_raise_anything_but_unreadable(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for suffix in (".pts", ".npy"):
        path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
        path.write_bytes(content)
        try:
            read_points(path)
        except UnreadableInput:
            pass
