"""AFLW2000-3D (Zhu et al., CVPR 2016): 68 landmarks by yaw, and head pose, on 2000 photographs in the wild.

NME: mean distance of the 68 points over the square root of the area of the ground-truth landmarks' box, per
cent; the figure of the field is the unweighted mean over three bins of yaw. The labels come from fitting a
morphable model: two annotations of the same photographs differ by 3.4 %, so below about 3.3 % a figure says
little, and nothing here is in millimetres. Points are compared as projected from the model (not as drawn on
the outline).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.estimate import FaceEstimate, estimate, model_label
from facefit.benchmarks.metrics import landmark_error
from facefit.benchmarks.report import Report, curves_of
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.statistics import mean_interval
from facefit.errors import UnreadableInput

BINS = (("0-30", 0.0, 30.0), ("30-60", 30.0, 60.0), ("60-90", 60.0, math.inf))
# Head-pose figures leave out images with an angle beyond this; the rest of the field does (after FSA-Net).
POSE_RANGE_DEG = 99.0
# "Landmark accuracy" is the share of images with an NME up to this, per cent; the paper that reports one
# names no threshold, 8 % is the customary one for failures.
ACCURACY_AT = 8.0
# MATLAB counts pixel centres from 1; ours lie at + 0.5.
MATLAB_OFFSET = 0.5


@dataclass(frozen=True)
class Label:
    """What the data set says about one photograph; angles in degrees, its own signs."""

    points: Float[np.ndarray, "68 3"]
    pitch: float
    yaw: float
    roll: float

    @property
    def box_size(self) -> float:
        width, height = np.ptp(self.points[:, :2], axis=0)
        return math.sqrt(float(width) * float(height))


@dataclass(frozen=True)
class Aflw2000:
    """The folder with image00002.jpg and image00002.mat. `configs`, from the 3DDFA repository's
    test.configs/, gives the published assignment to yaw bins and the re-annotated landmarks."""

    root: Path
    configs: Path | None = None

    def names(self) -> list[str]:
        found = sorted(p.stem for p in self.root.glob("image*.mat"))
        if not found:
            raise UnreadableInput(f"{self.root}: no image*.mat: is this the folder of AFLW2000-3D?")
        return found

    def label(self, name: str) -> Label:
        from scipy.io import loadmat

        path = self.root / f"{name}.mat"
        try:
            value = loadmat(path)
            points = np.asarray(value["pt3d_68"], np.float64).T
            pitch, yaw, roll = np.degrees(np.asarray(value["Pose_Para"], np.float64).ravel()[:3])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableInput(f"{path}: not a label of AFLW2000-3D ({error})") from error
        if points.shape != (68, 3) or not np.isfinite(points).all():
            raise UnreadableInput(f"{path}: pt3d_68 has shape {points.T.shape}, (3, 68) finite is expected")
        points[:, :2] -= MATLAB_OFFSET
        return Label(points, float(pitch), float(yaw), float(roll))

    def published_yaw(self) -> Mapping[str, float]:
        """Yaw by name, degrees, where the published list is at hand; else the labels' own."""
        return (
            dict(zip(self.names(), self._array("AFLW2000-3D.pose.npy"), strict=True)) if self.configs else {}
        )

    def reannotated(self) -> Mapping[str, Float[np.ndarray, "68 2"]]:
        if self.configs is None:
            return {}
        points = self._array("AFLW2000-3D-Reannotated.pts68.npy")
        return {n: p[:2].T - MATLAB_OFFSET for n, p in zip(self.names(), points, strict=True)}

    def _array(self, name: str) -> np.ndarray:
        assert self.configs is not None
        try:
            found: np.ndarray = np.load(self.configs / name, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UnreadableInput(f"{self.configs / name}: {error}") from error
        if len(found) != len(self.names()):
            raise UnreadableInput(
                f"{self.configs / name} has {len(found)} entries, the folder {len(self.names())} labels: "
                "they are matched by position, so all 2000 must be there"
            )
        return found


def pose_angles(camera_from_model: Float[np.ndarray, "3 3"]) -> tuple[float, float, float]:
    """(pitch, yaw, roll) in degrees by the data set's convention.

    Its labels are R = Rx(pitch) Ry(yaw) Rz(roll) of *transposed* elementary rotations, from a model with x
    right, y up, z towards the viewer to an image with y up (Zhu et al.'s `RotationMatrix`); ours ends in y
    down, z away.
    """
    r = np.diag([1.0, -1.0, -1.0]) @ camera_from_model
    pitch = -math.atan2(-r[1, 2], r[2, 2])
    yaw = -math.asin(max(-1.0, min(1.0, float(r[0, 2]))))
    roll = -math.atan2(-r[0, 1], r[0, 0])
    return math.degrees(pitch), math.degrees(yaw), math.degrees(roll)


def landmarks_3d(found: FaceEstimate) -> Float[np.ndarray, "68 3"] | None:
    """Projected landmarks with depth in pixels, larger is nearer, mean zero; None if the model lacks some."""
    if found.posed is None or found.camera_from_model is None or found.translation_mm is None:
        return None
    if any(n not in found.landmarks_px for n in range(68)) or found.focal_px is None:
        return None
    depth = np.array([found.landmark_depth_mm[n] for n in range(68)])
    pixels = np.stack([found.landmarks_px[n] for n in range(68)])
    nearness = (depth.mean() - depth) * found.focal_px / depth.mean()
    return np.column_stack([pixels, nearness])


def score(mine: Float[np.ndarray, "68 3"], label: Label) -> Row:
    """NME in two and three dimensions, per cent of the box; depths are compared up to their mean."""
    truth = label.points.copy()
    truth[:, 2] -= truth[:, 2].mean()
    return {
        "NME 2D": landmark_error(mine[:, :2], truth[:, :2], label.box_size),
        "NME 3D": landmark_error(mine, truth, label.box_size),
    }


@dataclass(frozen=True)
class AflwWork:
    data: Aflw2000
    model: str
    method: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        label = self.data.label(key)
        photograph = next((p for s in (".jpg", ".png") if (p := self.data.root / (key + s)).exists()), None)
        if photograph is None:
            raise UnreadableInput(f"{self.data.root / key}.jpg: no such photograph")
        found = estimate(photograph, self.model, self.method)
        mine = landmarks_3d(found)
        if mine is None or found.camera_from_model is None:
            raise UnreadableInput(f"model {self.model!r} has not all 68 landmarks")
        row = {**score(mine, label), "fit_seconds": found.seconds, "status": found.status}
        angles = pose_angles(found.camera_from_model)
        row |= dict(zip(("pitch", "yaw", "roll"), angles, strict=True))
        row |= {"true pitch": label.pitch, "true yaw": label.yaw, "true roll": label.roll}
        row |= {"box": label.box_size}
        return row, {"landmarks": mine.astype(np.float32)}


COLUMNS = {
    "measure": "measure", "0-30": "0-30", "30-60": "30-60", "60-90": "60-90", "mean": "mean of bins",
    "std": "std", "images": "images", "failed": "failed", "interval": "95 % of the plain mean",
}  # fmt: skip
POSE_COLUMNS = ("pitch", "yaw", "roll")


def evaluate_aflw2000(
    data: Aflw2000,
    out: Path,
    *,
    model: str,
    method: str = "standard",
    limit: int | None = None,
    jobs: int = 1,
) -> Report:
    names = data.names()[:limit]
    settings = {
        "benchmark": "AFLW2000-3D",
        "model": model_label(model),
        "method": method,
        "configs": data.configs is not None,
    }
    run = Run(out, settings)
    rows = run_items(run, names, AflwWork(data, model, method), jobs=jobs, label="AFLW2000-3D")
    yaw, second = data.published_yaw(), data.reannotated()
    for row in rows:
        if row["error"] is None:
            row["bin yaw"] = abs(float(yaw.get(row["item"], row["true yaw"])))
            if row["item"] in second:
                mine = run.arrays(row["item"])["landmarks"][:, :2].astype(np.float64)
                truth = second[row["item"]]
                size = math.sqrt(float(np.prod(np.ptp(truth, axis=0))))
                row["NME 2D re-annotated"] = landmark_error(mine, truth, size)
    measures = ["NME 2D", "NME 3D", *(["NME 2D re-annotated"] if second else [])]
    table = [binned(measure, rows) for measure in measures]
    good = [row for row in rows if row["error"] is None]
    accuracy = float(np.mean([row["NME 2D"] <= ACCURACY_AT for row in good])) * 100 if good else None
    extra = {
        "head pose MAE (deg)": pose_errors(rows),
        f"landmark accuracy at {ACCURACY_AT:.0f} % NME": accuracy,
    }
    headline = "AFLW2000-3D, NME in per cent of the box."
    curves, axes = curves_of(rows, measures), ("NME of an image [%]", "Percentage of images")
    report = Report(headline, settings, rows, table, COLUMNS, curves, extra, axes)
    report.write(out)
    return report


def binned(measure: str, rows: Sequence[Row]) -> Row:
    """Mean per bin of yaw, then the unweighted mean and the standard deviation of the three."""
    good = [row for row in rows if row["error"] is None and row.get(measure) is not None]
    line: Row = {"measure": measure, "images": len(good), "failed": len(rows) - len(good)}
    for name, low, high in BINS:
        inside = [r[measure] for r in good if low < r["bin yaw"] <= high or (low == 0 and r["bin yaw"] == 0)]
        line[name] = float(np.mean(inside)) if inside else None
    means = [line[name] for name, *_ in BINS if line[name] is not None]
    if len(means) == len(BINS):
        line |= {"mean": float(np.mean(means)), "std": float(np.std(means))}
    return line | {"interval": mean_interval({row["item"]: [row[measure]] for row in good})}


def pose_errors(rows: Sequence[Row]) -> Row:
    """Mean absolute error per angle and their mean. "bias removed": after taking off the median difference,
    which holds what "upright" means in the model fitted and in the one behind the labels."""
    usable = [r for r in rows if r["error"] is None]
    kept = [r for r in usable if max(abs(r[f"true {a}"]) for a in POSE_COLUMNS) <= POSE_RANGE_DEG]
    if not kept:
        return {"images": 0}
    found: Row = {"images": len(kept), "outside the range": len(usable) - len(kept)}
    gaps = {a: np.array([r[a] - r[f"true {a}"] for r in kept]) for a in POSE_COLUMNS}
    found |= {a: float(np.abs(g).mean()) for a, g in gaps.items()}
    found["mean"] = float(np.mean([found[a] for a in POSE_COLUMNS]))
    found["mean, bias removed"] = float(np.mean([np.abs(g - np.median(g)).mean() for g in gaps.values()]))
    return found
