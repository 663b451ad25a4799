"""Landmark maps: which point of a mesh is which iBUG landmark, as a commented TOML file anybody can edit.

[landmarks]
30 = 8156                          # a vertex, counted from 0
8 = [12345, 0.2, 0.3, 0.5]         # or a triangle, counted from 0, and barycentric weights
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from facefit.errors import ModelFileError
from facefit.models.face_model import Landmarks

NO_LANDMARKS = Landmarks(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
MAX_BYTES = 1 << 20


def packaged(name: str) -> dict[str, Any]:
    """One of the TOML files that lie beside this module."""
    return tomllib.loads(resources.files("facefit.models").joinpath(name).read_text(encoding="utf-8"))


def read_landmark_map(path: Path, triangles: Int[np.ndarray, "triangles 3"], vertices: int) -> Landmarks:
    """The `[landmarks]` table of a TOML file, checked against the mesh it is for."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: a landmark map is at most {MAX_BYTES} bytes")
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("landmarks")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelFileError(f"{path}: not a readable landmark map ({error})") from error
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: has no [landmarks] table")
    return landmarks_from_table(table, triangles, vertices, str(path))


def read_eos_list(path: Path) -> dict[str, Any]:
    """eos's `[landmark_mappings]`: iBUG number counted from 1 = vertex counted from 0."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path}: a landmark list is at most {MAX_BYTES} bytes")
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("landmark_mappings")
        if not isinstance(table, dict):
            raise ModelFileError(f"{path}: has no [landmark_mappings] table")
        return {str(int(number) - 1): vertex for number, vertex in table.items()}
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a readable landmark list ({error})") from error


def beside(path: Path) -> Path:
    """Where a user's own map of a model file lies, and where `facefit models annotate` writes it."""
    return path.with_name(f"{path.stem}.landmarks.toml")


def landmarks_beside(path: Path, triangles: Int[np.ndarray, "triangles 3"], vertices: int) -> Landmarks:
    """The map beside a model file, or none."""
    if not beside(path).is_file():
        return NO_LANDMARKS
    return read_landmark_map(beside(path), triangles, vertices)


def landmarks_from_table(
    table: Mapping[str, Any], triangles: Int[np.ndarray, "triangles 3"], vertices: int, what: str
) -> Landmarks:
    """Landmarks from {iBUG number: vertex | [triangle, w0, w1, w2]}."""
    corner_of = _first_corner(triangles, vertices)
    numbers, hosts, weights = [], [], []
    for key, value in table.items():
        if not (key.isascii() and key.isdigit() and int(key) < 68):
            raise ModelFileError(f"{what}: landmark {key!r} is no iBUG number 0-67")
        match value:
            case bool():
                raise ModelFileError(
                    f"{what}: landmark {key} is {value!r}, expected a vertex or [triangle, w0, w1, w2]"
                )
            case int() if 0 <= value < vertices and corner_of[value] >= 0:
                host, corner = divmod(int(corner_of[value]), 3)
                weight = np.eye(3)[corner]
            case [int(host), *barycentric] if 0 <= host < len(triangles) and _is_barycentric(barycentric):
                weight = np.array(barycentric, float)
            case _:
                raise ModelFileError(
                    f"{what}: landmark {key} is {value!r}; expected a vertex below {vertices} that belongs "
                    f"to a triangle, or [triangle below {len(triangles)}, w0, w1, w2], weights summing to 1"
                )
        numbers.append(int(key))
        hosts.append(host)
        weights.append(weight)
    if not numbers:
        return NO_LANDMARKS
    order = np.argsort(numbers)
    return Landmarks(
        np.array(numbers, np.int64)[order],
        np.array(hosts, np.int64)[order],
        np.array(weights, np.float32)[order],
    )


def _is_barycentric(weights: list[Any]) -> bool:
    numeric = len(weights) == 3 and all(isinstance(w, float | int) and abs(w) <= 1.001 for w in weights)
    return numeric and abs(sum(weights) - 1.0) < 1e-3


def _first_corner(triangles: Int[np.ndarray, "triangles 3"], vertices: int) -> Int[np.ndarray, "vertices"]:
    """Where each vertex first occurs in the flat triangle list; -1 for a vertex no triangle uses."""
    corner_of = np.full(vertices, -1, np.int64)
    flat = triangles.reshape(-1)
    corner_of[flat[::-1]] = np.arange(flat.size)[::-1]
    return corner_of
