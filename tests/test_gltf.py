"""Laws of the glTF file, read back by the specification and by nothing of ours."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import torch
from export_toy import toy_result
from PIL import Image

from facefit.fitting.result import FitResult
from facefit.glb import CORRECTION, expression_targets, face_glb
from facefit.gltf import quaternion
from facefit.models.camera import rotation_matrix
from facefit.texture import bake_texture

WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}
TYPE = {5126: "<f4", 5123: "<u2", 5125: "<u4"}


@pytest.fixture(scope="module")
def result() -> FitResult:
    return toy_result()


@pytest.fixture(scope="module")
def glb(result: FitResult) -> bytes:
    return face_glb(result, bake_texture(result, 64), {"note": "a"})


@pytest.fixture(scope="module")
def document(glb: bytes) -> dict[str, Any]:
    return read(glb)[0]


def read(glb: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", glb)
    assert (magic, version, length) == (b"glTF", 2, len(glb))
    size, kind = struct.unpack_from("<I4s", glb, 12)
    assert kind == b"JSON" and size % 4 == 0
    text = glb[20 : 20 + size]
    binary_size, kind = struct.unpack_from("<I4s", glb, 20 + size)
    assert kind == b"BIN\0" and binary_size % 4 == 0 and 28 + size + binary_size == len(glb)
    return json.loads(text), glb[28 + size :]


def accessor(glb: bytes, number: int) -> np.ndarray:
    """An accessor's values, sparse or not."""
    document, binary = read(glb)
    entry = document["accessors"][number]
    width, kind = WIDTH[entry["type"]], np.dtype(TYPE[entry["componentType"]])

    def view(index: int, dtype: np.dtype[Any], count: int) -> np.ndarray:
        where = document["bufferViews"][index]
        assert where["byteOffset"] % dtype.itemsize == 0
        assert where["byteLength"] >= count * dtype.itemsize
        return np.frombuffer(binary, dtype, count, where["byteOffset"])

    values = np.zeros(entry["count"] * width, kind)
    if "bufferView" in entry:
        values = view(entry["bufferView"], kind, len(values))
    values = values.reshape(-1, width).copy()
    if sparse := entry.get("sparse"):
        indices = view(
            sparse["indices"]["bufferView"],
            np.dtype(TYPE[sparse["indices"]["componentType"]]),
            sparse["count"],
        )
        assert (np.diff(indices.astype(int)) > 0).all() and indices.max() < entry["count"]
        values[indices] = view(sparse["values"]["bufferView"], kind, sparse["count"] * width).reshape(
            -1, width
        )
    return values


def morphed(glb: bytes, weights: list[float]) -> np.ndarray:
    primitive = read(glb)[0]["meshes"][0]["primitives"][0]
    shape = accessor(glb, primitive["attributes"]["POSITION"]).astype(np.float64)
    for target, weight in zip(primitive["targets"], weights, strict=True):
        shape += weight * accessor(glb, target["POSITION"])
    return shape


def split_vertices(result: FitResult, glb: bytes) -> np.ndarray:
    """Which vertex of the model each vertex of the file is: the nearest neutral one."""
    neutral = result.scene.neutral_shape(result.model).numpy() / 1000
    shape = morphed(glb, [0.0] * len(read(glb)[0]["meshes"][0]["weights"]))
    return np.linalg.norm(shape[:, None] - neutral[None], axis=2).argmin(1)


def test_the_weights_in_the_file_reproduce_the_fitted_shape(
    result: FitResult, glb: bytes, document: dict[str, Any]
) -> None:
    posed = result.scene.shape(result.model).numpy()[split_vertices(result, glb)]
    shape_mm = 1000 * morphed(glb, document["meshes"][0]["weights"])
    assert np.abs(shape_mm - posed).max() < 0.05


def test_zero_weights_give_the_neutral_person_in_metres(
    result: FitResult, glb: bytes, document: dict[str, Any]
) -> None:
    neutral = result.scene.neutral_shape(result.model).numpy()[split_vertices(result, glb)]
    shape_mm = 1000 * morphed(glb, [0.0] * len(document["meshes"][0]["weights"]))
    np.testing.assert_allclose(shape_mm, neutral, atol=1e-3)


def test_weight_one_is_the_published_shape_of_an_expression(result: FitResult, glb: bytes) -> None:
    document, _ = read(glb)
    mesh = document["meshes"][0]
    number = mesh["extras"]["targetNames"].index("jawOpen")
    weights = [0.0] * len(mesh["weights"])
    rest = morphed(glb, weights)
    weights[number] = 1.0
    moved_mm = 1000 * (morphed(glb, weights) - rest)
    model = result.model
    published = (model.expression_basis[0] / model.expression_unit[0]).numpy()
    np.testing.assert_allclose(moved_mm, published[split_vertices(result, glb)], atol=0.02)


def test_targets_are_named_and_their_weights_lie_between_zero_and_one(document: dict[str, Any]) -> None:
    mesh = document["meshes"][0]
    names = mesh["extras"]["targetNames"]
    assert len(names) == len(mesh["weights"]) == len(mesh["primitives"][0]["targets"])
    assert names[:4] == ["jawOpen", "mouthSmileLeft", "eyeBlinkRight", "browInnerUp"]
    assert all(0 <= weight <= 1 for weight in mesh["weights"])


def test_what_clamped_weights_cannot_say_is_kept_in_a_correction(result: FitResult) -> None:
    from dataclasses import replace

    scene = replace(result.scene, expression=torch.tensor([-2.0, 0.0, 9.0, 0.0]))
    glb = face_glb(replace(result, scene=scene), bake_texture(result, 16), {})
    mesh = read(glb)[0]["meshes"][0]
    assert mesh["extras"]["targetNames"][-1] == CORRECTION
    posed = scene.shape(result.model).numpy()[split_vertices(result, glb)]
    assert np.abs(1000 * morphed(glb, mesh["weights"]) - posed).max() < 0.05


def test_targets_that_do_not_fit_the_budget_go_into_the_correction(result: FitResult) -> None:
    scene, model = result.scene, result.model
    deformation = (scene.shape(model) - scene.neutral_shape(model)).numpy()
    targets = expression_targets(result, deformation, budget=3000)
    assert 0 < len(targets) - 1 < model.n_expression and targets[-1].name == CORRECTION
    total = sum(target.weight * target.delta for target in targets)
    np.testing.assert_allclose(total, deformation, atol=1e-4)


def test_bounds_of_positions_are_those_of_the_data(glb: bytes, document: dict[str, Any]) -> None:
    primitive = document["meshes"][0]["primitives"][0]
    numbers = [primitive["attributes"]["POSITION"]] + [t["POSITION"] for t in primitive["targets"]]
    for number in numbers:
        entry, values = document["accessors"][number], accessor(glb, number)
        np.testing.assert_allclose(entry["min"], values.min(0), rtol=0, atol=0)
        np.testing.assert_allclose(entry["max"], values.max(0), rtol=0, atol=0)


def test_normals_have_unit_length_and_indices_stay_inside(glb: bytes, document: dict[str, Any]) -> None:
    primitive = document["meshes"][0]["primitives"][0]
    normals = accessor(glb, primitive["attributes"]["NORMAL"])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert accessor(glb, primitive["indices"]).max() < len(normals)
    uv = accessor(glb, primitive["attributes"]["TEXCOORD_0"])
    assert 0 <= uv.min() and uv.max() <= 1


def test_the_camera_node_sees_each_vertex_on_its_pixel(result: FitResult, document: dict[str, Any]) -> None:
    node = next(n for n in document["nodes"] if "camera" in n)
    camera = document["cameras"][node["camera"]]["perspective"]
    x, y, z, w = node["rotation"]
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    scene = result.scene
    points = scene.shape(result.model)
    local = (points.numpy() / 1000 - node["translation"]) @ rotation
    half = np.tan(camera["yfov"] / 2)
    ndc = local[:, :2] / -local[:, 2:] / [half * camera["aspectRatio"], half]
    pixels = (ndc * [1, -1] + 1) / 2 * [scene.camera.width, scene.camera.height]
    expected = scene.camera.project(scene.pose.apply(points)).numpy()
    np.testing.assert_allclose(pixels, expected, atol=2e-3)


def test_texture_coordinates_count_from_the_top(
    result: FitResult, glb: bytes, document: dict[str, Any]
) -> None:
    primitive = document["meshes"][0]["primitives"][0]
    uv = accessor(glb, primitive["attributes"]["TEXCOORD_0"])
    height = accessor(glb, primitive["attributes"]["POSITION"])[:, 1]
    assert uv[height.argmax(), 1] < uv[height.argmin(), 1]


def test_the_texture_is_an_image_inside_the_file(glb: bytes, document: dict[str, Any]) -> None:
    from io import BytesIO

    image = document["images"][0]
    where = document["bufferViews"][image["bufferView"]]
    _, binary = read(glb)
    data = binary[where["byteOffset"] : where["byteOffset"] + where["byteLength"]]
    assert Image.open(BytesIO(data)).size == (64, 64)
    assert "uri" not in image


@pytest.mark.parametrize("seed", range(20))
def test_a_quaternion_turns_like_its_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Half turns about an axis are where the trace says nothing.
    vector = rng.normal(size=3)
    vector *= (np.pi if seed % 2 else rng.uniform(0, 3)) / np.linalg.norm(vector)
    matrix = rotation_matrix(torch.from_numpy(vector)).numpy()
    *v, w = quaternion(matrix)
    point = rng.normal(size=3)
    turned = point + 2 * np.cross(v, np.cross(v, point) + w * point)
    np.testing.assert_allclose(turned, matrix @ point, atol=1e-9)
