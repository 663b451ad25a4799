"""Landmarks in files: iBUG's `.pts` and plain `.npy` arrays.

A `.pts` file counts the centre of the first pixel as (1, 1), facefit as (0.5, 0.5): half a pixel is taken off
on reading and put back on writing. A `.npy` file holds facefit's own edge-based pixels.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.errors import UnreadableInput

# The largest file that is looked at: 10 000 points are not a face.
MAX_BYTES = 1_000_000

_PTS = re.compile(r"version:\s*1\s+n_points:\s*(\d+)\s*\{([^{}]*)\}")


def read_points(path: str | Path) -> Float[np.ndarray, "n 2"]:
    """The points of a `.pts` or `.npy` file, (column, row) in edge-based pixels; NaN where unknown."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableInput(
                f"{path} has {size} bytes, landmarks need a few thousand: is it the right file?"
            )
        match path.suffix.lower():
            case ".pts":
                return _read_pts(path)
            case ".npy":
                return _read_npy(path)
    except OSError as error:
        raise UnreadableInput(f"cannot read the landmarks {path}: {error.strerror or error}") from None
    raise UnreadableInput(
        f"{path}: landmarks come as .pts (iBUG) or .npy files, not {path.suffix or 'without ending'}"
    )


def read_landmarks(path: str | Path) -> Float[np.ndarray, "68 2"]:
    """iBUG 68 landmarks; a file of 51 holds the inner ones, its jaw is unknown (NaN)."""
    return as_landmarks(read_points(path), str(path))


def as_landmarks(points: Float[np.ndarray, "n 2"], source: str = "landmarks") -> Float[np.ndarray, "68 2"]:
    """The 68 landmarks in the points of `source`, which the error names."""
    points = np.asarray(points, dtype=np.float64)
    if points.shape not in ((68, 2), (51, 2)):
        raise UnreadableInput(
            f"{source}: an array of shape {points.shape}, wanted (68, 2) in iBUG's order, "
            "or (51, 2) without the jaw"
        )
    if np.isinf(points).any() or np.abs(np.nan_to_num(points)).max() > 1e6:
        raise UnreadableInput(f"{source}: coordinates beyond a million pixels; is it a landmark file?")
    if np.isfinite(points).all(axis=1).sum() < 6:
        raise UnreadableInput(f"{source}: fewer than 6 known points do not fix a head")
    return np.concatenate([np.full((68 - len(points), 2), np.nan), points])


def write_pts(path: str | Path, points: Float[np.ndarray, "n 2"]) -> None:
    rows = [f"{x + 0.5:.4f} {y + 0.5:.4f}" for x, y in points.tolist()]
    Path(path).write_text(
        "\n".join(["version: 1", f"n_points: {len(rows)}", "{", *rows, "}"]) + "\n", "ascii"
    )


def _read_pts(path: Path) -> Float[np.ndarray, "n 2"]:
    text = path.read_bytes().decode("ascii", errors="replace")
    found = _PTS.fullmatch(text.strip())
    if found is None:
        raise UnreadableInput(
            f"{path} is not a .pts file: wanted 'version: 1', 'n_points: N', '{{', N lines 'x y', '}}'"
        )
    rows = [line.split() for line in found[2].splitlines() if line.strip()]
    if len(rows) != int(found[1]):
        raise UnreadableInput(f"{path} announces {found[1]} points and holds {len(rows)}")
    try:
        points = np.array([[float(x), float(y)] for x, y in rows])
    except ValueError:
        raise UnreadableInput(f"{path}: a line between the braces is not two numbers") from None
    return points.reshape(-1, 2) - 0.5


def _read_npy(path: Path) -> Float[np.ndarray, "n 2"]:
    try:
        points = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise UnreadableInput(f"{path} is not a plain .npy array of numbers: {error}") from None
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "fiu":
        raise UnreadableInput(f"{path}: wanted an array of real numbers")
    if points.ndim != 2 or points.shape[1] != 2:
        raise UnreadableInput(
            f"{path}: an array of shape {points.shape}, wanted (68, 2): one (column, row) a landmark"
        )
    return points.astype(np.float64)
