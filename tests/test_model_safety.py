"""A face-model file can be damaged, hostile or something else: the answer is always a `ModelFileError`."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import model_writers as writers
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_writers import Call, Known, known
from toy import toy_model

from facefit.errors import ModelFileError
from facefit.models import bfm09, flame, load_model, npy_file, obj_text, surrey
from facefit.models.pack import save_model
from facefit.models.safe_pickle import UnsafePickle, parse

# How many mutations each parser is tried on here; set higher for a long run.
EXAMPLES = int(os.environ.get("FACEFIT_FUZZ_EXAMPLES", "25"))

WRITERS: dict[str, Callable[[Path, Known], None]] = {
    "surrey1.bin": lambda path, face: writers.write_surrey(path, face, 1),
    "surrey4.bin": lambda path, face: writers.write_surrey(path, face, 4, colour=True),
    "bfm09.mat": writers.write_bfm09,
    "packed.mat": lambda path, face: writers.write_bfm09(path, face, compressed=True),
    "deep3d.mat": writers.write_deep3d,
    "lyhm.mat": writers.write_lyhm,
    "bfm17.h5": writers.write_bfm17,
    "flame.pkl": writers.write_flame,
    "own.safetensors": lambda path, face: save_model(toy_model().truncated(2, 1), path, compact=True),
}


MODELS_WITH_COMPANIONS = ("flame.pkl", "surrey1.bin", "bfm09.mat", "lyhm.mat")
# Valid file: the name under which a loader looks for it.
COMPANIONS = {
    "embedding.npy": "landmark_embedding.npy",
    "texture.npz": "FLAME_texture.npz",
    "template.obj": "head_template.obj",
    "blendshapes.bin": "expression_blendshapes_3448.bin",
    "list.txt": "ibug_to_sfm.txt",
    "Exp_Pca.bin": "Exp_Pca.bin",
    "std_exp.txt": "std_exp.txt",
    "BFM_exp_idx.mat": "BFM_exp_idx.mat",
    "map.toml": "lyhm.landmarks.toml",
    "albedo.h5": "albedo.h5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One valid file of every format, and FLAME's companions under names of their own."""
    where = tmp_path_factory.mktemp("valid")
    face = known(stride=2)
    for name, write in WRITERS.items():
        write(where / name, face)
    writers.write_flame_embedding(where / "embedding.npy", toy_model())
    writers.write_flame_texture(where / "texture.npz", face)
    (where / "blendshapes.bin").write_bytes(writers.blendshapes(face))
    (where / "template.obj").write_bytes(writers.obj(face))
    (where / "map.toml").write_text("[landmarks]\n30 = 12\n8 = [3, 0.2, 0.3, 0.5]  # the chin\n")
    (where / "list.txt").write_text("[landmark_mappings]\n31 = 12\n37 = 14\n")
    writers.write_bfm09_expressions(where, face, np.arange(3, face.vertices))
    writers.write_albedo_mm(where / "albedo.h5", face)
    (where / "model.h5").write_bytes((where / "bfm17.h5").read_bytes())
    return where


def loads_or_refuses(path: Path) -> bool:
    """True when it loads; anything but a `ModelFileError` passes through and fails the test."""
    try:
        load_model(path)
    except ModelFileError as error:
        assert error.exit_code == 5 and str(error)
        return False
    return True


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    data = (folder / name).read_bytes()
    assert loads_or_refuses(folder / name)
    cuts = {*range(0, 200, 13), *np.linspace(200, len(data) - 1, 25).astype(int).tolist(), len(data) - 1}
    for cut in sorted(cuts):
        (tmp_path / name).write_bytes(data[:cut])
        # A MATLAB file may end in padding, and a dictionary of variables may simply be shorter.
        assert not loads_or_refuses(tmp_path / name) or cut >= len(data) - 8, f"cut at {cut} of {len(data)}"


@pytest.mark.parametrize("name", ["surrey1.bin", "surrey4.bin", "deep3d.mat"])
def test_bytes_after_the_model_are_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes((folder / name).read_bytes() + b"\1\2\3\4\5")
    assert not loads_or_refuses(tmp_path / name)


@pytest.mark.parametrize("name", WRITERS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_file_loads_or_is_refused(
    name: str, data: st.DataObject, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(mutated((folder / name).read_bytes(), data))
    loads_or_refuses(tmp_path / name)


@settings(
    max_examples=EXAMPLES // 3,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_companion_loads_or_is_refused(data: st.DataObject, folder: Path, tmp_path: Path) -> None:
    """What lies beside a model: FLAME's landmarks, texture and template, eos's shapes, Basel's expressions,
    maps.
    """
    for name in (*MODELS_WITH_COMPANIONS, "model.h5"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for source, target in COMPANIONS.items():
        (tmp_path / target).write_bytes(mutated((folder / source).read_bytes(), data))
    for name in (*MODELS_WITH_COMPANIONS, "albedo.h5"):
        loads_or_refuses(tmp_path / name)


@settings(
    max_examples=4 * EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_mutated_obj_is_read_or_refused(data: st.DataObject, folder: Path, tmp_path: Path) -> None:
    """ICT-FaceKit's text."""
    path = tmp_path / "mesh.obj"
    path.write_bytes(mutated((folder / "template.obj").read_bytes(), data))
    try:
        lines = obj_text.read_lines(path)
        vertices, faces = obj_text.rows(path, lines, b"v", 3), obj_text.polygons(path, lines)
        assert np.isfinite(vertices).all() and faces.vertex.shape == faces.uv.shape
    except ModelFileError:
        return


def mutated(data: bytes, draw: st.DataObject) -> bytes:
    """A few bytes changed, mostly in the headers where sizes and types stand; sometimes a piece cut out or
    doubled.
    """
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        if not changed:
            break
        reach = draw.draw(st.sampled_from([64, 512, 4096, len(changed)]))
        at = draw.draw(st.integers(0, max(0, min(reach, len(changed)) - 1)))
        match draw.draw(st.integers(0, 4)):
            case 0 | 1:
                changed[at] = draw.draw(st.integers(0, 255))
            case 2:
                word = draw.draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1]))
                changed[at : at + 8] = struct.pack("<Q", word)
            case 3:
                del changed[at : at + draw.draw(st.integers(1, 64))]
            case 4:
                changed[at:at] = changed[at : at + draw.draw(st.integers(1, 64))]
    return bytes(changed)


@settings(max_examples=4 * EXAMPLES, deadline=None, database=None)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_pickle_read_as_data_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except UnsafePickle:
        return


# -- pickles that want to run something
# ---------------------------------------------------------------------------


class Executes:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_tries_to_execute_runs_nothing(protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "it_ran"
    path = tmp_path / "flame.pkl"
    path.write_bytes(pickle.dumps({"v_template": Executes(os.system, f"touch {witness}")}, protocol))
    assert not loads_or_refuses(path)
    with pytest.raises(UnsafePickle, match="system"):
        parse(path.read_bytes())
    assert not witness.exists()


@pytest.mark.parametrize(
    "name", ["posix.system", "builtins.eval", "__builtin__.getattr", "numpy.load", "os.execv"]
)
def test_names_outside_the_list_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "flame.pkl"
    path.write_bytes(writers.python2_pickle({"v_template": Call(name, ("echo",)), "shapedirs": None}))
    with pytest.raises(ModelFileError, match=name):
        load_model(path)


def test_even_allowed_names_are_not_called(tmp_path: Path) -> None:
    """`_reconstruct` with a terabyte's shape would allocate it if it were numpy's."""
    from facefit.models.safe_pickle import Record

    huge = Call("numpy.core.multiarray._reconstruct", ((2**40,), "d"))
    value = parse(writers.python2_pickle({"v_template": huge}))
    assert isinstance(value["v_template"], Record)


def test_a_hostile_tensor_inside_an_embedding_runs_nothing(folder: Path, tmp_path: Path) -> None:
    """The nested torch file is a second place where a pickle could hide."""
    witness = tmp_path / "it_ran"
    inner = pickle.dumps(Executes(os.system, f"touch {witness}"), 2)
    tensor = Call(
        "torch._utils._rebuild_tensor_v2", (Call("torch.storage._load_from_bytes", (inner,)), 0, (1,), (1,))
    )
    with pytest.raises(UnsafePickle, match="system"):
        from facefit.models.pickle_arrays import array

        array(parse(writers.python2_pickle(tensor)))
    assert not witness.exists()


def test_arrays_of_chumpy_scipy_and_torch_are_read_as_numbers() -> None:
    """A selection, a sparse matrix, a transposed array and big-endian numbers, each against what it stands for."""
    from facefit.models.pickle_arrays import array

    numbers = np.arange(12.0).reshape(3, 4)
    chosen = writers.Selection(writers.Chumpy(numbers), np.array([11, 0, 5, 7]), (2, 2))
    np.testing.assert_array_equal(array(parse(writers.python2_pickle(chosen))), [[11, 0], [5, 7]])
    sparse = scipy.sparse.random(5, 40, 0.2, "csc", rng=np.random.default_rng(0))
    np.testing.assert_array_equal(array(parse(writers.python2_pickle(sparse))), sparse.toarray())
    for value in (numbers.T, numbers.astype(">f4"), np.arange(6, dtype=np.uint32), torch.from_numpy(numbers)):
        for protocol in (2, 3, 4, 5):
            np.testing.assert_array_equal(array(parse(pickle.dumps(value, protocol))), value)
    beyond = writers.Selection(writers.Chumpy(numbers), np.array([12]), (1,))
    with pytest.raises(UnsafePickle, match="does not fit"):
        array(parse(writers.python2_pickle(beyond)))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "nothing/here"])
def test_a_name_no_file_can_have_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(ModelFileError):
        load_model(name)


# -- sizes, numbers, shapes
# ----------------------------------------------------------------------------------------


def test_a_cereal_file_that_claims_terabytes_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(
        struct.pack("<Iii", 1, 3 * 2**20, 1) + b"\0" * (12 * 2**20) + struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    )
    with pytest.raises(ModelFileError, match="are left"):
        load_model(tmp_path / "m.bin")


def test_a_compressed_variable_that_would_explode_is_refused(tmp_path: Path, folder: Path) -> None:
    """4 GB of zeros claimed by a kilobyte: the size inside is compared with what deflate can do."""
    head = (folder / "bfm09.mat").read_bytes()[:128]
    matrix = b"\6\0\0\0\10\0\0\0" + struct.pack("<II", 6, 0) + struct.pack("<IIii", 5, 8, 2**29, 1)
    matrix += struct.pack("<II", 1, 7) + b"shapeMU\0" + struct.pack("<II", 9, 2**32 - 9)
    body = zlib.compress(struct.pack("<II", 14, 2**32 - 1) + matrix + b"\0" * 4096)
    (tmp_path / "m.mat").write_bytes(head + struct.pack("<II", 15, len(body)) + body)
    with pytest.raises(ModelFileError, match="cannot hold|no variables"):
        load_model(tmp_path / "m.mat")


def test_a_dataset_that_stores_less_than_it_claims_is_refused(folder: Path, tmp_path: Path) -> None:
    """HDF5 never wrote the chunks of an empty dataset, but says it has 8 TB of zeros."""
    path = tmp_path / "m.h5"
    path.write_bytes((folder / "bfm17.h5").read_bytes())
    with h5py.File(path, "a") as file:
        del file["shape/model/mean"]
        file.create_dataset("shape/model/mean", shape=(2**40,), dtype="f8", chunks=(2**20,))
    with pytest.raises(ModelFileError, match="stored"):
        load_model(path)


def test_a_dataset_stored_in_another_file_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes((folder / "bfm17.h5").read_bytes())
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 4096)
    with h5py.File(path, "a") as file:
        del file["shape/model/mean"]
        file.create_dataset("shape/model/mean", shape=(300,), dtype="f4", external=[(str(secret), 0, 1200)])
    with pytest.raises(ModelFileError, match="another file"):
        load_model(path)


def test_an_npz_that_would_explode_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", b"\0" * (1 << 20))
    data = bytearray(buffer.getvalue())
    # The central directory's claim of the inflated size.
    at = data.rfind(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(ModelFileError, match="claims"):
        npy_file.read_npz(tmp_path / "t.npz", frozenset(("mean",)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_numbers_that_are_none_are_refused(bad: float, tmp_path: Path) -> None:
    face = known(stride=2)
    mean = face.mean.copy()
    mean[3, 1] = bad
    for name, write in (("m.bin", lambda p, f: writers.write_surrey(p, f, 1)), ("m.h5", writers.write_bfm17),
                        ("m.mat", writers.write_lyhm), ("m.pkl", writers.write_flame)):  # fmt: skip
        write(tmp_path / name, replace(face, mean=mean))
        with pytest.raises(ModelFileError):
            load_model(tmp_path / name)


def test_indices_beyond_the_mesh_are_refused(tmp_path: Path) -> None:
    face = known()
    wrong = face.triangles.copy()
    wrong[0, 0] = face.vertices
    for name, write in (("m.bin", lambda p, f: writers.write_surrey(p, f, 1)), ("m.h5", writers.write_bfm17),
                        ("m.mat", writers.write_lyhm), ("m.pkl", writers.write_flame)):  # fmt: skip
        write(tmp_path / name, replace(face, triangles=wrong))
        with pytest.raises(ModelFileError):
            load_model(tmp_path / name)


def test_wrong_shapes_say_what_was_expected(tmp_path: Path) -> None:
    fields = writers.flame_fields(known())
    fields["shapedirs"] = np.zeros((10, 3, 4))
    (tmp_path / "flame.pkl").write_bytes(writers.python2_pickle(fields))
    with pytest.raises(
        ModelFileError, match=r"'shapedirs' has shape \(10, 3, 4\), a FLAME model has \(961, 3, n\)"
    ):
        load_model(tmp_path / "flame.pkl")


def test_a_basis_that_is_neither_unit_nor_scaled_is_refused(tmp_path: Path) -> None:
    writers.write_bfm17(tmp_path / "m.h5", replace(known(), basis=known().basis * 3.7))
    with pytest.raises(ModelFileError, match="neither of length 1"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty", b""),
        ("photo.jpg", b"\xff\xd8\xff\xe0" + bytes(100)),
        ("text.obj", b"v 0 0 0\n"),
        ("other.mat", None),
        ("other.pkl", pickle.dumps([1, 2, 3], 2)),
        ("t.npz", b"PK\3\4" + bytes(60)),
    ],
)
def test_other_files_are_named_for_what_they_are_not(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is None:
        scipy.io.savemat(path, {"holiday": np.zeros(3)})
    else:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=name):
        load_model(path)


def test_a_missing_model_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="facefit models"):
        load_model(tmp_path / "nothing.bin")
    with pytest.raises(ModelFileError, match="generic_neutral_mesh"):
        load_model(tmp_path)


def test_companions_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    face = known()
    writers.write_bfm09(tmp_path / "01_MorphableModel.mat", face)
    writers.write_bfm09_expressions(tmp_path, face, np.arange(900))
    (tmp_path / "std_exp.txt").write_text("1.0 2.0 3.0")
    with pytest.raises(ModelFileError, match="3 standard deviations"):
        bfm09.load(tmp_path / "01_MorphableModel.mat")
    data = (tmp_path / "Exp_Pca.bin").read_bytes()
    (tmp_path / "Exp_Pca.bin").write_bytes(data + b"\0")
    with pytest.raises(ModelFileError, match="1 bytes follow"):
        bfm09.load(tmp_path / "01_MorphableModel.mat")


def test_loaders_agree_on_what_they_are_given(folder: Path) -> None:
    assert surrey.looks_like(folder / "surrey1.bin", (folder / "surrey1.bin").read_bytes()[:512])
    assert flame.looks_like((folder / "flame.pkl").read_bytes()[:512])
