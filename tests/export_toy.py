"""A toy head and a toy fit for the tests of the output: an ellipsoid with four ARKit shapes, no licence
needed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from facefit.fitting.inliers import SkinMask
from facefit.fitting.result import FitResult, StageReport, Status
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource, Topology
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import render

RADII_MM = np.array([75.0, 105.0, 90.0])
EXPRESSIONS = ("jawOpen", "mouthSmileLeft", "eyeBlinkRight", "browInnerUp")


def toy_model(rows: int = 24, columns: int = 40, with_uv: bool = True) -> LinearFaceModel:
    """An open ellipsoid of head size, symmetric in x, whose seam lies at the back."""
    latitude = np.linspace(0.48 * math.pi, -0.48 * math.pi, rows)
    longitude = np.linspace(-0.9 * math.pi, 0.9 * math.pi, columns)
    lat, lon = np.meshgrid(latitude, longitude, indexing="ij")
    unit = np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], -1).reshape(-1, 3)
    mean = unit * RADII_MM
    i, j = (a.ravel() for a in np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij"))
    a, b, c, d = i * columns + j, (i + 1) * columns + j, (i + 1) * columns + j + 1, i * columns + j + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    uv = np.stack([(lon / (1.8 * math.pi) + 0.5).ravel(), (lat / (0.96 * math.pi) + 0.5).ravel()], 1)
    grid = np.arange(rows * columns).reshape(rows, columns)

    # Landmarks on a plane grid in front, the outer eye corners 90 mm apart.
    wanted = np.stack(np.meshgrid(np.linspace(-70, 70, 10), np.linspace(50, -80, 7)), -1).reshape(-1, 2)[:68]
    wanted[36], wanted[45] = (-45, 20), (45, 20)
    wanted = np.vstack([wanted, np.zeros((68 - len(wanted), 2))])
    numbers = np.arange(len(wanted))
    found, weights = [], []
    corners = mean[triangles][:, :, :2]
    front = mean[triangles][:, :, 2].min(1) > -10
    for point in wanted:
        matrix = np.concatenate([corners, np.ones((len(corners), 3, 1))], 2).transpose(0, 2, 1)
        solved = np.linalg.solve(matrix + 1e-9 * np.eye(3), np.append(point, 1.0)[None, :, None])[..., 0]
        best = int(np.where(front, solved.min(1), -np.inf).argmax())
        found.append(best)
        weights.append(np.clip(solved[best], 0, 1) / np.clip(solved[best], 0, 1).sum())
    landmarks = Landmarks(numbers, np.array(found), np.array(weights, np.float32))

    def bump(
        centre: tuple[float, float, float], width: float, move: tuple[float, float, float]
    ) -> np.ndarray:
        near = np.exp(-((mean - np.array(centre)) ** 2).sum(1) / (2 * width**2))
        near[near < 0.02] = 0
        return near[:, None] * np.array(move)

    unit_activation = np.array([0.3, 0.3, 0.25, 0.5], np.float32)
    published = np.stack(
        [
            bump((0, -70, 70), 25, (0, -25, -5)),
            bump((30, -40, 75), 15, (6, 8, 0)),
            bump((-32, 20, 70), 10, (0, -4, 2)),
            bump((0, 45, 75), 18, (0, 6, 0)),
        ]
    )
    identity = np.stack([mean * [0.05, 0, 0], mean * [0, 0.05, 0], bump((0, 0, 90), 20, (0, 0, 8))])
    skin = np.array([0.55, 0.33, 0.24])
    albedo = skin * (1 - 0.4 * bump((0, -45, 80), 14, (1, 1, 1)) * [0.2, 1, 1])
    return LinearFaceModel(
        source=ModelSource("toy", "CC0-1.0", "free", "nobody", "0" * 64),
        topology=Topology(
            triangles,
            landmarks,
            uv if with_uv else None,
            triangles.copy() if with_uv else None,
            mirror=grid[:, ::-1].ravel().copy(),
            regions={"face": np.flatnonzero(mean[:, 2] > 0)},
        ),
        mean=torch.tensor(mean, dtype=torch.float32),
        identity_basis=torch.tensor(identity, dtype=torch.float32),
        expression_basis=torch.tensor(published * unit_activation[:, None, None], dtype=torch.float32),
        albedo_mean=torch.tensor(albedo, dtype=torch.float32),
        albedo_basis=torch.tensor(0.1 * np.stack([albedo, albedo * [1, 0, 0]]), dtype=torch.float32),
        expression_names=EXPRESSIONS,
        expression_unit=torch.tensor(unit_activation),
    )


def toy_scene(model: LinearFaceModel, width: int = 200, height: int = 240) -> Scene:
    pose = Pose(torch.tensor([0.05, 0.35, -0.04]), torch.tensor([4.0, -6.0, 650.0]))
    return Scene(
        identity=torch.tensor([0.5, -0.4, 1.0]),
        expression=torch.tensor([1.5, 0.8, 0.0, 0.4]),
        albedo=torch.tensor([0.6, -0.2]),
        pose=pose,
        camera=Camera.from_field_of_view(width, height),
        lighting=Lighting.directional(torch.tensor([0.5, 0.4, 1.0]), 0.7, 0.35),
    )


def toy_result(with_uv: bool = True, name: str = "toy.jpg", width: int = 200, height: int = 240) -> FitResult:
    """A fit that explains its photograph exactly: the photograph is the scene's own rendering, over
    grey-blue.
    """
    model = toy_model(with_uv=with_uv)
    scene = toy_scene(model, width, height)
    picture = render(scene, model)
    covered = picture.covered.numpy()
    color = torch.where(picture.covered[..., None], picture.color, torch.tensor([0.4, 0.5, 0.6]))
    image = (color.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    shape = scene.pose.apply(scene.shape(model))
    landmarks = scene.camera.project(model.landmark_points(shape)).numpy()
    observation = Observation(image, scene.camera, landmarks, path=Path("somewhere") / name)
    stage = StageReport("landmarks", Status.CONVERGED, 5, {"landmarks": 100.0}, {"landmarks": 1.0}, 0.01)
    return FitResult(
        scene=scene,
        model=model,
        observation=observation,
        stages=(stage, replace(stage, name="photometric")),
        landmark_error=0.01,
        photometric_rms_start=0.1,
        photometric_rms=0.01,
        pixels_used=0.9,
        landmarks_fitted=landmarks,
        skin=SkinMask(covered, covered.astype(float), 1.0, np.zeros(2)),
        warnings=("scale is a prior",),
        timings={"detect": 0.1},
    )
