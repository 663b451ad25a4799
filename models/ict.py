"""ICT-FaceKit light: 100 identity modes and 53 named expressions, MIT licence; the recommended downloaded
model.

As published it is a folder `FaceXModel` of 405 MB of OBJ text. That is read once and kept in the user's cache
as one facefit file of the whole mesh (26 MB, see `pack`); the fit uses face, head, neck and the outer
eyeballs of it.

The published identity modes are already in standard deviations and not orthogonal on the face alone; some
contain a small rigid motion, which the pose absorbs. The files hold no albedo: see `albedo_prior`. Their shapes
of the gaze move the lids; here they turn the eyeballs as well: see `eye_turns`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models import obj_text
from facefit.models.albedo_prior import with_albedo_prior
from facefit.models.cache import cache_folder
from facefit.models.eye_turns import turn_eyes
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource, Topology
from facefit.models.landmark_map import landmarks_from_table, packaged
from facefit.models.pack import load_pack, save_model
from facefit.models.regions import plan, standard_regions
from facefit.models.symmetry import mirror_pairs

FACTS = packaged("ict.toml")
NEUTRAL = "generic_neutral_mesh.obj"
INSTALL_HINT = (
    "run `facefit models install ict`, or set FACEFIT_ICT to the folder FaceXModel of a clone of "
    "github.com/ICT-VGL/ICT-FaceKit"
)
# One standard deviation of an expression, as activation of the published shape (0 = neutral, 1 = full).
# Activations live in [0, 1] and most shapes of a photograph are near 0; at 0.3 a full smile is a 3.3-sigma
# event for one shape, which fifty landmarks outvote, while noise on one landmark does not open a mouth.
ACTIVATION_PER_SIGMA = 0.3

FIT_PARTS = ("face", "head_and_neck", "sclera_left", "sclera_right")


def load(path: Path | None = None, *, whole: bool = False) -> LinearFaceModel:
    """The model from a folder of OBJ files, from a converted file, or (None) from where it is installed.

    `whole` gives all 26 719 vertices with mouth, teeth, iris balls and lashes, for export; vertex order as
    published.
    """
    path = installed_path() if path is None else path
    pack = converted(path) if path.is_dir() else path
    model = load_pack(pack, region=None if whole else "fit")
    expected = FACTS["vertices"] if whole else len(_part_vertices(FIT_PARTS))
    if model.n_vertices != expected:
        raise ModelFileError(
            f"{pack}: has {model.n_vertices} vertices, ICT-FaceKit has {expected}; "
            f"delete it and {INSTALL_HINT}"
        )
    return with_albedo_prior(turn_eyes(model))


def installed_path() -> Path:
    """FACEFIT_ICT, or the converted file in the cache."""
    if chosen := os.environ.get("FACEFIT_ICT"):
        path = Path(chosen)
        if not path.exists():
            raise ModelFileError(f"FACEFIT_ICT is {chosen!r}, which does not exist; {INSTALL_HINT}")
        return path
    path = cache_folder() / "ict.safetensors"
    if not path.exists():
        raise ModelFileError(f"the model 'ict' is not installed; {INSTALL_HINT}")
    return path


def is_folder(path: Path) -> bool:
    """Is this FaceXModel, or the clone that holds it?"""
    return (path / NEUTRAL).is_file() or (path / "FaceXModel" / NEUTRAL).is_file()


def converted(folder: Path) -> Path:
    """The facefit file of this folder's content, made on first use."""
    folder = _model_folder(folder)
    state = hashlib.sha256()
    for file in _files(folder):
        if not file.is_file():
            raise ModelFileError(f"{folder}: {file.name} is missing; {INSTALL_HINT}")
        status = file.stat()
        state.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    pack = cache_folder() / f"ict-{state.hexdigest()[:16]}.safetensors"
    if not pack.exists():
        save_model(read_folder(folder), pack, compact=True)
    return pack


def read_folder(folder: Path) -> LinearFaceModel:
    """The whole mesh from the published OBJ files, in millimetres."""
    folder = _model_folder(folder)
    digest = hashlib.sha256()
    neutral_path = folder / NEUTRAL
    lines = obj_text.read_lines(neutral_path)
    mean = _vertices(neutral_path, lines)
    polygons = obj_text.polygons(neutral_path, lines)
    uv = obj_text.rows(neutral_path, lines, b"vt", 2)
    _check_counts(neutral_path, polygons, len(uv))
    deltas = []
    for path in _files(folder)[1:]:
        text = obj_text.read_lines(path)
        deltas.append((_vertices(path, text) - mean).astype(np.float32))
    for path in _files(folder):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    basis = torch.from_numpy(np.stack(deltas))
    identities = FACTS["identity_modes"]
    names = tuple(FACTS["expressions"])
    unit = torch.full((len(names),), ACTIVATION_PER_SIGMA)
    triangles, uv_triangles = obj_text.triangulate(polygons, mean)
    landmarks = landmarks_from_table(FACTS["landmarks"], triangles, len(mean), "ict.toml")
    return LinearFaceModel(
        source=ModelSource(
            FACTS["name"], FACTS["licence"], FACTS["licence_class"], FACTS["citation"], digest.hexdigest()
        ),
        topology=Topology(
            triangles=triangles,
            landmarks=landmarks,
            uv=uv.astype(np.float32),
            uv_triangles=uv_triangles,
            mirror=mirror_pairs(mean),
            regions=_regions(mean, triangles, landmarks, deltas[identities:]),
        ),
        mean=torch.from_numpy(mean.astype(np.float32)),
        identity_basis=basis[:identities],
        expression_basis=basis[identities:] * unit[:, None, None],
        albedo_mean=torch.full((len(mean), 3), 0.5),
        albedo_basis=torch.zeros(0, len(mean), 3),
        expression_names=names,
        expression_unit=unit,
    )


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "FaceXModel"):
        if (candidate / NEUTRAL).is_file():
            return candidate
    raise ModelFileError(f"{folder}: is no ICT-FaceKit folder, it has no {NEUTRAL}; {INSTALL_HINT}")


def _files(folder: Path) -> list[Path]:
    """Neutral, identities, expressions: the order of the modes."""
    identities = [f"identity{k:03d}.obj" for k in range(FACTS["identity_modes"])]
    return [folder / name for name in (NEUTRAL, *identities, *(f"{e}.obj" for e in FACTS["expressions"]))]


def _vertices(path: Path, lines: list[bytes]) -> Float[np.ndarray, "vertices 3"]:
    vertices = obj_text.rows(path, lines, b"v", 3)
    if len(vertices) != FACTS["vertices"]:
        raise ModelFileError(f"{path}: has {len(vertices)} vertices, ICT-FaceKit has {FACTS['vertices']}")
    return np.asarray(vertices * FACTS["mm_per_unit"])


def _check_counts(path: Path, polygons: obj_text.Polygons, uvs: int) -> None:
    if len(polygons.vertex) != FACTS["polygons"] or uvs != FACTS["uvs"]:
        raise ModelFileError(
            f"{path}: has {len(polygons.vertex)} polygons and {uvs} texture coordinates, ICT-FaceKit has "
            f"{FACTS['polygons']} and {FACTS['uvs']}"
        )
    if polygons.vertex.max() >= FACTS["vertices"] or polygons.uv.max() >= uvs:
        raise ModelFileError(f"{path}: a polygon names a vertex or texture coordinate that is not there")


def _regions(
    mean: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    landmarks: Landmarks,
    expressions: list[Float[np.ndarray, "vertices 3"]],
) -> dict[str, Int[np.ndarray, "n"]]:
    view = plan(mean, triangles, landmarks)
    assert view is not None
    skin = _part_vertices(("face", "head_and_neck"))
    eyes = [_part_vertices((name,)) for name in ("sclera_right", "sclera_left")]
    found = standard_regions(view, np.stack(expressions), face=_part_vertices(("narrow_face",)))
    on_skin = {name: np.intersect1d(members, skin) for name, members in found.items()}
    parts = {name: _part_vertices((name,)) for name in FACTS["parts"] if name not in ("face", "narrow_face")}
    return (
        parts
        | on_skin
        | {
            "full_face": _part_vertices(("face",)),
            "fit": _part_vertices(FIT_PARTS),
            "skin": skin,
            "right_eyeball": eyes[0],
            "left_eyeball": eyes[1],
            "eyeballs": np.concatenate(eyes),
            "jawline": np.array(FACTS["jawline"]["right"] + FACTS["jawline"]["left"][::-1]),
        }
    )


def _part_vertices(names: tuple[str, ...]) -> Int[np.ndarray, "n"]:
    """The vertices of the named parts; ranges in the facts include their end."""
    ranges = [FACTS["parts"][name] for name in names]
    return np.concatenate([np.arange(first, last + 1) for first, last in ranges])
