"""Reading a binary file from front to back without ever trusting a size it states."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from facefit.errors import ModelFileError


class ByteReader:
    """Little-endian values from a file held in memory.

    A count is checked against the bytes left before use.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            if size > max_bytes:
                raise ModelFileError(f"{path}: {size} bytes, more than the {max_bytes} such a model can have")
            self._data = path.read_bytes()
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def unsigned(self, width: int) -> int:
        return int.from_bytes(self.bytes(width, "a number"), "little")

    def signed(self, width: int) -> int:
        return int.from_bytes(self.bytes(width, "a number"), "little", signed=True)

    def count(self, item_bytes: int, what: str) -> int:
        """A 64-bit number of items, each at least `item_bytes` long."""
        count = self.unsigned(8)
        if count * item_bytes > self.left:
            raise ModelFileError(
                f"{self.path}: claims {count} {what} at byte {self._at - 8}, but only {self.left} bytes are "
                "left; the file is truncated or of another format"
            )
        return count

    def array(self, dtype: str, shape: tuple[int, ...], what: str) -> np.ndarray:
        """An array in row-major order; the caller's shape may come from the file."""
        if min(shape, default=1) < 0:
            raise ModelFileError(f"{self.path}: {what} has the impossible size {shape}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(self.bytes(size, what), dtype=dtype).reshape(shape)

    def bytes(self, size: int, what: str) -> bytes:
        if size > self.left:
            raise ModelFileError(
                f"{self.path}: {what} at byte {self._at} needs {size} bytes, {self.left} are left; the file "
                "is truncated or of another format"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def finish(self) -> None:
        if self.left:
            raise ModelFileError(
                f"{self.path}: {self.left} bytes follow the model at byte {self._at}; the file is of another "
                "version or not what it claims to be"
            )
