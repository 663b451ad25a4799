"""The forward side: morphable models, camera, light, and the scene that holds their values."""

from __future__ import annotations

from pathlib import Path

from facefit.models.face_model import LinearFaceModel


def load_model(name_or_path: str | Path = "builtin") -> LinearFaceModel:
    """A face model by name ("builtin", "ict") or by the path of any file the field uses, found by its
    content.
    """
    # Loading needs the file-format libraries; `import facefit.models` alone should not.
    from facefit.models.formats import load

    return load(name_or_path)
