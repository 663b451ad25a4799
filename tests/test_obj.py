"""OBJ text says what it was given."""

from __future__ import annotations

import numpy as np

from facefit.obj import encode_mtl, encode_obj

VERTICES = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, -1.23456]])
TRIANGLES = np.array([[0, 1, 2]])
UV = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])


def lines(text: str, kind: str) -> list[list[str]]:
    return [line.split()[1:] for line in text.splitlines() if line.split()[:1] == [kind]]


def test_vertices_keep_their_order_to_a_ten_thousandth_of_a_millimetre() -> None:
    text = encode_obj(VERTICES, TRIANGLES)
    np.testing.assert_allclose(np.array(lines(text, "v"), float), VERTICES, atol=5e-5)
    assert lines(text, "f") == [["1", "2", "3"]]


def test_corners_name_position_texture_and_normal_from_one() -> None:
    normals = np.tile([0.0, 0, 1], (3, 1))
    text = encode_obj(VERTICES, TRIANGLES, UV, np.array([[3, 0, 1]]), normals, "a.mtl")
    assert lines(text, "f") == [["1/4/1", "2/1/2", "3/2/3"]]
    assert lines(text, "mtllib") == [["a.mtl"]] and lines(text, "usemtl") == [["skin"]]
    assert len(lines(text, "vt")) == 4 and len(lines(text, "vn")) == 3


def test_normals_without_texture_are_written_with_two_slashes() -> None:
    text = encode_obj(VERTICES, TRIANGLES, normals=np.tile([0.0, 0, 1], (3, 1)))
    assert lines(text, "f") == [["1//1", "2//2", "3//3"]]


def test_a_comment_cannot_start_a_statement() -> None:
    text = encode_obj(VERTICES, TRIANGLES, comments=("photo\nv 1 2 3\r.jpg",))
    assert len(lines(text, "v")) == 3


def test_the_material_names_its_texture() -> None:
    assert lines(encode_mtl("mesh.png"), "map_Kd") == [["mesh.png"]]
    assert lines(encode_mtl("mesh.png"), "newmtl") == [["skin"]]
