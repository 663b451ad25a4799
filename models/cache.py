"""The user's cache folder, and files that appear there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where converted and downloaded models live: $FACEFIT_CACHE, or the system's cache folder."""
    chosen = os.environ.get("FACEFIT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("facefit", appauthor=False))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and vanishes otherwise.

    Two processes that convert the same model at once each write a file of their own; the last rename wins and
    every reader sees a complete file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes a file only its owner may read; a model in a shared cache is no secret.
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
