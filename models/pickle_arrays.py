"""Numeric arrays out of the records of a pickle: numpy's, chumpy's, scipy's sparse ones and torch's.

Every size is checked against the bytes that are there before an array is made.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np

from facefit.models.safe_pickle import Name, Record, UnsafePickle, parse_next

MAX_DEPTH = 8
DTYPE = re.compile(r"[<>|=]?([fiub])([1248])")
STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
}


def array(value: Any, depth: int = 0) -> np.ndarray:
    """The numeric array a value stands for: of numpy, chumpy (its value now), scipy (made dense) or torch."""
    if depth > MAX_DEPTH or not isinstance(value, Record):
        raise UnsafePickle(f"expected an array, found {type(value).__name__}")
    kind = value.name.rsplit(".", 1)[-1]
    if kind == "_reconstruct":
        return _numpy_array(value.state)
    if kind == "_frombuffer" and len(value.arguments) == 4:
        raw, dtype, shape, order = value.arguments
        return _numpy_array((1, shape, dtype, order == "F", raw))
    if kind == "_rebuild_tensor_v2":
        return _torch_tensor(value.arguments)
    state = value.state
    if not isinstance(state, dict):
        raise UnsafePickle(f"expected an array, found a {kind} without contents")
    if kind == "Ch":
        return array(state.get("x"), depth + 1)
    if kind == "Select":
        return _selection(state, depth)
    if kind in ("csc_matrix", "csr_matrix"):
        return _dense(state, kind, depth)
    raise UnsafePickle(f"expected an array, found a {kind}")


def objects(value: Any) -> list[Any]:
    """The items of an array of objects."""
    state = value.state if isinstance(value, Record) else None
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], list):
        raise UnsafePickle("expected an array of objects")
    return state[4]


def _numpy_array(state: Any) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) != 5:
        raise UnsafePickle("an array without contents")
    _, raw_shape, raw_dtype, fortran, raw = state
    shape, dtype = _shape(raw_shape), _dtype(raw_dtype)
    data = _bytes(raw)
    if data is None or len(data) != math.prod(shape) * dtype.itemsize:
        raise UnsafePickle(f"an array of shape {shape} whose contents have another size")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _selection(state: dict[Any, Any], depth: int) -> np.ndarray:
    """chumpy.reordering.Select: some elements of another array."""
    chosen = array(state.get("a"), depth + 1).ravel()
    index = array(state.get("idxs"), depth + 1)
    shape = _shape(state.get("preferred_shape"))
    if index.size != math.prod(shape) or not _within(index, chosen.size):
        raise UnsafePickle("a chumpy selection does not fit what it selects from")
    return np.asarray(chosen[index].reshape(shape))


def _torch_tensor(arguments: tuple[Any, ...]) -> np.ndarray:
    """A contiguous tensor whose storage is a nested torch file of the old format: five pickles, then data."""
    storage, offset, raw_shape, raw_stride = arguments[:4] if len(arguments) >= 4 else (None,) * 4
    nested = isinstance(storage, Record) and storage.name.endswith("_load_from_bytes") and storage.arguments
    inner = _bytes(storage.arguments[0]) if nested else None
    if inner is None:
        raise UnsafePickle("a tensor without storage")
    stream = io.BytesIO(inner)
    content = [parse_next(stream) for _ in range(5)][3]
    identity = content.arguments[0] if isinstance(content, Record) and content.arguments else None
    kind = identity[1] if isinstance(identity, tuple) and len(identity) > 4 else None
    code = STORAGES.get(kind.text) if isinstance(kind, Name) else None
    count = int.from_bytes(stream.read(8), "little")
    data = stream.read()
    shape = _shape(raw_shape)
    contiguous = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
    if code is None or offset != 0 or raw_stride != contiguous:
        raise UnsafePickle("a tensor that is no plain array of numbers")
    if len(data) != count * int(code[-1]) or math.prod(shape) != count:
        raise UnsafePickle("a tensor whose contents have another size")
    return np.frombuffer(data, code).reshape(shape)


def _dense(state: dict[Any, Any], kind: str, depth: int) -> np.ndarray:
    """A sparse matrix as a dense one; both are small in a face model, so the dense size is capped."""
    shape = _shape(state.get("_shape", state.get("shape")))
    data, index, start = (array(state.get(name), depth + 1) for name in ("data", "indices", "indptr"))
    if len(shape) != 2 or math.prod(shape) > 1 << 26:
        raise UnsafePickle(f"a sparse matrix of shape {shape}")
    major, minor = (shape[1], shape[0]) if kind == "csc_matrix" else shape
    fits = data.ndim == index.ndim == start.ndim == 1 and len(data) == len(index) and len(start) == major + 1
    if (
        not fits
        or not (_within(index, minor) and _within(start, len(data) + 1))
        or (np.diff(start) < 0).any()
    ):
        raise UnsafePickle("a sparse matrix whose parts do not fit")
    if int(start[0]) != 0 or int(start[-1]) != len(data):
        raise UnsafePickle("a sparse matrix whose parts do not fit")
    full = np.zeros((major, minor), data.dtype)
    np.add.at(full, (np.repeat(np.arange(major), np.diff(start)), index), data)
    return full.T if kind == "csc_matrix" else full


def _dtype(value: Any) -> np.dtype[Any]:
    code = value.arguments[0] if isinstance(value, Record) and value.arguments else None
    match = DTYPE.fullmatch(code) if isinstance(code, str) else None
    if match is None:
        raise UnsafePickle(f"an array of type {code!r}, expected numbers")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    try:
        return np.dtype((">" if order == ">" else "<") + match[1] + match[2])
    except TypeError as error:
        raise UnsafePickle(f"an array of type {code!r}, expected numbers") from error


def _shape(value: Any) -> tuple[int, ...]:
    fits = isinstance(value, tuple) and len(value) <= 6
    if not fits or not all(isinstance(n, int) and 0 <= n < 2**40 for n in value):
        raise UnsafePickle(f"an array of shape {value!r}"[:80])
    return tuple(int(n) for n in value)


def _bytes(raw: Any) -> bytes | None:
    """Contents as bytes; Python 2 stored them as text, read as Latin-1."""
    try:
        if isinstance(raw, str):
            return raw.encode("latin-1")
    except UnicodeEncodeError as error:
        raise UnsafePickle("contents that are no bytes") from error
    return bytes(raw) if isinstance(raw, bytes | bytearray) else None


def _within(index: np.ndarray, limit: int) -> bool:
    whole = index.dtype.kind in "iu"
    return whole and (index.size == 0 or (int(index.min()) >= 0 and int(index.max()) < limit))
