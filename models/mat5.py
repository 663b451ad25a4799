"""MATLAB 5 files: numeric arrays and structs, nothing else, with every size checked before it is believed.

A general reader also creates objects, function handles and cells, and its C code has crashed on hostile
files; a face model needs none of these. Format: "MAT-File Format", The MathWorks, version 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from facefit.errors import ModelFileError

Value: TypeAlias = "np.ndarray | dict[str, Value] | None"

MAX_BYTES = 2 << 30
MAX_DEPTH = 6
# Deflate cannot shrink by more than about 1032 (RFC 1951: 258 bytes from two bits).
MAX_INFLATION = 1040
MATRIX, COMPRESSED = 14, 15
STORAGE = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
STRUCT_CLASS = 2
# Array classes double, single and the integers, with the type their values have in memory.
NUMERIC = {
    6: "<f8",
    7: "<f4",
    8: "i1",
    9: "u1",
    10: "<i2",
    11: "<u2",
    12: "<i4",
    13: "<u4",
    14: "<i8",
    15: "<u8",
}


def is_mat5(head: bytes) -> bool:
    return head.startswith(b"MATLAB 5.0 MAT-file") and head[126:128] == b"IM"


def read_mat(path: Path, wanted: frozenset[str]) -> dict[str, Value]:
    """The wanted variables that are there, in the shape MATLAB shows. What is no number or struct is None."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelFileError(f"{path}: {size} bytes, more than the {MAX_BYTES} a face model can have")
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_mat5(bytes(data[:128])):
        raise ModelFileError(
            f"{path}: no little-endian MATLAB 5 file; if it is a MATLAB 7.3 one, save it again with -v7"
        )
    found: dict[str, Value] = {}
    try:
        for kind, body in _elements(data[128:]):
            if kind == COMPRESSED:
                kind, body = _inflated(body, wanted)
            if kind == MATRIX:
                name = _name(body)
                if name in wanted:
                    found[name] = _matrix(body, depth=0)
    except (struct.error, zlib.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: damaged MATLAB file ({error})") from error
    return found


def variable_names(path: Path) -> frozenset[str]:
    """The names of all variables, without their values."""
    names = set()
    try:
        data = memoryview(path.read_bytes()) if path.stat().st_size <= MAX_BYTES else memoryview(b"")
        for kind, body in _elements(data[128:]):
            if kind == COMPRESSED:
                kind, body = _inflated(body, frozenset())
            if kind == MATRIX:
                names.add(_name(body))
    except (OSError, struct.error, zlib.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: damaged MATLAB file ({error})") from error
    return frozenset(names)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The tagged elements one after the other; trailing bytes that hold no whole element are an error."""
    at = 0
    while at < len(data):
        kind, body, at = _element(data, at)
        yield kind, body


def _element(data: memoryview, at: int) -> tuple[int, memoryview, int]:
    kind, size = struct.unpack_from("<II", data, at)
    if kind >> 16:
        # A small element: type and size share one word, up to four bytes follow.
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise ValueError(f"a small element of {size} bytes")
        return kind, data[at + 4 : at + 4 + size], at + 8
    if size > len(data) - at - 8:
        raise ValueError(f"an element of {size} bytes where {len(data) - at - 8} are left")
    end = at + 8 + size
    padded = end if kind == COMPRESSED else end + -size % 8
    return kind, data[at + 8 : end], min(padded, len(data))


def _inflated(body: memoryview, wanted: frozenset[str]) -> tuple[int, memoryview]:
    """The element inside a compressed one; only its first part when its name is not wanted."""
    stream = zlib.decompressobj()
    start = stream.decompress(body, 1024)
    kind, size = struct.unpack_from("<II", start)
    if size > MAX_INFLATION * len(body) + 1024:
        raise ValueError(f"{len(body)} compressed bytes cannot hold {size}")
    if kind != MATRIX or _name(memoryview(start)[8:]) not in wanted:
        return kind, memoryview(start)[8:]
    rest = stream.decompress(stream.unconsumed_tail, max(1, size + 8 - len(start)))
    whole = start + rest
    if len(whole) < size + 8:
        raise ValueError(f"a compressed variable ends after {len(whole)} of {size + 8} bytes")
    return kind, memoryview(whole)[8 : 8 + size]


def _name(body: memoryview) -> str:
    _, _, at = _element(body, 0)
    _, _, at = _element(body, at)
    _, name, _ = _element(body, at)
    return bytes(name).decode("ascii")


def _matrix(body: memoryview, depth: int) -> Value:
    if depth > MAX_DEPTH:
        raise ValueError("structs nested too deeply")
    if not len(body):
        return None
    _, flags, at = _element(body, 0)
    array_class, is_complex = flags[0], bool(flags[1] & 0x08)
    _, raw_dimensions, at = _element(body, at)
    dimensions = np.frombuffer(raw_dimensions, "<i4").tolist()
    if len(dimensions) < 2 or min(dimensions) < 0:
        raise ValueError(f"an array of size {dimensions}")
    _, _, at = _element(body, at)
    if array_class == STRUCT_CLASS:
        return _struct(body, at, dimensions, depth)
    if array_class not in NUMERIC or is_complex:
        return None
    kind, values, _ = _element(body, at)
    if kind not in STORAGE:
        raise ValueError(f"numbers of unknown type {kind}")
    numbers = np.frombuffer(values, STORAGE[kind])
    if numbers.size != math.prod(dimensions):
        raise ValueError(f"{numbers.size} numbers for an array of size {dimensions}")
    return numbers.astype(NUMERIC[array_class], copy=False).reshape(dimensions, order="F")


def _struct(body: memoryview, at: int, dimensions: list[int], depth: int) -> Value:
    """A 1 x 1 struct as a dictionary; arrays of structs are not needed by any model."""
    if math.prod(dimensions) != 1:
        return None
    _, raw_length, at = _element(body, at)
    length = int.from_bytes(raw_length, "little")
    _, raw_names, at = _element(body, at)
    if not 0 < length <= 64 or len(raw_names) % length:
        raise ValueError("damaged field names")
    fields: dict[str, Value] = {}
    for start in range(0, len(raw_names), length):
        name = bytes(raw_names[start : start + length]).split(b"\0")[0].decode("ascii")
        kind, inner, at = _element(body, at)
        fields[name] = _matrix(inner, depth + 1) if kind == MATRIX else None
    return fields


def numbers(path: Path, variables: dict[str, Value], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A numeric variable of the expected shape (None = any length)."""
    value = variables.get(name)
    if not isinstance(value, np.ndarray):
        raise ModelFileError(f"{path}: the numeric variable {name!r} is missing")
    if len(value.shape) != len(shape) or any(
        w not in (None, g) for w, g in zip(shape, value.shape, strict=True)
    ):
        wanted = " x ".join("n" if want is None else str(want) for want in shape)
        raise ModelFileError(f"{path}: {name!r} has shape {value.shape}, expected {wanted}")
    return value


def indices(path: Path, variables: dict[str, Value], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A variable of whole numbers that count from 1 (MATLAB stores them as any type), counted from 0."""
    value = numbers(path, variables, name, shape)
    with np.errstate(invalid="ignore"):
        whole = value.size and float(value.min()) >= 1 and float(value.max()) < 2**31
    if not whole or (value != np.rint(value)).any():
        raise ModelFileError(f"{path}: {name!r} must hold whole numbers from 1")
    return value.astype(np.int64) - 1
