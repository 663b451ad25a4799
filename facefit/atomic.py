"""Files that are complete or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from facefit.errors import UnreadableInput


def write_atomically(path: Path, content: bytes) -> None:
    """Through a temporary file in the same folder, so that no half-written file ever carries the name."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UnreadableInput(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UnreadableInput(f"{path}: cannot be written ({error.strerror})") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
