"""Models by name, installing ICT from an archive, converting, and the command line around them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model_writers import known, write_lyhm, write_surrey
from toy import toy_model

from facefit.cli import main
from facefit.errors import ModelFileError
from facefit.models import build, ict, install, load_model, obj_text, registry
from facefit.models.pack import load_pack


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the user's is seen or touched."""
    monkeypatch.setenv("FACEFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FACEFIT_ICT", raising=False)
    monkeypatch.delenv("FACEFIT_MODELS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def small_ict(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """ICT's folder in small: the toy face in centimetres, two identities, two expressions, quads."""
    face = known()
    side = int(round(face.vertices**0.5))
    a = np.arange(face.vertices).reshape(side, side)[:-1, :-1].ravel()
    quads = np.stack([a, a + side, a + side + 1, a + 1], axis=1)

    def text(vertices: np.ndarray) -> bytes:
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices / 10.0]
        lines += [f"vt {x / 200 + 0.5:.5f} {y / 300 + 0.5:.5f}" for x, y, _ in vertices]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in quad) for quad in quads]
        return "\n".join(lines).encode()

    shifts = {
        "identity000.obj": [1.0, 0, 0],
        "identity001.obj": [0, 2.0, 0],
        "jawOpen.obj": [0, -3.0, 0],
        "smile_L.obj": [0, 0, 4.0],
    }
    part = [0, face.vertices - 1]
    facts = {
        **ict.FACTS,
        "vertices": face.vertices,
        "uvs": face.vertices,
        "polygons": len(quads),
        "identity_modes": 2,
        "expressions": ["jawOpen", "smile_L"],
        "parts": {
            name: part for name in ("narrow_face", "face", "head_and_neck", "sclera_left", "sclera_right")
        },
        "landmarks": {str(n): int(v) for n, v in enumerate(face.landmark_vertices)},
        "jawline": {"right": [0], "left": [1]},
    }
    monkeypatch.setattr(ict, "FACTS", facts)
    monkeypatch.setattr(ict, "FIT_PARTS", ("face",))
    files = {name: text(face.mean + shift) for name, shift in shifts.items()}
    return {"generic_neutral_mesh.obj": text(face.mean), **files}


@pytest.fixture
def listed(small_ict: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The same, with its checksums as the ones to check against."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in small_ict.items()}
    monkeypatch.setattr(install, "packaged", lambda name: {"base": "http://127.0.0.1:9/", "sha256": sums})
    return small_ict


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "FaceXModel").mkdir(parents=True)
    for name, data in files.items():
        (folder / "FaceXModel" / name).write_bytes(data)
    return folder


def test_an_ict_folder_comes_back_in_mm_with_its_modes(small_ict: dict[str, bytes], tmp_path: Path) -> None:
    """Centimetres to millimetres, modes as published, expressions per 0.3 activation."""
    folder = write_folder(tmp_path / "clone", small_ict)
    model = load_model(folder)
    np.testing.assert_allclose(model.mean.numpy(), known().mean, atol=2e-5)
    torch.testing.assert_close(
        model.identity_basis[1], torch.tensor([[0, 2.0, 0]]).expand(961, 3), atol=2e-3, rtol=0
    )
    full = model.vertices(torch.zeros(0), torch.tensor([1 / 0.3, 0.0])) - model.mean
    torch.testing.assert_close(full, torch.tensor([[0, -3.0, 0]]).expand(961, 3), atol=2e-3, rtol=0)
    assert model.expression_names == ("jawOpen", "smile_L")


def test_an_ict_folder_is_converted_once(
    small_ict: dict[str, bytes], tmp_path: Path, own_cache: Path
) -> None:
    folder = write_folder(tmp_path / "clone", small_ict)
    first = load_model(folder)
    packs = list(own_cache.iterdir())
    assert len(packs) == 1
    written = packs[0].stat().st_mtime_ns
    again = load_model(folder / "FaceXModel")
    assert packs[0].stat().st_mtime_ns == written and list(own_cache.iterdir()) == packs
    torch.testing.assert_close(again.mean, first.mean, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_is_an_error_of_ours(
    small_ict: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACEFIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match="FACEFIT_CACHE"):
        load_model(write_folder(tmp_path / "clone", small_ict))


def test_a_damaged_ict_folder_is_refused(
    small_ict: dict[str, bytes], tmp_path: Path, own_cache: Path
) -> None:
    folder = write_folder(tmp_path / "clone", small_ict)
    for name, content, said in (
        ("identity001.obj", small_ict["identity001.obj"][:500], "vertices|numbers"),
        ("identity001.obj", b"v 1 2 three\n" * 961, "no number"),
        ("jawOpen.obj", b"v nan 0 0\n" * 961, "NaN"),
        (
            "generic_neutral_mesh.obj",
            small_ict["generic_neutral_mesh.obj"].replace(b"f 1/1", b"f 1/99999", 1),
            "not there",
        ),
        (
            "generic_neutral_mesh.obj",
            small_ict["generic_neutral_mesh.obj"].replace(b"f 1/1", b"f 0/0", 1),
            "counted from 1",
        ),
    ):
        write_folder(tmp_path / "x", small_ict | {name: content})
        with pytest.raises(ModelFileError, match=said):
            load_model(tmp_path / "x")
        assert not own_cache.exists() or not list(own_cache.iterdir()), "no half-made file is left behind"
        import shutil

        shutil.rmtree(tmp_path / "x")
    (folder / "FaceXModel" / "jawOpen.obj").unlink()
    with pytest.raises(ModelFileError, match="jawOpen.obj is missing"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["tar.xz", "tar.gz", "zip", "folder"])
def test_ict_installs_from_what_is_at_hand(kind: str, listed: dict[str, bytes], tmp_path: Path) -> None:
    source = archive(tmp_path, kind, listed)
    seen: list[int] = []
    path = install.install_ict(source, lambda done, total, file: seen.append(done))
    assert seen == [1, 2, 3, 4, 5] and path == ict.installed_path()
    assert load_model("ict").n_vertices == 961


def archive(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = folder / f"ict.{kind}"
    if kind == "folder":
        return write_folder(path, files)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in files.items():
                zipped.writestr(f"ICT-FaceKit-master/FaceXModel/{name}", data)
        return path
    with tarfile.open(path, f"w:{kind[4:]}") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(f"../../FaceXModel/{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return path


def test_an_archive_that_was_tampered_with_is_refused(listed: dict[str, bytes], tmp_path: Path) -> None:
    wrong = listed | {"jawOpen.obj": listed["jawOpen.obj"] + b"\n"}
    with pytest.raises(ModelFileError, match="jawOpen.obj differs"):
        install.install_ict(archive(tmp_path, "tar.xz", wrong))
    with pytest.raises(ModelFileError, match="lacks 1 of 5"):
        install.install_ict(archive(tmp_path, "zip", {k: v for k, v in listed.items() if k != "jawOpen.obj"}))
    whole = archive(tmp_path, "tar.gz", listed)
    for cut in np.linspace(0, 0.95 * whole.stat().st_size, 12).astype(int):
        (tmp_path / "cut").write_bytes(whole.read_bytes()[:cut])
        with pytest.raises(ModelFileError):
            install.install_ict(tmp_path / "cut")


def test_a_download_continues_where_it_stopped(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    ranges: list[str | None] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ranges.append(self.headers["Range"])
            start = int(self.headers["Range"][6:-1]) if self.headers["Range"] else 0
            self.send_response(206 if start else 200)
            # The first answer promises everything and breaks off.
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:] if start else content[:80_000])

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/file.obj"
        digest = hashlib.sha256(content).hexdigest()
        with pytest.raises(ModelFileError, match="to continue"):
            install.download(url, tmp_path / "file.obj", digest)
        install.download(url, tmp_path / "file.obj", digest)
        assert ranges == [None, "bytes=80000-"]
        assert (tmp_path / "file.obj").read_bytes() == content
        (tmp_path / "other.obj.part").write_bytes(b"x" * 1000)
        with pytest.raises(ModelFileError, match="not the published file"):
            install.download(url, tmp_path / "other.obj", digest)
        assert not (tmp_path / "other.obj.part").exists()
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_network_the_message_says_what_to_do(listed: dict[str, bytes]) -> None:
    with pytest.raises(ModelFileError, match="--from FILE"):
        install.install_ict()


def test_a_licensed_model_is_found_by_name_in_the_models_folder(own_cache: Path) -> None:
    with pytest.raises(ModelFileError, match="eos"):
        load_model("surrey")
    (own_cache / "models").mkdir(parents=True)
    write_surrey(own_cache / "models" / "sfm_shape_3448.bin", known())
    assert load_model("surrey").name == "surrey"
    assert {entry.name for entry in registry.entries() if entry.installed} == {"builtin", "surrey"}


def test_a_models_table_row_names_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["models", "--json"])
    rows = {row["name"]: row for row in json.loads(result.output)}
    assert rows["builtin"]["installed"] and not rows["ict"]["installed"]
    assert rows["ict"]["get"] == "facefit models install ict"
    assert {row["licence_class"] for row in rows.values()} == {"free", "non-commercial", "academic"}
    assert all(name in CliRunner().invoke(main, ["models"]).output for name in rows)


def test_convert_and_info_on_the_command_line(tmp_path: Path) -> None:
    write_lyhm(tmp_path / "lyhm.mat", known())
    result = CliRunner().invoke(main, ["models", "convert", str(tmp_path / "lyhm.mat")])
    assert result.exit_code == 0, result.output
    converted = load_pack(tmp_path / "lyhm.safetensors")
    original = load_model(tmp_path / "lyhm.mat")
    torch.testing.assert_close(converted.identity_basis, original.identity_basis, atol=1e-3, rtol=0)
    assert converted.source == original.source, "the licence and the original's sha256 stay with it"
    shown = CliRunner().invoke(main, ["models", "info", str(tmp_path / "lyhm.safetensors")]).output
    assert "961" in shown and "academic" in shown and original.source.sha256 in shown
    again = CliRunner().invoke(main, ["models", "convert", str(tmp_path / "lyhm.safetensors")])
    assert again.exit_code == 5 and "already" in again.stderr


def test_errors_end_with_exit_code_5(tmp_path: Path) -> None:
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    for arguments in (["info", "nothing"], ["convert", str(tmp_path / "broken.h5")], ["info", "ict"]):
        result = CliRunner().invoke(main, ["models", *arguments])
        assert result.exit_code == 5 and "Traceback" not in result.output + result.stderr


# -- a model of one's own
# ------------------------------------------------------------------------------------------


def test_a_model_built_from_samples_of_a_model_spans_them() -> None:
    """However the samples are turned and shifted: every one is a member of the new model to 0.01 mm."""
    toy = toy_model()
    rng = np.random.default_rng(3)
    people, placed = [], []
    for k in range(8):
        shape = toy.vertices(
            torch.tensor(rng.normal(size=toy.n_identity), dtype=torch.float32), torch.zeros(0)
        )
        people.append(shape.double().numpy())
        angle = 0.0 if k == 0 else rng.normal(0, 0.3)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        placed.append(people[-1] @ turn.T + (0 if k == 0 else rng.normal(0, 20, 3)))
    model = build(placed, toy.topology, expressions=toy, variance=1.0)
    assert model.n_identity <= 7 and model.n_expression == toy.n_expression and model.n_albedo > 20
    from facefit.models.build_model import rigidly_onto

    basis = model.identity_basis.flatten(1).double().numpy()
    mean = model.mean.double().numpy()
    for person in people:
        offset = (rigidly_onto(person, mean) - mean).ravel()
        coefficients = np.linalg.lstsq(basis.T, offset, rcond=None)[0]
        assert np.abs(basis.T @ coefficients - offset).max() < 0.05
    gram = basis @ basis.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3 * gram.max())


def test_a_built_model_is_saved_and_loaded_like_any_other(tmp_path: Path) -> None:
    from facefit.models.pack import save_model

    toy = toy_model()
    faces = [(toy.mean + step * toy.identity_basis[0]).numpy() for step in (-1.0, 0.0, 1.0)]
    reds = [np.full((toy.n_vertices, 3), level) for level in (0.2, 0.4, 0.6)]
    model = build(faces, toy.topology, colours=reds, name="mine")
    save_model(model, tmp_path / "mine.safetensors")
    loaded = load_model(tmp_path / "mine.safetensors")
    assert loaded.name == "mine" and loaded.n_albedo == 1
    np.testing.assert_allclose(loaded.albedo_mean.numpy(), 0.4, atol=1e-6)
    np.testing.assert_allclose(loaded.albedo_basis[0].abs().numpy(), 0.2, atol=1e-6)


def test_meshes_of_different_topology_are_refused() -> None:
    with pytest.raises(ModelFileError, match="register them"):
        build([np.zeros((4, 3)), np.zeros((5, 3))], toy_model().topology)
    with pytest.raises(ModelFileError, match="at least 2"):
        build([toy_model().mean.numpy()], toy_model().topology)


def test_quads_split_along_their_shorter_diagonal() -> None:
    flat = np.array([[0, 0, 0], [3.0, 0, 0], [4, 1, 0], [1, 1, 0]])
    corners = np.full((1, 8), -1)
    corners[0, :4] = range(4)
    triangles, _ = obj_text.triangulate(obj_text.Polygons(corners, corners), flat)
    assert {frozenset(t) for t in triangles.tolist()} == {frozenset((0, 1, 3)), frozenset((1, 2, 3))}
