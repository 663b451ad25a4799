"""What a run leaves behind: complete, readable by others, never half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from export_toy import toy_result
from PIL import Image

from facefit.detection import LandmarkSource
from facefit.errors import FacefitError, UnreadableInput
from facefit.export import export, write_results
from facefit.fitting.result import FitResult
from facefit.overlay import Box, crop_camera, face_box, layers, overlay

FILES = {
    "result.json", "params.npz", "mesh.obj", "mesh.mtl", "mesh.png", "neutral.obj", "mesh.ply", "face.glb", "mask.png",
    "overlay.png", "report.html",
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> FitResult:
    return toy_result()


@pytest.fixture(scope="module")
def folder(result: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_results(result, folder, texture_size=64)
    return folder


def obj_vertices(path: Path) -> np.ndarray:
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(rows, float)


def test_every_file_is_written_and_described(result: FitResult, tmp_path: Path) -> None:
    described = write_results(result, tmp_path, texture_size=32)
    assert {name for name, _ in described} == FILES == {path.name for path in tmp_path.iterdir()}
    assert all(phrase for _, phrase in described)


def test_the_posed_mesh_is_the_fitted_shape_and_the_neutral_one_has_no_expression(
    result: FitResult, folder: Path
) -> None:
    posed, neutral = obj_vertices(folder / "mesh.obj"), obj_vertices(folder / "neutral.obj")
    np.testing.assert_allclose(posed, result.scene.shape(result.model).numpy(), atol=1e-3)
    np.testing.assert_allclose(neutral, result.scene.neutral_shape(result.model).numpy(), atol=1e-3)


def test_the_mesh_names_its_material_and_the_material_its_texture(folder: Path) -> None:
    assert "mtllib mesh.mtl" in (folder / "mesh.obj").read_text()
    assert "map_Kd mesh.png" in (folder / "mesh.mtl").read_text()
    with Image.open(folder / "mesh.png") as picture:
        assert picture.size == (64, 64)


def test_the_json_is_strict(folder: Path) -> None:
    json.loads((folder / "result.json").read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(("by", "terms"), [("dlib", "non-commercial"), ("facefit", "free")])
def test_whose_landmarks_were_used_and_their_terms_are_in_every_file_that_names_the_models(
    result: FitResult, tmp_path: Path, by: LandmarkSource, terms: str
) -> None:
    named = replace(result, observation=replace(result.observation, landmarks_by=by))
    write_results(named, tmp_path, texture_size=32)
    told = json.loads((tmp_path / "result.json").read_text("utf-8"))["landmarks"]
    glb = (tmp_path / "face.glb").read_bytes()
    document = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])
    (scene,) = document["scenes"]
    assert scene["extras"]["model"]["licence_class"] == "free"
    assert scene["extras"]["landmarks"] == {"by": by, "licence_class": terms}
    assert (told["by"], told["licence_class"]) == (by, terms)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert ("not for commercial use" in page) == (terms == "non-commercial")


def test_the_overlay_has_the_photographs_size_and_changes_only_the_face(result: FitResult) -> None:
    shown = overlay(result)
    assert shown.shape == result.observation.image.shape
    # The fit explains its photograph exactly, so the face over it is the photograph.
    difference = np.abs(shown.astype(int) - result.observation.image).max(2)
    assert result.skin is not None
    assert difference[result.skin.face].max() <= 2
    # Along the silhouette a pixel may hold some face although its centre, which the photograph shows, holds none.
    assert difference.max() <= 10


def test_the_overlay_leaves_the_observation_alone(result: FitResult) -> None:
    before = result.observation.image.copy()
    overlay(result)
    np.testing.assert_array_equal(before, result.observation.image)


def test_the_layers_lie_in_register_and_an_exact_fit_has_no_error(result: FitResult) -> None:
    shown = layers(result)
    assert shown.photo.shape == shown.overlay.shape == shown.albedo.shape == shown.error.shape
    assert np.abs(shown.photo.astype(int) - shown.overlay).max() <= 2
    box = shown.box
    np.testing.assert_array_equal(
        shown.photo, result.observation.image[box.top : box.bottom, box.left : box.right]
    )


def test_a_cropped_camera_sees_the_same_points_shifted(result: FitResult) -> None:
    points = result.scene.pose.apply(result.scene.shape(result.model))
    camera = result.scene.camera
    cropped = crop_camera(camera, Box(30, 20, 90, 110))
    moved = camera.project(points) - cropped.project(points)
    np.testing.assert_allclose(moved.numpy(), np.broadcast_to([30, 20], moved.shape), atol=1e-3)
    assert (cropped.width, cropped.height) == (60, 90)


@pytest.mark.parametrize("margin", [0.0, 0.5, 50.0])
def test_the_face_box_lies_within_the_photograph(result: FitResult, margin: float) -> None:
    box = face_box(result, margin)
    assert 0 <= box.left < box.right <= 200 and 0 <= box.top < box.bottom <= 240


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".json", ".npz", ".png", ".html", ".PLY"])
def test_one_file_is_chosen_by_its_suffix(result: FitResult, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"face{suffix}"
    export(result, path, texture_size=32)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.stat().st_size > 100


def test_an_obj_comes_with_its_material_and_texture(result: FitResult, tmp_path: Path) -> None:
    export(result, str(tmp_path / "anna.obj"), texture_size=32)
    assert {p.name for p in tmp_path.iterdir()} == {"anna.obj", "anna.mtl", "anna.png"}
    assert "mtllib anna.mtl" in (tmp_path / "anna.obj").read_text()
    assert "map_Kd anna.png" in (tmp_path / "anna.mtl").read_text()


def test_companions_of_an_obj_have_no_spaces_in_their_names(result: FitResult, tmp_path: Path) -> None:
    export(result, tmp_path / "my dear anna.obj", texture_size=16)
    assert {p.name for p in tmp_path.iterdir()} == {
        "my dear anna.obj",
        "my_dear_anna.mtl",
        "my_dear_anna.png",
    }


def test_an_unknown_suffix_is_refused_with_the_known_ones(result: FitResult, tmp_path: Path) -> None:
    with pytest.raises(FacefitError, match=r"\.fbx.*\.glb, .*\.obj"):
        export(result, tmp_path / "face.fbx", texture_size=32)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(result: FitResult, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="nowhere"):
        export(result, tmp_path / "nowhere" / "face.ply", texture_size=32)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "face.ply"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UnreadableInput, match="No space left"):
        export(result, path, texture_size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["face.ply"] and path.read_bytes() == b"old"


def test_a_full_disk_passes_through(result: FitResult, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_results(result, tmp_path / "missing", texture_size=16)


def test_the_overlay_file_is_the_overlay(result: FitResult, folder: Path) -> None:
    stored = np.asarray(Image.open(BytesIO((folder / "overlay.png").read_bytes())))
    np.testing.assert_array_equal(stored, overlay(result))


def test_a_model_without_texture_coordinates_is_written_too(tmp_path: Path) -> None:
    write_results(toy_result(with_uv=False), tmp_path, texture_size=64)
    assert {p.name for p in tmp_path.iterdir()} == FILES


def test_a_scene_that_carries_gradients_is_written_too(result: FitResult, tmp_path: Path) -> None:
    scene = replace(result.scene, expression=result.scene.expression.double().requires_grad_())
    write_results(replace(result, scene=scene), tmp_path, texture_size=16)
    assert {path.name for path in tmp_path.iterdir()} == FILES
