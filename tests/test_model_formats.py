"""Every format finds its way back to our conventions: unit, sigma, index base, winding, gamma, landmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import model_writers as writers
import numpy as np
import pytest
import torch
from model_writers import Known, known
from toy import toy_model

from facefit.errors import ModelFileError
from facefit.models import albedo_mm, flame, load_model
from facefit.models.assemble import linear_from_srgb
from facefit.models.face_model import LinearFaceModel
from facefit.models.flame_pose import JOINTS, Flame
from facefit.models.landmark_map import read_eos_list
from facefit.models.pack import load_pack, save_model

Writer = Callable[[Path, Known], None]
# Name of the file, writer, does it hold expressions, colour, all landmarks?
FORMATS: dict[str, tuple[Writer, bool, bool, bool]] = {
    "surrey1.bin": (lambda path, face: writers.write_surrey(path, face, 1), False, False, False),
    "surrey2.bin": (lambda path, face: writers.write_surrey(path, face, 2), True, False, False),
    "surrey3.bin": (lambda path, face: writers.write_surrey(path, face, 3), True, False, True),
    "surrey4.bin": (lambda path, face: writers.write_surrey(path, face, 4, colour=True), True, True, True),
    "01_MorphableModel.mat": (writers.write_bfm09, False, True, False),
    "compressed.mat": (
        lambda path, face: writers.write_bfm09(path, face, compressed=True),
        False,
        True,
        False,
    ),
    "BFM_model_front.mat": (writers.write_deep3d, True, True, True),
    "lyhm.mat": (writers.write_lyhm, False, True, False),
    "model2017-1_bfm_nomouth.h5": (writers.write_bfm17, True, True, False),
    "statismo8.h5": (lambda path, face: writers.write_bfm17(path, face, minor_version=8), True, True, False),
    "generic_model.pkl": (writers.write_flame, True, False, False),
}


@pytest.fixture(scope="module")
def face() -> Known:
    return known()


@pytest.fixture(params=FORMATS, scope="module")
def loaded(
    request: pytest.FixtureRequest, face: Known, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, LinearFaceModel]:
    path = tmp_path_factory.mktemp("model") / request.param
    FORMATS[request.param][0](path, face)
    return request.param, load_model(path)


def test_the_mean_comes_back_in_millimetres(loaded: tuple[str, LinearFaceModel], face: Known) -> None:
    np.testing.assert_allclose(loaded[1].mean.numpy(), face.mean, atol=2e-4)


def test_one_sigma_of_a_mode_is_the_published_formula(
    loaded: tuple[str, LinearFaceModel], face: Known
) -> None:
    model = loaded[1]
    for k in range(3):
        identity = torch.eye(model.n_identity)[k]
        expected = face.mean + (face.basis[:, k] * face.sigma[k]).reshape(-1, 3)
        np.testing.assert_allclose(model.vertices(identity, torch.zeros(0)).numpy(), expected, atol=1e-3)


def test_full_activation_of_an_expression_is_the_published_shape(
    loaded: tuple[str, LinearFaceModel], face: Known
) -> None:
    name, model = loaded
    if not FORMATS[name][1]:
        assert model.n_expression == 0
        return
    for k in range(2):
        expression = torch.eye(model.n_expression)[k] / model.expression_unit[k]
        expected = face.mean + (face.expression_basis[:, k] * face.expression_sigma[k]).reshape(-1, 3)
        np.testing.assert_allclose(model.vertices(torch.zeros(0), expression).numpy(), expected, atol=1e-3)


def test_triangles_count_from_zero_and_look_outwards(
    loaded: tuple[str, LinearFaceModel], face: Known
) -> None:
    np.testing.assert_array_equal(loaded[1].topology.triangles, face.triangles)


def test_colour_is_linear_and_its_modes_are_its_slope(
    loaded: tuple[str, LinearFaceModel], face: Known
) -> None:
    name, model = loaded
    if not FORMATS[name][2]:
        assert model.n_albedo >= 3, "a colourless model gets the albedo prior"
        return
    np.testing.assert_allclose(model.albedo_mean.numpy(), linear_from_srgb(face.colour_srgb), atol=1e-5)
    step = 1e-3 * (face.colour_basis[:, 0] * face.colour_sigma[0]).reshape(-1, 3)
    moved = linear_from_srgb(face.colour_srgb + step)
    ours = model.albedo(torch.eye(model.n_albedo)[0] * 1e-3).numpy()
    np.testing.assert_allclose(ours, moved, atol=2e-6)


def test_landmarks_are_those_of_the_file(loaded: tuple[str, LinearFaceModel], face: Known) -> None:
    name, model = loaded
    if FORMATS[name][3]:
        expected = face.mean[face.landmark_vertices]
        np.testing.assert_allclose(model.landmark_points(model.mean).numpy(), expected, atol=1e-3)


def test_a_model_survives_our_own_format(loaded: tuple[str, LinearFaceModel], tmp_path: Path) -> None:
    model = loaded[1]
    save_model(model, tmp_path / "model.safetensors")
    again = load_pack(tmp_path / "model.safetensors")
    assert again.source == model.source and again.expression_names == model.expression_names
    for name in (
        "mean",
        "identity_basis",
        "expression_basis",
        "albedo_mean",
        "albedo_basis",
        "expression_unit",
    ):
        torch.testing.assert_close(getattr(again, name), getattr(model, name), rtol=0, atol=0)
    np.testing.assert_array_equal(again.topology.triangles, model.topology.triangles)
    assert again.topology.regions.keys() == model.topology.regions.keys()


def test_compact_storage_errs_by_less_than_a_65000th(tmp_path: Path) -> None:
    model = toy_model()
    save_model(model, tmp_path / "model.safetensors", compact=True)
    again = load_pack(tmp_path / "model.safetensors")
    for name in ("identity_basis", "expression_basis", "albedo_basis"):
        before = getattr(model, name)
        peak = before.abs().amax(dim=(1, 2), keepdim=True)
        assert ((getattr(again, name) - before).abs() <= peak / 65000 + 1e-12).all()
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_blendshapes_and_list_beside_a_surrey_model_are_used(face: Known, tmp_path: Path) -> None:
    writers.write_surrey(tmp_path / "sfm.bin", face, 1)
    (tmp_path / "expression_blendshapes_3448.bin").write_bytes(writers.blendshapes(face))
    lines = [f"{number + 1} = {vertex}" for number, vertex in enumerate(face.landmark_vertices)]
    (tmp_path / "ibug_to_sfm.txt").write_text("[landmark_mappings]\n" + "\n".join(lines))
    model = load_model(tmp_path / "sfm.bin")
    assert model.expression_names == ("joy", "anger")
    np.testing.assert_allclose(
        model.landmark_points(model.mean).numpy(), face.mean[face.landmark_vertices], atol=1e-3
    )


def test_basel_2009_takes_the_expressions_beside_it(face: Known, tmp_path: Path) -> None:
    """On the vertices that have any; with the file's mean expression left out, which would not be neutral."""
    members = np.setdiff1d(np.arange(face.vertices), [0, 5, 17])
    writers.write_bfm09(tmp_path / "01_MorphableModel.mat", face)
    writers.write_bfm09_expressions(tmp_path, face, members)
    model = load_model(tmp_path / "01_MorphableModel.mat")
    np.testing.assert_allclose(model.mean.numpy(), face.mean[members], atol=1e-3)
    expected = (face.expression_basis[:, 1] * face.expression_sigma[1]).reshape(-1, 3)[members]
    np.testing.assert_allclose(model.expression_basis[1].numpy(), expected, atol=1e-3)


def test_landmarks_a_list_lacks_are_placed_near_where_they_belong(face: Known, tmp_path: Path) -> None:
    """Basel 2017 names twelve; the other 56 come from an average face warped onto those."""
    writers.write_bfm17(tmp_path / "model.h5", face)
    model = load_model(tmp_path / "model.h5")
    found = model.landmark_points(model.mean).numpy()
    away = np.linalg.norm(found - face.mean[face.landmark_vertices], axis=1)
    assert model.topology.landmarks.numbers.tolist() == list(range(68))
    assert away[17:].mean() < 10 and away[:17].mean() < 20


def test_basel_2019_takes_its_texture_coordinates_from_the_file_beside_it(
    face: Known, tmp_path: Path
) -> None:
    writers.write_bfm17(tmp_path / "model2019_bfm.h5", face)
    uv, corners = np.random.default_rng(0).uniform(0, 1, (face.vertices, 2)), face.triangles.tolist()
    mapping = {"triangles": corners, "textureMapping": {"pointData": uv.tolist(), "triangles": corners}}
    (tmp_path / "model2019_textureMapping.json").write_text(json.dumps(mapping))
    topology = load_model(tmp_path / "model2019_bfm.h5").topology
    assert topology.uv is not None and topology.uv_triangles is not None
    np.testing.assert_allclose(topology.uv, uv, atol=1e-6)
    np.testing.assert_array_equal(topology.uv_triangles, face.triangles)
    (tmp_path / "model2019_textureMapping.json").write_text(
        json.dumps({**mapping, "triangles": corners[:-1]})
    )
    assert load_model(tmp_path / "model2019_bfm.h5").topology.uv is None, (
        "it belongs to another cut of the model"
    )
    (tmp_path / "model2019_textureMapping.json").write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match="texture mapping"):
        load_model(tmp_path / "model2019_bfm.h5")


def test_a_map_beside_the_file_wins(face: Known, tmp_path: Path) -> None:
    writers.write_bfm17(tmp_path / "model.h5", face)
    lines = [f"{number} = {vertex}" for number, vertex in enumerate(face.landmark_vertices)]
    (tmp_path / "model.landmarks.toml").write_text("[landmarks]\n" + "\n".join(lines))
    model = load_model(tmp_path / "model.h5")
    np.testing.assert_allclose(
        model.landmark_points(model.mean).numpy(), face.mean[face.landmark_vertices], atol=1e-3
    )


def test_a_map_beside_our_own_file_completes_it(face: Known, tmp_path: Path) -> None:
    """An annotated model gets what needs all 68: regions for the fit, and brows and lips in a colourless one."""
    writers.write_surrey(tmp_path / "m.bin", face, 1)
    save_model(load_model(tmp_path / "m.bin"), tmp_path / "m.safetensors")
    before = load_model(tmp_path / "m.safetensors")
    assert "face" not in before.topology.regions
    lines = [f"{number} = {vertex}" for number, vertex in enumerate(face.landmark_vertices)]
    (tmp_path / "m.landmarks.toml").write_text("[landmarks]\n" + "\n".join(lines))
    after = load_model(tmp_path / "m.safetensors")
    assert {"face", "jaw_contour", "rigid"} <= after.topology.regions.keys()
    assert after.n_albedo > before.n_albedo


def test_albedo_mm_joins_the_basel_shape_beside_it(face: Known, tmp_path: Path) -> None:
    writers.write_bfm17(tmp_path / "model2017.h5", face)
    writers.write_albedo_mm(tmp_path / "albedoModel2020.h5", face)
    model = load_model(tmp_path / "albedoModel2020.h5")
    np.testing.assert_allclose(model.albedo_mean.numpy(), face.colour_srgb, atol=1e-6)
    np.testing.assert_allclose(model.mean.numpy(), face.mean, atol=1e-3)
    mean, _ = albedo_mm.specular(tmp_path / "albedoModel2020.h5")
    np.testing.assert_allclose(mean, face.colour_srgb / 4, atol=1e-6)
    (tmp_path / "model2017.h5").unlink()
    with pytest.raises(ModelFileError, match="without a shape"):
        load_model(tmp_path / "albedoModel2020.h5")


@pytest.fixture(scope="module")
def flame_file(face: Known, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    writers.write_flame(folder / "generic_model.pkl", face)
    writers.write_flame_embedding(folder / "landmark_embedding.npy", toy_model())
    writers.write_flame_texture(folder / "FLAME_texture.npz", face)
    return folder / "generic_model.pkl"


@pytest.fixture(scope="module")
def exact(flame_file: Path) -> Flame:
    return flame.load_exact(flame_file)


def test_flame_at_rest_is_its_template(exact: Flame, face: Known) -> None:
    at_rest = exact.vertices(torch.zeros(0), torch.zeros(len(JOINTS), 3))
    np.testing.assert_allclose(at_rest.numpy(), face.mean, atol=1e-3)


def test_turning_flames_root_is_a_rigid_motion(exact: Flame) -> None:
    """Correctives belong to the other joints, so the root moves everything and bends nothing."""
    pose = torch.zeros(len(JOINTS), 3)
    pose[0] = torch.tensor([0.3, -0.5, 0.2])
    rest, turned = exact.template, exact.vertices(torch.zeros(0), pose)
    far = torch.arange(len(rest)).flip(0)
    before, after = (rest - rest[far]).norm(dim=1), (turned - turned[far]).norm(dim=1)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=0)


def test_what_hangs_on_the_jaw_turns_about_the_jaw(exact: Flame) -> None:
    """With the correctives taken away, a vertex of weight 1 keeps its distance to the jaw joint."""
    from dataclasses import replace

    bare = replace(exact, pose_basis=torch.zeros_like(exact.pose_basis))
    pose = torch.zeros(len(JOINTS), 3)
    pose[2, 0] = 0.3
    joint = exact.joint_regressor[2] @ exact.template
    on_jaw = exact.weights[:, 2] > 0.999
    moved = bare.vertices(torch.zeros(0), pose)
    before, after = (exact.template[on_jaw] - joint).norm(dim=1), (moved[on_jaw] - joint).norm(dim=1)
    torch.testing.assert_close(before, after, atol=5e-3, rtol=0)
    # A positive turn about x lowers what lies before the joint: the mouth opens.
    chin = int(exact.template[:, 1].argmin())
    assert moved[chin, 1] < exact.template[chin, 1] or moved[chin, 2] < exact.template[chin, 2]


def test_the_linear_jaw_is_exact_at_its_chord(flame_file: Path, exact: Flame) -> None:
    model = load_model(flame_file)
    where = model.expression_names.index("jaw_open")
    expression = torch.zeros(model.n_expression)
    expression[where] = 0.2 / model.expression_unit[where]
    pose = exact.pose_of(model.expression_names, expression)
    assert pose[2, 0] == pytest.approx(0.2)
    torch.testing.assert_close(
        model.vertices(torch.zeros(0), expression), exact.vertices(torch.zeros(0), pose), atol=1e-3, rtol=0
    )


def test_flames_landmarks_texture_and_contour_come_from_the_files_beside_it(flame_file: Path) -> None:
    model, toy = load_model(flame_file), toy_model()
    torch.testing.assert_close(
        model.landmark_points(model.mean), toy.landmark_points(toy.mean), atol=1e-2, rtol=0
    )
    # Red is constant at 90 of 255 although the file stores it last: blue, green, red.
    np.testing.assert_allclose(
        model.albedo_mean[:, 0].numpy(), linear_from_srgb(np.array(90 / 255)), atol=1e-5
    )
    top, bottom = int(model.mean[:, 1].argmax()), int(model.mean[:, 1].argmin())
    assert model.albedo_mean[top, 1] > model.albedo_mean[bottom, 1], "green rises to the top of the image"
    turned = flame.dynamic_contour(flame_file, -7.0, len(model.topology.triangles))
    assert turned is not None and turned.triangles[0] == 39 + 7


def test_flames_template_says_where_a_texture_without_coordinates_belongs(
    face: Known, tmp_path: Path
) -> None:
    writers.write_flame(tmp_path / "generic_model.pkl", face)
    (tmp_path / "head_template.obj").write_bytes(writers.obj(face))
    plain = load_model(tmp_path / "generic_model.pkl")
    assert plain.topology.uv is not None and plain.topology.uv.shape == (face.vertices, 2)
    flat = np.zeros((8, 8, 3)) + [0.1, 0.2, 0.3]
    np.savez(tmp_path / "FLAME_albedo_from_BFM.npz", MU=flat.reshape(-1), PC=np.zeros((192, 4)))
    model = load_model(tmp_path / "generic_model.pkl")
    expected = linear_from_srgb(np.array([0.3, 0.2, 0.1]))
    np.testing.assert_allclose(model.albedo_mean.numpy(), np.tile(expected, (face.vertices, 1)), atol=1e-6)


@pytest.mark.parametrize(("yaw", "row"), [(0, 0), (12.4, 12), (60, 39), (-1, 40), (-39, 78), (-90, 78)])
def test_contour_rows_run_from_0_to_39_and_on_from_minus_1(yaw: float, row: int) -> None:
    assert flame.contour_row(yaw) == row


def test_an_eos_list_counts_landmarks_from_one(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("[landmark_mappings]\n31 = 114\n")
    assert read_eos_list(tmp_path / "list.txt") == {"30": 114}


@pytest.mark.parametrize("name", ["model.bin", "model.mat", "model.h5", "model.pkl"])
def test_a_file_is_known_by_its_content_not_its_name(name: str, face: Known, tmp_path: Path) -> None:
    writers.write_lyhm(tmp_path / "lyhm.mat", face)
    renamed = (tmp_path / "lyhm.mat").rename(tmp_path / name)
    assert load_model(renamed).name == "lyhm"


def test_a_wrong_unit_is_refused(face: Known, tmp_path: Path) -> None:
    from dataclasses import replace

    writers.write_deep3d(tmp_path / "m.mat", replace(face, mean=face.mean * 10))
    with pytest.raises(ModelFileError, match="another unit"):
        load_model(tmp_path / "m.mat")


def test_a_mesh_wound_inwards_is_refused(face: Known, tmp_path: Path) -> None:
    from dataclasses import replace

    writers.write_lyhm(tmp_path / "m.mat", replace(face, triangles=face.triangles[:, [0, 2, 1]]))
    with pytest.raises(ModelFileError, match="look inwards"):
        load_model(tmp_path / "m.mat")


def test_an_external_link_is_refused(face: Known, tmp_path: Path) -> None:
    writers.write_bfm17(tmp_path / "real.h5", face)
    writers.write_bfm17(tmp_path / "linked.h5", face)
    with h5py.File(tmp_path / "linked.h5", "a") as file:
        del file["shape/model/mean"]
        file["shape/model/mean"] = h5py.ExternalLink("real.h5", "/shape/model/mean")
    with pytest.raises(ModelFileError, match="link to another place"):
        load_model(tmp_path / "linked.h5")
