"""The face models known by name: which are installed, where the others come from, and what is in one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facefit.errors import ModelFileError
from facefit.models.cache import cache_folder
from facefit.models.face_model import LinearFaceModel
from facefit.models.landmark_map import packaged


@dataclass(frozen=True)
class Entry:
    """One row of `facefit models`. `path` is where the model was found, None when it is not installed."""

    name: str
    title: str
    licence_class: str
    vertices: str
    modes: str
    files: tuple[str, ...]
    get: str
    path: Path | None

    @property
    def installed(self) -> bool:
        return self.path is not None


def models_folder() -> Path:
    """Where licensed model files are looked for by name: $FACEFIT_MODELS, or `models` in the cache."""
    chosen = os.environ.get("FACEFIT_MODELS")
    return Path(chosen) if chosen else cache_folder() / "models"


def entries() -> list[Entry]:
    """All known models, the free ones first, as the packaged table orders them."""
    return [
        Entry(
            name=name,
            title=facts["title"],
            licence_class=facts["licence_class"],
            vertices=facts["vertices"],
            modes=facts["modes"],
            files=tuple(facts["files"]),
            get=facts["get"],
            path=_found(name, facts["files"]),
        )
        for name, facts in packaged("registry.toml").items()
    ]


def names() -> tuple[str, ...]:
    return tuple(packaged("registry.toml"))


def installed_path(name: str) -> Path:
    """The file of a model known by name, or what to do to get it."""
    entry = next(entry for entry in entries() if entry.name == name)
    if entry.path is None:
        raise ModelFileError(
            f"the model {name!r} is not installed: get {' or '.join(entry.files[:2])} from {entry.get} "
            f"and put it into {models_folder()}, or give the file's path"
        )
    return entry.path


def facts(model: LinearFaceModel) -> dict[str, str]:
    """What `facefit models info` prints, in its order."""
    topology, source = model.topology, model.source
    points = model.landmark_points(model.mean).numpy()
    at = {int(number): point for number, point in zip(topology.landmarks.numbers, points, strict=True)}
    numbers = len(topology.landmarks.numbers)
    table = {
        "name": source.name,
        "licence": f"{source.licence} ({source.licence_class})",
        "source": source.citation,
        "sha256": source.sha256,
        "vertices": str(model.n_vertices),
        "triangles": str(len(topology.triangles)),
        "identity modes": str(model.n_identity),
        "expression modes": f"{model.n_expression}{_some(model.expression_names)}",
        "albedo modes": str(model.n_albedo),
        "landmarks": f"{numbers} of 68" + ("" if numbers == 68 else "; run `facefit models annotate`"),
        "texture coordinates": "no" if topology.uv is None else str(len(topology.uv)),
        "symmetry": "no" if topology.mirror is None else f"{_pairs(topology.mirror)} pairs",
        "regions": ", ".join(f"{name} {len(members)}" for name, members in sorted(topology.regions.items())),
    }
    if {36, 45} <= at.keys():
        table["outer eye corners"] = f"{float(np.linalg.norm(at[36] - at[45])):.1f} mm apart"
    return {key: value for key, value in table.items() if value}


def convert(path: Path, target: Path | None = None) -> Path:
    """Any model file as one of ours, compact and safe to pass on within its licence; returns where it was
    written.
    """
    from facefit.models.formats import load
    from facefit.models.pack import save_model

    target = path.with_suffix(".safetensors") if target is None else target
    if target.exists() and target.samefile(path):
        raise ModelFileError(f"{path}: is one of our files already; give another name with -o")
    save_model(load(path), target, compact=True)
    return target


def _found(name: str, files: list[str]) -> Path | None:
    if name == "builtin":
        from facefit.models.builtin.store import PATH

        return Path(PATH)
    if name == "ict":
        from facefit.models import ict

        try:
            return ict.installed_path()
        except ModelFileError:
            return None
    return next((path for file in files if (path := models_folder() / file).is_file()), None)


def _some(expressions: tuple[str, ...]) -> str:
    shown = ", ".join(expressions[:3])
    return f" ({shown}, ...)" if len(expressions) > 3 else f" ({shown})" if expressions else ""


def _pairs(mirror: np.ndarray) -> int:
    return int((mirror > np.arange(len(mirror))).sum())
