"""Which loader reads a file: decided by its first bytes and its contents, never by its name alone.

Loaders are imported where they are needed: h5py and parts of scipy take longer to import than a model to load.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from facefit.errors import ModelFileError
from facefit.models import registry
from facefit.models.face_model import LinearFaceModel

HEAD_BYTES = 512
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def load(name_or_path: str | Path) -> LinearFaceModel:
    # A damaged file may hold any number; the arithmetic on it is let through and `assemble` refuses the result.
    with np.errstate(all="ignore"):
        try:
            return _load(name_or_path)
        except MemoryError as error:
            raise ModelFileError(f"{name_or_path}: needs more memory than this machine has") from error
        except OSError as error:
            raise ModelFileError(f"{name_or_path}: cannot be read ({error.strerror})") from error


def _load(name_or_path: str | Path) -> LinearFaceModel:
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in registry.names():
        return _by_name(name_or_path)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        near = difflib.get_close_matches(str(name_or_path), registry.names(), n=1)
        raise ModelFileError(
            f"no face model {str(name_or_path)!r}: it is neither one of {', '.join(registry.names())} nor a "
            f"file that exists; {f'did you mean {near[0]!r}? ' if near else ''}"
            "`facefit models` lists what is installed"
        )
    return _file(path)


def _by_name(name: str) -> LinearFaceModel:
    if name == "builtin":
        from facefit.models import builtin

        return builtin.load()
    if name == "ict":
        from facefit.models import ict

        return ict.load()
    return _file(registry.installed_path(name))


def _folder(path: Path) -> LinearFaceModel:
    from facefit.models import ict

    if ict.is_folder(path):
        return ict.load(path)
    raise ModelFileError(
        f"{path}: a folder without {ict.NEUTRAL}; only ICT-FaceKit comes as a folder; give the model file"
    )


def _file(path: Path) -> LinearFaceModel:
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    from facefit.models import flame, mat5, pack, surrey

    if pack.is_pack(head):
        return _own(path)
    if head.startswith(HDF5_MAGIC):
        return _hdf5(path)
    if mat5.is_mat5(head):
        return _matlab(path)
    if flame.looks_like(head):
        return flame.load(path)
    if head.startswith(b"PK"):
        raise ModelFileError(
            f"{path}: an npz archive holds colours, not a face; put it beside FLAME's model "
            "file and load that"
        )
    if surrey.looks_like(path, head):
        return surrey.load(path)
    raise ModelFileError(
        f"{path}: no face-model format facefit knows begins like this file ({head[:8].hex() or 'it is empty'})"
    )


def _own(path: Path) -> LinearFaceModel:
    """One of our files, with the landmark map that lies beside it, if one does."""
    from facefit.models import assemble, landmark_map, pack

    model = pack.load_pack(path)
    landmarks = landmark_map.landmarks_beside(path, model.topology.triangles, model.n_vertices)
    return assemble.with_landmarks(model, landmarks) if len(landmarks.numbers) else model


def _hdf5(path: Path) -> LinearFaceModel:
    from facefit.models import albedo_mm, bfm17

    if bfm17.looks_like(path):
        return bfm17.load(path)
    if albedo_mm.looks_like(path):
        return albedo_mm.load(path)
    raise ModelFileError(
        f"{path}: an HDF5 file without /shape/model/mean (Basel Face Model 2017 or 2019) or "
        "/diffuseAlbedo/model/mean (AlbedoMM); a MATLAB 7.3 file has to be saved again with -v7"
    )


def _matlab(path: Path) -> LinearFaceModel:
    from facefit.models import bfm09, deep3d, lyhm, mat5

    names = mat5.variable_names(path)
    if bfm09.looks_like(names):
        return bfm09.load(path)
    if deep3d.looks_like(names):
        return deep3d.load(path)
    if lyhm.looks_like(names):
        return lyhm.load(path)
    raise ModelFileError(
        f"{path}: a MATLAB file with {', '.join(sorted(names)[:8]) or 'no variables'}; a face model has "
        "shapeMU (BFM 2009), idBase (Deep3D) or shp and tri (LYHM)"
    )
