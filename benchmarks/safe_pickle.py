"""Reading a .npy with a pickled dictionary of numbers, without running what else a pickle could hold."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.lib import format as npy

from facefit.errors import UnreadableInput

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class but numpy's arrays and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, only numbers are read")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_plain_dictionary(path: Path) -> Mapping[str, float]:
    """The dictionary in a 0-dimensional object array written by numpy.save."""
    try:
        with path.open("rb") as file:
            return _load(file)
    except (OSError, ValueError, pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise UnreadableInput(f"{path}: not a readable box ({error})") from error


def _load(file: BinaryIO) -> Mapping[str, float]:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    _, _, dtype = read_header(file)
    if not dtype.hasobject:
        raise ValueError("a plain array instead of a dictionary")
    value = cast(Any, _PlainUnpickler(file, encoding="latin1").load())
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} instead of a dictionary")
    return value
