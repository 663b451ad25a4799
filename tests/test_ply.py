"""A binary PLY says what it was given."""

from __future__ import annotations

import numpy as np

from facefit.ply import encode_ply

VERTICES = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, -1.5]])
TRIANGLES = np.array([[0, 1, 2], [2, 1, 0]])


def test_the_body_holds_vertices_colours_and_triangles() -> None:
    data = encode_ply(VERTICES, TRIANGLES, np.array([[0.0, 0.5, 1.0], [1, 1, 1], [0, 0, 0]]), ("a comment",))
    header, body = data.split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\ncomment a comment\n")
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)], 3)
    np.testing.assert_array_equal(points["xyz"], VERTICES)
    assert points["rgb"][0].tolist() == [0, 128, 255]
    faces = np.frombuffer(body, [("count", "u1"), ("corners", "<i4", 3)], 2, 3 * 15)
    assert (faces["count"] == 3).all()
    np.testing.assert_array_equal(faces["corners"], TRIANGLES)
    assert len(body) == 3 * 15 + 2 * 13


def test_colours_outside_the_range_are_clamped() -> None:
    data = encode_ply(VERTICES, TRIANGLES, np.array([[-1.0, 2.0, np.nan]] * 3))
    points = np.frombuffer(data.split(b"end_header\n")[1], [("xyz", "<f4", 3), ("rgb", "u1", 3)], 3)
    assert points["rgb"][0].tolist() == [0, 255, 0]


def test_a_comment_cannot_end_the_header() -> None:
    data = encode_ply(VERTICES, TRIANGLES, np.zeros((3, 3)), ("x\nend_header\n",))
    assert data.count(b"\nend_header\n") == 1
