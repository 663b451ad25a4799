"""A small face without a licence, and photographs of it: an ellipsoid with nose, eyes, lips and chin.

961 vertices, symmetric, its 68 landmarks roughly where iBUG's are, the outer eye corners 90 mm apart. Bumps
move vertices along z only, so that the frontal plan of the face is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.models.camera import Camera, Pose
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource, Topology
from facefit.models.lighting import Lighting
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import project, render

RADII_MM = np.array([72.0, 100.0, 85.0])
SIDE = 31
EXPRESSIONS = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "puff")
UNIT = 0.3
SKIN = np.array([0.50, 0.31, 0.23])
BACKGROUND = (0.35, 0.42, 0.50)

# Frontal plan (x to the subject's left, y up, mm) of the subject's right half; the left half mirrors it.
_JAW = [(-66 * np.cos(t), 10 - 88 * np.sin(t)) for t in np.linspace(0, np.pi, 17)]
_BROW = [(-52.0, 40.0), (-43.0, 46.0), (-33.0, 48.0), (-23.0, 47.0), (-14.0, 44.0)]
_NOSE = [(0.0, 28.0), (0.0, 18.0), (0.0, 8.0), (0.0, -2.0)]
_NOSTRILS = [(-14.0, -12.0), (-7.0, -14.0), (0.0, -15.0), (7.0, -14.0), (14.0, -12.0)]
_EYE = [(-45.0, 25.0), (-36.0, 30.0), (-26.0, 30.0), (-18.0, 25.0), (-26.0, 21.0), (-36.0, 21.0)]
_LIPS = [(-25, -42), (-16, -36), (-7, -33), (0, -34), (7, -33), (16, -36), (25, -42),
         (16, -49), (7, -52), (0, -53), (-7, -52), (-16, -49),
         (-20, -42), (-8, -39.5), (0, -40), (8, -39.5), (20, -42),
         (8, -44.5), (0, -45), (-8, -44.5)]  # fmt: skip


def landmark_plan() -> Float[np.ndarray, "68 2"]:
    """Where the landmarks lie in the frontal plane of the mean face, mm."""
    left_brow = [(-x, y) for x, y in reversed(_BROW)]
    left_eye = [(-x, y) for x, y in (_EYE[3], _EYE[2], _EYE[1], _EYE[0], _EYE[5], _EYE[4])]
    return np.array([*_JAW, *_BROW, *left_brow, *_NOSE, *_NOSTRILS, *_EYE, *left_eye, *_LIPS])


@lru_cache
def toy_model() -> LinearFaceModel:
    mean, triangles, uv, mirror = _mesh()
    identity, expression = _shape_modes(mean)
    albedo, albedo_modes = _albedo(mean)
    return LinearFaceModel(
        source=ModelSource("toy", "CC0-1.0", "free", "nobody", "0" * 64),
        topology=Topology(
            triangles, _landmarks(mean, triangles), uv, triangles.copy(), mirror, _regions(mean)
        ),
        mean=torch.tensor(mean, dtype=torch.float32),
        identity_basis=torch.tensor(identity, dtype=torch.float32),
        expression_basis=torch.tensor(UNIT * expression, dtype=torch.float32),
        albedo_mean=torch.tensor(albedo, dtype=torch.float32),
        albedo_basis=torch.tensor(albedo_modes, dtype=torch.float32),
        expression_names=EXPRESSIONS,
        expression_unit=torch.full((len(EXPRESSIONS),), UNIT),
    )


def _mesh() -> tuple[
    Float[np.ndarray, "vertices 3"],
    Int[np.ndarray, "triangles 3"],
    Float[np.ndarray, "vertices 2"],
    Int[np.ndarray, "vertices"],
]:
    """Vertices, triangles, texture coordinates, mirror; a grid in latitude and longitude, finer in front."""
    s = np.linspace(-1, 1, SIDE)
    latitude, longitude = np.radians(72) * -(0.7 * s + 0.3 * s**3), np.radians(115) * (0.55 * s + 0.45 * s**3)
    lat, lon = (a.ravel() for a in np.meshgrid(latitude, longitude, indexing="ij"))
    vertices = RADII_MM * np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], 1)
    front = np.clip(np.cos(lon), 0, None)
    at = _bump(vertices)
    vertices[:, 2] += front * (
        22 * at(0, -3, 9, 17)
        - 5 * (at(-31, 25, 11, 8) + at(31, 25, 11, 8))
        + 4 * (at(-30, 46, 18, 6) + at(30, 46, 18, 6))
        + 5 * at(0, -43, 18, 7)
        + 5 * at(0, -75, 14, 10)
    )
    i, j = (a.ravel() for a in np.meshgrid(np.arange(SIDE - 1), np.arange(SIDE - 1), indexing="ij"))
    a, b = i * SIDE + j, (i + 1) * SIDE + j
    c, d = b + 1, a + 1
    # The diagonals mirror each other across the middle column.
    right = (j < SIDE // 2)[:, None]
    first = np.where(right, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(right, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    uv = np.stack([(lon / np.radians(230) + 0.5), (lat / np.radians(144) + 0.5)], 1)
    grid = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    return vertices, np.concatenate([first, second]), uv, grid[:, ::-1].ravel().copy()


def _bump(vertices: Float[np.ndarray, "vertices 3"]) -> Callable[..., Float[np.ndarray, "vertices"]]:
    """at(x, y, wide, high): a Gaussian of the frontal plane, zero on the back of the head."""
    x, y, front = vertices[:, 0].copy(), vertices[:, 1].copy(), vertices[:, 2] > 0

    def at(cx: float, cy: float, wide: float, high: float) -> Float[np.ndarray, "vertices"]:
        return np.asarray(front * np.exp(-(((x - cx) / wide) ** 2 + ((y - cy) / high) ** 2) / 2))

    return at


def _shape_modes(
    mean: Float[np.ndarray, "vertices 3"],
) -> tuple[Float[np.ndarray, "6 vertices 3"], Float[np.ndarray, "5 vertices 3"]]:
    """Six ways to be somebody (mm per standard deviation), five to move (mm at full activation)."""
    at = _bump(mean)
    x, y = mean[:, 0], mean[:, 1]
    low = 1 / (1 + np.exp((y + 30) / 12))

    def move(amount: Float[np.ndarray, "vertices"], along: tuple[float, float, float]) -> np.ndarray:
        return amount[:, None] * np.array(along)

    cheeks = at(-38, -5, 13, 13) + at(38, -5, 13, 13)
    identity = [
        mean * [0.045, 0, 0],
        mean * [0, 0.035, 0],
        move(at(0, -3, 9, 15), (0, 0, 4)),
        move(x * low, (0.08, 0, 0)),
        move(cheeks, (0, 0, 4)),
        move(at(0, -75, 20, 14), (0, -4, 4)),
    ]
    jaw = np.clip((-43 - y) / 30, 0, 1) * (mean[:, 2] > 0)
    expression = [
        move(jaw, (0, -20, -6)),
        move(at(27, -42, 12, 10), (8, 8, -2)),
        move(at(-27, -42, 12, 10), (-8, 8, -2)),
        move(at(-18, 46, 12, 7) + at(18, 46, 12, 7), (0, 9, 1)),
        move(at(-40, -32, 12, 12) + at(40, -32, 12, 12), (0, 0, 12)),
    ]
    return np.stack(identity), np.stack(expression)


def _albedo(
    mean: Float[np.ndarray, "vertices 3"],
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "4 vertices 3"]]:
    """Skin with lips, brows and eyes, and four ways to vary: tone, redness, make-up, a pattern all over."""
    at = _bump(mean)
    x, y = mean[:, 0], mean[:, 1]
    lips, brows = at(0, -43, 15, 6), at(-33, 46, 12, 4) + at(33, 46, 12, 4)
    eyes = at(-31, 25, 8, 4) + at(31, 25, 8, 4)
    skin = SKIN * (1 + 0.08 * np.cos(2 * np.pi * x / 50) * np.sin(2 * np.pi * y / 60))[:, None]
    painted = skin * (1 - lips[:, None] * [0.1, 0.5, 0.45]) * (1 - 0.75 * brows[:, None])
    painted += eyes[:, None] * (0.65 - painted)
    pattern = np.sin(2 * np.pi * np.abs(x) / 38 + 0.7) * np.cos(2 * np.pi * y / 42)
    modes = [
        0.15 * painted,
        0.15 * painted * [1, -0.3, -0.3],
        -0.3 * painted * (brows + lips)[:, None],
        0.12 * SKIN * pattern[:, None],
    ]
    return painted, np.stack(modes)


def _landmarks(mean: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]) -> Landmarks:
    """The plan's points on the front of the mesh, their x and y exact."""
    corners = mean[triangles]
    front = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0
    flat = np.concatenate([corners[:, :, :2], np.ones((len(triangles), 3, 1))], 2).transpose(0, 2, 1)
    front &= np.abs(np.linalg.det(flat)) > 1e-6
    flat[~front] = np.eye(3)
    found, weights = [], []
    for point in landmark_plan():
        solved = np.linalg.solve(flat, np.append(point, 1.0)[None, :, None])[..., 0]
        best = int(np.where(front, solved.min(1), -np.inf).argmax())
        found.append(best)
        weights.append(solved[best])
    return Landmarks(np.arange(68), np.array(found), np.array(weights, np.float32))


def _regions(mean: Float[np.ndarray, "vertices 3"]) -> dict[str, Int[np.ndarray, "n"]]:
    x, y, z = mean.T
    face = (z > 15) & (y > -88) & (y < 72)
    jaw = (z > -25) & (y < 20) & ((np.abs(x) > 42) | (y < -50))
    return {
        "face": np.flatnonzero(face),
        "jaw_contour": np.flatnonzero(jaw),
        "rigid": np.flatnonzero(face & (y > -20)),
    }


def in_double(model: LinearFaceModel) -> LinearFaceModel:
    """The model in float64, for derivatives checked by differences."""
    return replace(
        model,
        mean=model.mean.double(),
        identity_basis=model.identity_basis.double(),
        expression_basis=model.expression_basis.double(),
        albedo_mean=model.albedo_mean.double(),
        albedo_basis=model.albedo_basis.double(),
        expression_unit=model.expression_unit.double(),
    )


def turned(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Float[torch.Tensor, "3"]:
    """The rotation vector of a head turned by the documented angles, degrees, built from scratch."""
    from scipy.spatial.transform import Rotation

    rotation = (
        Rotation.from_rotvec([0, np.radians(yaw), 0])
        * Rotation.from_rotvec([-np.radians(pitch), 0, 0])
        * Rotation.from_rotvec([0, 0, -np.radians(roll)])
    )
    return torch.tensor(rotation.as_rotvec(), dtype=torch.float32)


def toy_scene(
    seed: int = 0,
    yaw: float = 12.0,
    pitch: float = -5.0,
    roll: float = 4.0,
    width: int = 220,
    height: int = 240,
    spread: float = 0.7,
) -> Scene:
    """Somebody in some light: coefficients of the given spread, the head 60 % of the picture's height."""
    model, random = toy_model(), np.random.default_rng(seed)

    def some(count: int, scale: float) -> Float[torch.Tensor, "n"]:
        return torch.tensor(random.normal(0, scale, count), dtype=torch.float32)

    light = Lighting.directional(torch.tensor([0.5, 0.4, 1.0]), 0.6, 0.4)
    tint = 1 + 0.05 * some(27, 1.0).reshape(9, 3)
    return Scene(
        identity=some(model.n_identity, spread),
        expression=some(model.n_expression, spread),
        albedo=some(model.n_albedo, spread),
        pose=Pose(turned(yaw, pitch, roll), torch.tensor([6.0, -9.0, 620.0])),
        camera=Camera.from_field_of_view(width, height),
        lighting=Lighting(light.coefficients * tint),
    )


def landmarks_of(scene: Scene) -> Float[np.ndarray, "68 2"]:
    """The scene's own landmarks in pixels, exact."""
    model = toy_model()
    return project(scene, model.landmark_points(scene.shape(model))).numpy().astype(np.float64)


def photograph(scene: Scene) -> np.ndarray:
    """8-bit sRGB pixels of a scene, four samples per pixel, over a plain background."""
    model, camera = toy_model(), scene.camera
    picture = render(scene, model, 2 * camera.width, 2 * camera.height)
    color = torch.where(picture.covered[..., None], picture.color, torch.tensor(BACKGROUND))
    small = color.reshape(camera.height, 2, camera.width, 2, 3).mean((1, 3))
    return (small.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()


def observe(scene: Scene, focal_sigma: float = 0.0, jaw: bool = False) -> Observation:
    """A photograph of the scene with its exact inner landmarks.

    The jaw points are points of the mesh, not of the silhouette, and therefore unknown unless asked for.
    """
    landmarks = landmarks_of(scene)
    if not jaw:
        landmarks[:17] = np.nan
    return Observation(photograph(scene), scene.camera, landmarks, focal_sigma=focal_sigma)
