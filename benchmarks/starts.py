"""`facefit bench init`: what a start is worth, before the fit and after it.

Two starts on the same pictures: the landmark start (the mean face, posed in closed form by dlib's landmarks) and the
network's guess. Where dlib's detector sees nobody, dlib marks the box that our detector of turned heads found; there
and beyond 40 degrees of yaw the network's landmarks are the second fit's evidence.

Before the fit: distance of the projected face from the truth in per cent of the outer-eye distance, as long as it would
be seen from the front (the 51 inner landmarks; all vertices of the face where they are known: in pictures drawn with
the model, and neutral path-traced heads inside its space), and the shape error of the neutral face. After it: the same
again, steps and seconds. A fit has failed where no face was found, where it says so itself, or with landmarks further
off than `FAILED_PERCENT`. With `--data` the path-traced heads, else pictures drawn here, half of them turned beyond 40
degrees.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facefit.benchmarks.estimate import as_prediction, mean_face, model_facts, model_label, model_named
from facefit.benchmarks.heads_truth import IN_SPACE_MM, manifest, true_landmarks
from facefit.benchmarks.metrics import correspondence_error
from facefit.benchmarks.model_space import SpaceWork
from facefit.benchmarks.now import Dataset, Scan, measure
from facefit.benchmarks.pictures import draw_scene, photograph
from facefit.benchmarks.recipes import recipe
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.errors import FacefitError, NoFaceFound

STARTS = ("landmarks", "network")
FAILED_PERCENT = 10.0
YAWS = (
    ("yaw 0-20", 0.0, 20.0), ("yaw 20-40", 20.0, 40.0), ("yaw 40-60", 40.0, 60.0), ("yaw over 60", 60.0, 180.0)
)  # fmt: skip
# Yaws of every second drawn picture, even, to either side.
TURNED_DEG = (40.0, 90.0)
# Root of the sum of squares of the true expression's coefficients, in standard deviations.
EXPRESSIONS = (("neutral", 0.0, 0.1), ("some expression", 0.1, 2.5), ("strong expression", 2.5, np.inf))
Pixels = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Vertices:
    """Vertices of the model whose true places are known: `numbers`, in the picture, and in the neutral head (mm)."""

    numbers: Int[np.ndarray, "known"]
    pixels: Float[np.ndarray, "known 2"]
    neutral: Float[np.ndarray, "known 3"]


@dataclass(frozen=True)
class Truth:
    """A picture's file, where points of the face are in it, and the neutral scan; `eyes_px` as seen from the front."""

    path: Path
    scan: Scan
    eyes_px: float
    landmarks: Pixels
    vertices: Vertices | None
    facts: Row


@dataclass(frozen=True)
class StartWork:
    """One picture from both starts; an instance is what worker processes receive."""

    data: Path | None
    model: str
    method: str
    out: Path

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        import facefit as ff
        from facefit.fitting.linear import landmark_start

        model = model_named(self.model)
        truth = self.drawn(key) if self.data is None else self.head(key)
        row: Row = dict(truth.facts)
        mean = measure(mean_face(self.model).prediction, truth.scan, threads=1)
        row["mean face mm"] = float(np.median(mean.distances))
        row |= {f"{name} failed": 1.0 for name in STARTS}
        try:
            theirs, ours, row["dlib no face"] = observed(truth.path, model)
        except FacefitError as error:
            return row | {"error": str(error), "error_type": type(error).__name__}, {}
        for name, photo, start in (
            ("landmarks", theirs, landmark_start(theirs, model)),
            ("network", ours, ff.initialize(ours, model)),
        ):
            row |= {f"{name} start {k}": v for k, v in self.figures(start, model, truth).items()}
            began = time.process_time()
            result = ff.fit(photo, model, start, recipe(self.method))
            row[f"{name} fit seconds"] = time.process_time() - began
            found = self.figures(result.scene, model, truth)
            row |= {f"{name} fit {k}": v for k, v in found.items()}
            row[f"{name} fit steps"] = sum(stage.steps for stage in result.stages)
            off = found["landmarks %"]
            row[f"{name} failed"] = float(not result.status.ok or (off is not None and off > FAILED_PERCENT))
        return row, {}

    def drawn(self, key: str) -> Truth:
        rng = np.random.default_rng(int(key))
        model = model_named(self.model)
        yaw = rng.uniform(*TURNED_DEG) * rng.choice([-1, 1]) if int(key) % 2 else None
        picture = photograph(draw_scene(model, rng, yaw), model, rng)
        path = self.out / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.jpeg)
        scene = picture.scene
        neutral = as_prediction(model, scene.neutral_shape(model))
        landmarks, vertices = projected(scene, model)
        face = np.asarray(model.topology.region("face"), np.int64)
        known = Vertices(face, vertices[face], neutral.mesh.vertices[face])
        seen = abs(scene.pose.yaw_pitch_roll_deg()[0])
        facts = {"yaw": seen, "expression": float(scene.expression.norm())}
        marks = scene.pose.apply(model.landmark_points(scene.shape(model))).double().numpy()
        eyes = front_eyes_px(marks, float(scene.camera.focal_px))
        return Truth(path, Scan(neutral.mesh, neutral.landmarks), eyes, landmarks, known, facts)

    def head(self, key: str) -> Truth:
        assert self.data is not None
        dataset = Dataset(self.data)
        image = next(i for i in dataset.images() if i.key == key)
        scan = dataset.scan(image.subject)
        record = manifest(self.data).get(key)
        if record is None:
            raise FacefitError(
                f"{key}: no record in {self.data / 'manifest.json'}, so no truth to compare with"
            )
        landmarks = true_landmarks(record, scan)
        facts = {"yaw": abs(float(record["yaw_deg"])), "subject": image.subject}
        camera = np.array(record["R"]), np.array(record["t"]), np.array(record["K"])
        marks = np.array(record["landmarks68_mm"]) @ camera[0].T + camera[1]
        # Under an expression no vertex but the landmarks is known.
        inside = None if record.get("expression") else placed(self.data, self.model, image.subject)
        vertices = None
        if inside is not None:
            numbers, neutral = inside
            rays = (neutral @ camera[0].T + camera[1]) @ camera[2].T
            vertices = Vertices(numbers, rays[:, :2] / rays[:, 2:], neutral)
        eyes = front_eyes_px(marks, float(camera[2][0, 0]))
        return Truth(dataset.photograph(image), scan, eyes, landmarks, vertices, facts)

    def figures(self, scene: Any, model: Any, truth: Truth) -> Row:
        landmarks, vertices = projected(scene, model)
        neutral = as_prediction(model, scene.neutral_shape(model))
        row: Row = {
            "mm": float(np.median(measure(neutral, truth.scan, threads=1).distances)),
            "landmarks %": apart(landmarks, truth.landmarks, truth.eyes_px, 17),
        }
        if (known := truth.vertices) is not None:
            row["vertices %"] = apart(vertices[known.numbers], known.pixels, truth.eyes_px)
            mine = neutral.mesh.vertices[known.numbers]
            every = np.ones(len(mine), bool)
            row["true mm"] = float(np.median(correspondence_error(mine, known.neutral, every)))
        return row


def observed(path: Path, model: Any) -> tuple[Any, Any, float]:
    """The photograph with dlib's landmarks, and with those a fit would be given; 1 where dlib by itself sees nobody."""
    import facefit as ff
    from facefit.detection import DlibDetector
    from facefit.learned_init.detector import FaceDetector

    detector = FaceDetector(model)
    ours = ff.Observation.from_file(path, detector=detector)
    blind = 0.0
    try:
        theirs = ff.Observation.from_file(path, detector=DlibDetector())
    except NoFaceFound:
        blind = 1.0
    if blind or ours.landmarks_by != "dlib":
        hit = max(detector.find(ours.image), key=lambda hit: hit.score * hit.side)
        theirs = ours.with_face(DlibDetector().face(ours.image, hit))
    return theirs, ours, blind


@lru_cache(maxsize=4)
def placed(
    data: Path, model: str, subject: str
) -> tuple[Int[np.ndarray, "known"], Float[np.ndarray, "known 3"]] | None:
    """Vertices of the model in a scan that lies in the model's own space, by number; None for other scans."""
    _, arrays = SpaceWork(data, model)(subject)
    if float(np.median(arrays["floor"])) > IN_SPACE_MM:
        return None
    numbers = np.flatnonzero(arrays["scored"])
    return numbers, arrays["placed"][numbers].astype(np.float64)


def front_eyes_px(landmarks_mm: Float[np.ndarray, "68 3"], focal_px: float) -> float:
    """The outer-eye distance in pixels as it would be seen from the front, of landmarks in the camera's frame."""
    left, right = landmarks_mm[[36, 45]]
    return float(np.linalg.norm(left - right)) * focal_px / float(landmarks_mm[:, 2].mean())


def projected(scene: Any, model: Any) -> tuple[Pixels, Pixels]:
    """Pixels of the 68 landmarks and of all vertices, expression included."""
    shape = scene.shape(model)

    def pixels(points: Any) -> Pixels:
        return np.asarray(scene.camera.project(scene.pose.apply(points)).detach().double().numpy())

    return pixels(model.landmark_points(shape)), pixels(shape)


def apart(mine: Pixels, truth: Pixels, eyes_px: float, first: int = 0) -> float | None:
    """Mean distance from point number `first` on, in per cent of the outer-eye distance."""
    distance = np.linalg.norm(mine - truth, axis=1)[first:]
    known = distance[np.isfinite(distance)]
    return 100 * float(known.mean()) / eyes_px if len(known) else None


FIGURES = (
    "start landmarks %",
    "start vertices %",
    "start mm",
    "start true mm",
    "fit landmarks %",
    "fit vertices %",
    "fit mm",
    "fit true mm",
    "fit steps",
    "fit seconds",
)
# Means over all pictures of a group, faces or none.
SHARES = ("dlib no face", *(f"{start} failed" for start in STARTS))
COLUMNS = {
    "group": "pictures", "images": "n", "undetected": "no face", "mean face mm": "mean face mm",
    **{name: name.replace(" failed", ": failed") for name in SHARES},
} | {f"{start} {figure}": f"{start}: {figure}" for figure in FIGURES for start in STARTS}  # fmt: skip


def evaluate_starts(
    out: Path, *, model: str, data: Path | None, method: str, count: int, jobs: int
) -> Report:
    settings = {
        "benchmark": "init",
        "data": "synthetic" if data is None else data.name,
        **model_facts(model),
        "method": method,
    }
    keys = (
        [f"{seed:05d}" for seed in range(count)]
        if data is None
        else [i.key for i in Dataset(data).images()][:count]
    )
    rows = run_items(Run(out, settings), keys, StartWork(data, model, method, out), jobs=jobs, label="starts")
    table = [line(name, group) for name, group in groups(rows).items() if group]
    of = "pictures drawn with the model" if data is None else "path-traced heads"
    headline = f"Two starts of a fit with {model_label(model)} on {of}: medians; % of the outer-eye distance."
    report = Report(headline, settings, rows, table, COLUMNS, {})
    report.write(out)
    return report


def groups(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found = {"all": list(rows)}
    for key, bins in (("yaw", YAWS), ("expression", EXPRESSIONS)):
        for name, low, high in bins:
            found[name] = [row for row in rows if key in row and low <= row[key] < high]
    return found


def line(name: str, rows: Sequence[Row]) -> Row:
    good = [row for row in rows if row["error"] is None]
    found: Row = {"group": name, "images": len(good), "undetected": len(rows) - len(good)}
    found |= {share: float(np.mean([row.get(share, 1.0) for row in rows])) for share in SHARES}
    for column in COLUMNS:
        values = [row[column] for row in good if row.get(column) is not None]
        if values and column not in found:
            found[column] = float(np.median(values))
    return found
