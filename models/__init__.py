"""The forward side: morphable models, camera, light, and the scene that holds their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.models.face_model import LinearFaceModel, Topology


def build(
    meshes: Sequence[Float[np.ndarray, "vertices 3"]], topology: Topology, **options: Any
) -> LinearFaceModel:
    """A model of one's own from registered meshes; see `build_model.build` for the options."""
    from facefit.models import build_model

    return build_model.build(meshes, topology, **options)


def load_model(name_or_path: str | Path = "builtin") -> LinearFaceModel:
    """A face model by name ("builtin", "ict") or by the path of any file the field uses, found by its
    content.
    """
    # Loading needs the file-format libraries; `import facefit.models` alone should not.
    from facefit.models.formats import load

    return load(name_or_path)
