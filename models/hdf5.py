"""Reading numeric datasets from an HDF5 file that may be hostile.

HDF5 holds no code, but a dataset can be a link to another file, a view assembled from others, or claim a size
far beyond what the file stores. All of these are refused before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from facefit.errors import ModelFileError

MAX_BYTES = 4 << 30
# Deflate shrinks by at most about 1032; other filters are not used by any face model.
MAX_INFLATION = 1040
FILTERS = {"gzip", None}


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, read-only; whatever the library raises inside becomes a `ModelFileError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: {path.stat().st_size} bytes, a face model has at most {MAX_BYTES}")
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ModelFileError(f"{path}: damaged HDF5 file ({error})") from error


def dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset | None:
    """The dataset at "a/b/c", following only links inside this file; None when it is not there."""
    here: object = group
    for part in name.split("/"):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ModelFileError(
                f"{path}: {name!r} is a link to another place, which a model file has no need of"
            )
        here = here.get(part)
    return here if isinstance(here, h5py.Dataset) else None


def has(path: Path, group: h5py.Group, name: str) -> bool:
    return dataset(path, group, name) is not None


def numbers(path: Path, group: h5py.Group, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A numeric dataset of the expected shape (None = any length)."""
    found = dataset(path, group, name)
    if found is None:
        raise ModelFileError(f"{path}: the dataset {group.name.rstrip('/')}/{name} is missing")
    if found.dtype.kind not in "fiu":
        raise ModelFileError(f"{path}: {name!r} holds {found.dtype}, expected numbers")
    if len(found.shape) != len(shape) or any(
        w not in (None, g) for w, g in zip(shape, found.shape, strict=True)
    ):
        wanted = " x ".join("n" if want is None else str(want) for want in shape)
        raise ModelFileError(f"{path}: {name!r} has shape {found.shape}, expected {wanted}")
    _check_stored(path, found, name)
    return np.asarray(found[()])


def text(path: Path, group: h5py.Group, name: str, max_bytes: int = 1 << 20) -> str | None:
    """A single string, or None when it is not there."""
    found = dataset(path, group, name)
    if found is None or h5py.check_string_dtype(found.dtype) is None or math.prod(found.shape) != 1:
        return None
    if found.id.get_storage_size() > max_bytes:
        raise ModelFileError(f"{path}: {name!r} is longer than {max_bytes} bytes")
    value = found[()] if found.shape == () else found[:].reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _check_stored(path: Path, found: h5py.Dataset, name: str) -> None:
    if found.external or found.is_virtual:
        raise ModelFileError(f"{path}: {name!r} takes its numbers from another file, which is refused")
    if found.compression not in FILTERS or found.scaleoffset is not None:
        raise ModelFileError(
            f"{path}: {name!r} is compressed by {found.compression!r}, expected gzip or nothing"
        )
    stored = min(found.id.get_storage_size(), path.stat().st_size)
    claimed = math.prod(found.shape) * found.dtype.itemsize
    if claimed > (MAX_INFLATION * stored if found.compression else stored):
        raise ModelFileError(f"{path}: {name!r} claims {claimed} bytes but only {stored} are stored")
