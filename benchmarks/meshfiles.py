"""The files of benchmarks: scans and predictions (OBJ, PLY), landmark files, MeshLab's picked points.

The readers are strict where leniency would move a number: vertices keep their order and their count, nothing
is merged, and a file that does not hold finite points is refused with its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facefit.errors import UnreadableInput

PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh in the unit of its file; polygons are cut into fans."""

    vertices: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]

    def scaled(self, factor: float) -> SurfaceMesh:
        return SurfaceMesh(self.vertices * factor, self.triangles)


def read_mesh(path: Path) -> SurfaceMesh:
    """An OBJ or PLY file; other formats and broken files raise UnreadableInput with the file's name."""
    readers = {".obj": _read_obj, ".ply": _read_ply, ".wrl": _read_vrml}
    if path.suffix.lower() not in readers:
        raise UnreadableInput(f"{path}: meshes are read from .obj, .ply and .wrl")
    try:
        mesh = readers[path.suffix.lower()](path)
    except FileNotFoundError as error:
        raise UnreadableInput(f"{path}: there is no such file") from error
    except (OSError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise UnreadableInput(f"{path}: not a readable {path.suffix[1:].upper()} mesh ({error})") from error
    if len(mesh.vertices) == 0:
        raise UnreadableInput(f"{path}: the mesh has no vertices")
    if not np.isfinite(mesh.vertices).all():
        bad = int((~np.isfinite(mesh.vertices).all(1)).sum())
        raise UnreadableInput(f"{path}: {bad} of {len(mesh.vertices)} vertices are NaN or infinite")
    if len(mesh.triangles) and not 0 <= mesh.triangles.min() <= mesh.triangles.max() < len(mesh.vertices):
        raise UnreadableInput(f"{path}: a triangle names a vertex outside 0..{len(mesh.vertices) - 1}")
    return mesh


def _read_obj(path: Path) -> SurfaceMesh:
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("v "):
                vertices.append([float(word) for word in line.split()[1:4]])
            elif line.startswith("f "):
                corners = [int(word.split("/", 1)[0]) for word in line.split()[1:]]
                # Negative indices count back from the last vertex read so far.
                corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
                triangles += [(corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)]
    return SurfaceMesh(
        np.array(vertices, np.float64).reshape(-1, 3), np.array(triangles, np.int64).reshape(-1, 3)
    )


def _read_vrml(path: Path) -> SurfaceMesh:
    """The first IndexedFaceSet of a VRML 2 file: point [...], coordIndex [...] with -1 after polygons."""
    text = path.read_text(encoding="utf-8", errors="replace")
    point = re.search(r"\bpoint\s*\[([^\]]*)\]", text)
    index = re.search(r"\bcoordIndex\s*\[([^\]]*)\]", text)
    if point is None or index is None:
        raise ValueError("no point [...] and coordIndex [...]")
    vertices = np.array(point.group(1).replace(",", " ").split(), np.float64).reshape(-1, 3)
    corners = np.array(index.group(1).replace(",", " ").split(), np.int64)
    polygons = np.split(corners, np.flatnonzero(corners == -1) + 1)
    fans = [(p[0], p[k], p[k + 1]) for p in (q[q != -1] for q in polygons) for k in range(1, len(p) - 1)]
    return SurfaceMesh(vertices, np.array(fans, np.int64).reshape(-1, 3))


def _read_ply(path: Path) -> SurfaceMesh:
    data = path.read_bytes()
    end = re.search(rb"end_header\r?\n", data)
    if not data.startswith(b"ply") or end is None:
        raise ValueError("no PLY header")
    form, elements = _ply_header(data[: end.start()].decode("ascii", "replace"))
    if form == "ascii":
        return _ply_ascii(data[end.end() :].split(), elements)
    order = "<" if form == "binary_little_endian" else ">"
    vertices, triangles, at = np.zeros((0, 3)), np.zeros((0, 3), np.int64), end.end()
    for name, count, properties in elements:
        if all(len(p) == 2 for p in properties):
            kind = np.dtype([(p[1], order + PLY_TYPES[p[0]]) for p in properties])
            table = np.frombuffer(data, kind, count, at)
            at += kind.itemsize * count
            if name == "vertex":
                vertices = np.stack([table[axis] for axis in "xyz"], 1).astype(np.float64)
        elif name == "face" and len(properties) == 1:
            size, index = (order + PLY_TYPES[t] for t in properties[0][:2])
            kind = np.dtype([("n", size), ("corners", index, (3,))])
            table = np.frombuffer(data, kind, count, at)
            if not (table["n"] == 3).all():
                raise ValueError("binary PLY with polygons that are not triangles")
            at += kind.itemsize * count
            triangles = table["corners"].astype(np.int64)
        else:
            raise ValueError(f"element {name!r} has a list that is not understood")
    return SurfaceMesh(vertices, triangles)


def _ply_header(text: str) -> tuple[str, list[tuple[str, int, list[tuple[str, ...]]]]]:
    """Format, and per element its name, count and properties: (type, name) or (count type, type, name)."""
    form, elements = "", list[tuple[str, int, list[tuple[str, ...]]]]()
    for words in (line.split() for line in text.splitlines()):
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:2] == ["property", "list"]:
            elements[-1][2].append((words[2], words[3], words[4]))
        elif words[:1] == ["property"]:
            elements[-1][2].append((words[1], words[2]))
    return form, elements


def _ply_ascii(words: list[bytes], elements: list[tuple[str, int, list[tuple[str, ...]]]]) -> SurfaceMesh:
    vertices, triangles, at = np.zeros((0, 3)), list[tuple[int, int, int]](), 0
    for name, count, properties in elements:
        if all(len(p) == 2 for p in properties):
            width = len(properties)
            table = np.array(words[at : at + width * count], np.float64).reshape(count, width)
            at += width * count
            if name == "vertex":
                vertices = table[:, [[p[1] for p in properties].index(axis) for axis in "xyz"]]
        else:
            for _ in range(count):
                n = int(words[at])
                corners = [int(word) for word in words[at + 1 : at + 1 + n]]
                at += 1 + n
                triangles += [(corners[0], corners[k], corners[k + 1]) for k in range(1, n - 1)]
    return SurfaceMesh(vertices, np.array(triangles, np.int64).reshape(-1, 3))


def write_ply(path: Path, mesh: SurfaceMesh) -> None:
    """Binary little-endian PLY in single precision, complete or not there at all."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.empty(len(mesh.triangles), np.dtype([("n", "u1"), ("corners", "<i4", (3,))]))
    faces["n"], faces["corners"] = 3, mesh.triangles
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(header.encode() + mesh.vertices.astype("<f4").tobytes() + faces.tobytes())
    partial.replace(path)


def read_landmarks(path: Path) -> Float[np.ndarray, "7 3"]:
    """The seven landmarks of a prediction: .npy (7, 3) or (1, 7, 3), or .txt with seven lines `x y z`."""
    try:
        points = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        points = np.asarray(points, np.float64)
    except (OSError, ValueError) as error:
        raise UnreadableInput(f"{path}: not a landmark file ({error})") from error
    if points.shape == (1, 7, 3):
        points = points[0]
    if points.shape != (7, 3) or not np.isfinite(points).all():
        raise UnreadableInput(f"{path}: {points.shape} landmarks, seven finite points (7, 3) are expected")
    return points


def read_picked_points(path: Path) -> Float[np.ndarray, "7 3"]:
    """The seven landmarks of a scan from MeshLab's .pp; single precision, as the field reads them."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UnreadableInput(f"{path}: {error.strerror or error}") from error
    points = []
    for tag in re.findall(r"<point\b[^>]*>", text):
        axes = dict(re.findall(r'\b([xyz])="([^"]*)"', tag))
        if set(axes) == {"x", "y", "z"}:
            try:
                points.append([np.float32(axes[a]) for a in "xyz"])
            except ValueError as error:
                raise UnreadableInput(f"{path}: a picked point is not three numbers ({error})") from error
    found = np.array(points, np.float64).reshape(-1, 3)
    if found.shape != (7, 3) or not np.isfinite(found).all():
        raise UnreadableInput(f"{path}: {len(found)} picked points, NoW has seven")
    return found
