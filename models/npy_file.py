"""Numeric `.npy` and `.npz` files, and the header of an `.npy` that holds a pickle, without numpy's own
unpickling.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from facefit.errors import ModelFileError

MAX_BYTES = 4 << 30
MAX_INFLATION = 1040
MAX_HEADER = 4096
DTYPE = re.compile(r"[<|=]([fiub])([1248])")


def read_npz(path: Path, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """The wanted arrays that are there."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name not in wanted:
                    continue
                if info.file_size > min(MAX_BYTES, MAX_INFLATION * info.compress_size + 1024):
                    raise ModelFileError(f"{path}: {name!r} claims {info.file_size} bytes")
                found[name] = numeric(path, archive.read(info), name)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        RuntimeError,
        EOFError,
        NotImplementedError,
    ) as error:
        raise ModelFileError(f"{path}: damaged npz file ({error})") from error
    return found


def names(path: Path) -> frozenset[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelFileError(f"{path}: damaged npz file ({error})") from error


def numeric(path: Path, data: bytes, name: str) -> np.ndarray:
    """The array of one `.npy`, whose size must be that of its contents."""
    description, shape, fortran, body = header(path, data)
    match = DTYPE.fullmatch(description) if isinstance(description, str) else None
    if match is None:
        raise ModelFileError(f"{path}: {name!r} holds {description!r}, expected numbers")
    try:
        dtype = np.dtype("<" + match[1] + match[2])
    except TypeError as error:
        raise ModelFileError(f"{path}: {name!r} holds {description!r}, expected numbers") from error
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ModelFileError(f"{path}: {name!r} claims the shape {shape} but holds {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def header(path: Path, data: bytes) -> tuple[Any, tuple[int, ...], bool, memoryview]:
    """Type description, shape, order and the bytes that follow. Format: NEP 1."""
    view = memoryview(data)
    width = 2 if data[6:7] == b"\x01" else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    if not data.startswith(b"\x93NUMPY") or not 0 < length <= MAX_HEADER or len(data) < 8 + width + length:
        raise ModelFileError(f"{path}: no npy array, or a truncated one")
    try:
        fields = ast.literal_eval(bytes(view[8 + width : 8 + width + length]).decode("latin-1").strip())
        shape = fields["shape"]
        if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 6:
            raise ValueError(f"shape {shape}")
        return fields["descr"], tuple(shape), bool(fields["fortran_order"]), view[8 + width + length :]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ModelFileError(f"{path}: damaged npy header ({error})") from error
