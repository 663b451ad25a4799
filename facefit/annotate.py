"""Landmarks for a model that has none: render its mean face, detect, and shoot the detections back onto the
mesh.

It works for any model, copies nobody's list, and places the landmarks with the bias of the detector that the
fit will use. The mean face is seen from several sides; a point counts where its surface is seen well, and the
views' scatter is reported. The jaw line is taken from frontal views only, because a detector's jaw points
slide along the silhouette of a turned head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.detection import JAW, AbstractDetector, DlibDetector
from facefit.errors import ModelFileError, NoFaceFound
from facefit.mesh import vertex_normals
from facefit.models.albedo_prior import population
from facefit.models.assemble import PLAIN, with_landmarks
from facefit.models.camera import Camera, Pose, rotation_matrix
from facefit.models.face_model import Landmarks, LinearFaceModel
from facefit.models.landmark_transfer import on_surface
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.picture import project, render

# Head turns in degrees (yaw, pitch) and picture heights; several sizes average the detector's own noise.
VIEWS = ((0, 0), (0, -4), (0, -8), (15, 0), (-15, 0))
SIZES = (360, 480, 640)
# A jaw point belongs to the foremost surface this near to it, and to what lies at most so far behind that:
# ear and neck are further. Along a surface seen edge-on a pixel is a centimetre, so the point is taken where
# the surface faces the camera as much as it does at the jaw points of ICT-FaceKit and of the built-in model
# (from ear to chin); one unit of that counts as so many mm beside the detection.
REACH_MM, STEP_MM, FACING_MM = 3.0, 25.0, 25.0
_SIDE_FACING = (0.17, 0.06, 0.10, 0.16, 0.27, 0.32, 0.39, 0.58)
JAW_FACING = (*_SIDE_FACING, 0.58, *_SIDE_FACING[::-1])
FACE_MM, DISTANCE_MM = 330.0, 900.0
# A point counts in a view when its surface turns less than 72 degrees away.
SEEN = 0.3
# Which landmark mirrors which.
MIRROR = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
])  # fmt: skip


@dataclass(frozen=True)
class Annotation:
    """The 68 landmarks, how far the views disagree about each (mm, root mean square), and how many saw it."""

    landmarks: Landmarks
    spread_mm: Float[np.ndarray, "68"]
    views: Int[np.ndarray, "68"]


def annotate(model: LinearFaceModel, detector: AbstractDetector | None = None) -> Annotation:
    """Detect the landmarks on renderings of the mean face and put them on its surface.

    A model without colour is annotated twice: the first landmarks tell the albedo prior where to paint brows,
    lips and eyes, and on a painted face the detector is surer.
    """
    detector = DlibDetector() if detector is None else detector
    found = _annotate_once(model, detector)
    if float(model.albedo_mean.std(dim=0).max()) < PLAIN:
        found = _annotate_once(with_landmarks(model, found.landmarks), detector)
    return found


def _annotate_once(model: LinearFaceModel, detector: AbstractDetector) -> Annotation:
    hits: list[list[tuple[bool, Float[np.ndarray, "3"]]]] = [[] for _ in range(68)]
    for yaw, pitch in VIEWS:
        for size in SIZES:
            for number, hit in _seen_from(model, detector, yaw, pitch, size).items():
                hits[number].append(hit)
    if missing := [number for number in range(68) if not hits[number]]:
        raise NoFaceFound(
            f"{model.name}: no landmark {', '.join(map(str, missing[:8]))} was detected on the mean "
            "face; is the model's front its +z side, and does it have skin where a face has?"
        )
    # What no view sees well, such as the inside of a lip, is placed by those that see it at all.
    points = [[point for well, point in seen if well] or [point for _, point in seen] for seen in hits]
    middle = np.array([np.median(seen, axis=0) for seen in points])
    spread = np.array(
        [
            np.sqrt(((np.array(seen) - at) ** 2).sum(axis=1).mean())
            for seen, at in zip(points, middle, strict=True)
        ]
    )
    if model.topology.mirror is not None:
        middle = 0.5 * (middle + middle[MIRROR] * [-1.0, 1.0, 1.0])
    hosts, weights = _on_skin(model, middle)
    landmarks = Landmarks(np.arange(68), hosts, weights.astype(np.float32))
    return Annotation(landmarks, spread, np.array([len(seen) for seen in points]))


def as_toml(annotation: Annotation, name: str) -> str:
    """The landmark map that `facefit.models` reads when it lies beside the model file."""
    marks = annotation.landmarks
    lines = [
        f"# The 68 iBUG landmarks of {name}: triangle, counted from 0, and barycentric weights.",
        "# Made by `facefit models annotate`: detected on renderings of the mean face; the comment is the",
        "# scatter of the views in mm.",
        "",
        "[landmarks]",
    ]
    for number, host, weights, spread in zip(
        marks.numbers, marks.triangles, marks.barycentric, annotation.spread_mm, strict=True
    ):
        first, second = (round(float(w), 4) for w in weights[:2])
        lines.append(
            f"{number} = [{host}, {first}, {second}, {round(1.0 - first - second, 4)}]  # {spread:.1f}"
        )
    return "\n".join([*lines, ""])


def write(annotation: Annotation, name: str, path: Path) -> None:
    try:
        path.write_text(as_toml(annotation, name), encoding="utf-8")
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror})") from error


def _seen_from(
    model: LinearFaceModel, detector: AbstractDetector, yaw: float, pitch: float, size: int
) -> dict[int, tuple[bool, Float[np.ndarray, "3"]]]:
    """Under each landmark detected in one view: is the surface seen well there, and its point."""
    scene = _scene(model, yaw, pitch, size)
    with torch.no_grad():
        picture = render(scene, model)
        image = (picture.color.clamp(0, 1) * 255).round().byte().numpy()
        image[~picture.covered.numpy()] = 128
    try:
        found = detector.detect(image)[0].landmarks
    except NoFaceFound:
        return {}
    covered = np.argwhere(picture.covered.numpy())
    corners = model.mean[model.triangles].numpy()
    toward = scene.pose.camera_from_model.numpy()[2]
    facing = -(picture.normals.numpy() @ toward)[covered[:, 0], covered[:, 1]]
    depth = picture.depth.numpy()[covered[:, 0], covered[:, 1]]
    seen = {}
    for number in range(68):
        away = np.linalg.norm(covered + 0.5 - found[number][::-1], axis=1)
        if number < JAW.stop:
            if yaw:
                continue
            patch = away < REACH_MM * size / FACE_MM
            if patch.any():
                behind = ~patch | (depth > depth[patch].min() + STEP_MM)
                turned = np.abs(facing - JAW_FACING[number]) * FACING_MM * size / FACE_MM
                away = np.where(behind, np.inf, away + turned)
        # A point may lie just outside: the nearest pixel of the face stands for it.
        best = int(away.argmin())
        row, column = covered[best]
        weights = picture.fragments.barycentric[row, column].numpy()
        point = weights @ corners[int(picture.triangle[row, column])]
        seen[number] = bool(number < JAW.stop or facing[best] > SEEN), point
    return seen


def _scene(model: LinearFaceModel, yaw: float, pitch: float, size: int) -> Scene:
    """The mean face, lit from the front, its foremost part in the middle of the picture."""
    front = model.mean[model.mean[:, 2] > model.mean[:, 2].quantile(0.5)]
    centre = 0.5 * (front.amin(0) + front.amax(0))
    marks = model.topology.landmarks
    if len(marks.numbers):
        centre = model.landmark_points(model.mean).mean(0)
    turn = rotation_matrix(torch.tensor([0.0, np.radians(yaw), 0.0])) @ rotation_matrix(
        torch.tensor([-np.radians(pitch), 0.0, 0.0])
    )
    facing = Pose.frontal(DISTANCE_MM).camera_from_model @ turn.float()
    camera = Camera.from_field_of_view(
        size, size, float(np.degrees(2 * np.arctan(0.5 * FACE_MM / DISTANCE_MM)))
    )
    pose = Pose.from_camera_from_model(facing, torch.tensor([0.0, 0.0, DISTANCE_MM]) - facing @ centre)
    neutral = Scene.neutral(model, camera)
    light = Lighting.directional(torch.tensor([0.1, 0.3, 1.0]), 0.6, 0.5)
    return replace(neutral, pose=pose, lighting=light, albedo=_light_skin(model))


def _light_skin(model: LinearFaceModel) -> torch.Tensor:
    """On our own albedo prior a light skin, on which a detector sees brows and lips best; else the mean."""
    coefficients = torch.zeros(model.n_albedo)
    melanin, _, scores = population()
    if model.n_albedo >= scores.shape[1] and float(model.albedo_mean.mean()) < 0.25:
        coefficients[: scores.shape[1]] = torch.from_numpy(scores[np.abs(np.log(melanin / 0.03)).argmin()])
    return coefficients


def _on_skin(
    model: LinearFaceModel, points: Float[np.ndarray, "68 3"]
) -> tuple[Int[np.ndarray, "68"], Float[np.ndarray, "68 3"]]:
    """The nearest triangles that face forward and are no eyeball (a detected lid can lie over the eye)."""
    triangles = model.topology.triangles
    usable = np.ones(model.n_vertices, bool)
    usable[model.topology.regions.get("eyeballs", np.zeros(0, np.int64))] = False
    usable &= vertex_normals(model.mean, model.triangles)[:, 2].numpy() > -0.5
    allowed = np.flatnonzero(usable[triangles].all(axis=1))
    hosts, weights = on_surface(points, model.mean.double().numpy(), triangles[allowed])
    return allowed[hosts], weights


def distances_mm(
    model: LinearFaceModel, annotation: Annotation, official: Landmarks
) -> Float[np.ndarray, "68"]:
    """How far the annotation lies from a model's own landmarks, on the mean face."""
    ours = _points(model, annotation.landmarks)
    theirs = _points(model, official)
    return np.asarray((ours - theirs).norm(dim=1))


def preview(
    model: LinearFaceModel, annotation: Annotation, size: int = 640
) -> Float[np.ndarray, "size size 3"]:
    """The mean face from the front with the landmarks as bright dots, sRGB in 0-1."""
    scene = _scene(model, 0.0, 0.0, size)
    with torch.no_grad():
        image = render(scene, model).color.clamp(0, 1).numpy().copy()
        at = project(scene, _points(model, annotation.landmarks)).numpy()
    for column, row in np.clip(at.astype(int), 2, size - 3):
        image[row - 2 : row + 3, column - 2 : column + 3] = [0.2, 1.0, 0.3]
    return image


def _points(model: LinearFaceModel, landmarks: Landmarks) -> Float[torch.Tensor, "68 3"]:
    """Landmarks on the mean face."""
    return replace(model, topology=replace(model.topology, landmarks=landmarks)).landmark_points(model.mean)
