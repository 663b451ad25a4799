"""The files of Florence MICC: scans with their landmarks, frames of the videos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.meshfiles import SurfaceMesh, read_mesh
from facefit.benchmarks.metrics import Points, lengths
from facefit.benchmarks.now import IBUG_OF_NOW
from facefit.errors import UnreadableInput

NOSE_TIP = 30
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True)
class LabelledScan:
    """A scan in mm with its 68 landmarks."""

    mesh: SurfaceMesh
    landmarks: Float[np.ndarray, "68 3"]

    @property
    def seven(self) -> Points:
        return np.asarray(self.landmarks[list(IBUG_OF_NOW)])

    def crop(self, radius: float) -> Points:
        near = lengths(self.mesh.vertices - self.landmarks[NOSE_TIP]) <= radius
        return np.asarray(self.mesh.vertices[near])


@dataclass(frozen=True)
class MiccData:
    """subject_NN/Model/frontal{1,2}/obj/*.obj as published, with landmarks beside or in MICC_landmarks/.

    Landmarks are 68 points, .ljson (menpo), .npy or .txt, named like the scan, in `landmarks` or beside the
    scan. Frames of the videos, extracted by the user, lie in subject_NN/Frames/{Cooperative,Indoor,Outdoor}/.
    """

    root: Path
    landmarks: Path | None = None

    def subjects(self) -> list[str]:
        found = sorted(p.name for p in self.root.glob("subject_*") if p.is_dir())
        if not found:
            raise UnreadableInput(f"{self.root}: no folder subject_NN: is this the root of Florence MICC?")
        return found

    def scans(self, subject: str) -> list[LabelledScan]:
        model = self.root / subject / "Model"
        paths = [next(iter(sorted(f.glob("obj/*.obj"))), None) for f in sorted(model.glob("frontal*"))]
        scans = [LabelledScan(read_mesh(p), self._marks(subject, p)) for p in paths if p is not None]
        if not scans:
            raise UnreadableInput(f"{model}: no frontal*/obj/*.obj")
        return scans

    def _marks(self, subject: str, scan: Path) -> Float[np.ndarray, "68 3"]:
        folders = [scan.parent, self.root / "MICC_landmarks", *([self.landmarks] if self.landmarks else [])]
        names = [scan.stem, f"{subject}_{scan.parent.parent.name}"]
        for folder in folders:
            for name in names:
                for suffix in (".ljson", ".npy", ".txt"):
                    if (path := folder / (name + suffix)).exists():
                        return read_68(path)
        raise UnreadableInput(
            f"{scan}: no landmarks. Nose tips of MICC are labelled by hand: put 68 points as "
            f"{scan.stem}.ljson, .npy or .txt beside it, or name their folder with --landmarks-dir"
        )

    def frames(self, subject: str, setting: str) -> list[Path]:
        folder = self.root / subject / "Frames" / setting
        return sorted(p for p in folder.glob("*") if p.suffix.lower() in PHOTOGRAPHS)


def read_68(path: Path) -> Float[np.ndarray, "68 3"]:
    """68 points from menpo's .ljson (version 1 to 3), .npy or .txt."""
    try:
        if path.suffix == ".ljson":
            value = json.loads(path.read_text(encoding="utf-8"))
            groups = value.get("groups", value)
            group = groups if "landmarks" in groups else next(iter(groups.values()))
            if isinstance(groups, list):
                group = {"landmarks": groups[0]["landmarks"]}
            marks = group["landmarks"]
            points = np.array(marks["points"] if isinstance(marks, dict) else marks, np.float64)
        else:
            points = np.load(path) if path.suffix == ".npy" else np.loadtxt(path)
    except (OSError, ValueError, KeyError, StopIteration, TypeError, AttributeError) as error:
        raise UnreadableInput(f"{path}: not a landmark file ({error})") from error
    if points.shape != (68, 3) or not np.isfinite(points).all():
        raise UnreadableInput(f"{path}: {points.shape} landmarks, 68 finite points are expected")
    return np.asarray(points, np.float64)
