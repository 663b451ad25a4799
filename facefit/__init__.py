"""facefit: one photograph to a 3D face, by analysis by synthesis with a morphable model.

import facefit as ff
model  = ff.load_model("builtin")
photo  = ff.Observation.from_file("photo.jpg")
result = ff.fit(photo, model, ff.initialize(photo, model))
print(result.summary()); ff.export(result, "face.glb"); ff.report(result, "face.html")
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

try:
    __version__ = version("facefit")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

# Threads that wait by spinning take the cores from those that work: on two busy cores the README's notebook took
# 15 to 20 CPU-seconds instead of 5. Read when PyTorch is loaded, so it is set here; a value of yours is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Public name -> module. Imported on first use, so that `import facefit` and `facefit --help` are instant.
_PUBLIC = {
    "Camera": "facefit.models.camera",
    "DETAILED": "facefit.fitting.stages",
    "FAST": "facefit.fitting.stages",
    "FaceDetector": "facefit.learned_init.detector",
    "FacefitError": "facefit.errors",
    "LinearFaceModel": "facefit.models.face_model",
    "Lighting": "facefit.models.lighting",
    "ModelFileError": "facefit.errors",
    "NoFaceFound": "facefit.errors",
    "Observation": "facefit.observation",
    "Pose": "facefit.models.camera",
    "STANDARD": "facefit.fitting.stages",
    "Scene": "facefit.models.scene",
    "UnreadableInput": "facefit.errors",
    "export": "facefit.export",
    "fit": "facefit.fitting.entry",
    "fit_many": "facefit.fitting.many",
    "initialize": "facefit.reconstruct",
    "load_model": "facefit.models",
    "locate": "facefit.reconstruct",
    "reconstruct": "facefit.reconstruct",
    "reconstruct_together": "facefit.reconstruct",
    "render": "facefit.picture",
    "report": "facefit.report",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604


class _Package(ModuleType):
    """Importing the module `facefit.export` must not hide the function `facefit.export`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'facefit' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
