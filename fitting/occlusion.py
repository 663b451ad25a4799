"""Which part of the face the photograph shows, and which is behind hair, a hand, glasses, cloth or a hard shadow.

Expectation-maximisation of two explanations for each texel: skin of the model's mean albedo in a smooth light, and a
colour model (a histogram) of everything else. No network, no training: what "else" looks like is learnt from the
photograph around the head and from the texels that skin does not explain. The idea is that of Egger et al.,
"Occlusion-aware 3D Morphable Models and an Illumination Prior for Face Image Analysis", IJCV 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter

from facefit.fitting.inliers import SkinMask
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.surface_samples import face_triangles
from facefit.fitting.visibility import corners_of, shape_at
from facefit.kernels.rasterize import rasterize_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import irradiance_basis
from facefit.models.regions import segment_distance
from facefit.models.scene import Scene
from facefit.observation import Observation

# Rounds of expectation and maximisation, from nothing and from an earlier mask; more change hardly a texel.
ROUNDS, ROUNDS_AGAIN = 5, 2
# How far skin strays from its mean albedo under smooth light, in sRGB: along its own colour (shading, shadow,
# highlights) more than across it. Estimated, within these bounds.
ALONG, ACROSS = (0.04, 0.12), (0.045, 0.07)
# Log-odds of face before anything is seen: most faces are not covered; the rest of the head often is, by hair.
FACE_LOG_ODDS, HEAD_LOG_ODDS = 3.0, -1.0
# One texel decides no more than this, so that its surroundings can overrule it.
MOST, MOST_OF_FEATURE = 6.0, 1.0
# Brows, lashes, lips and nostrils have colours of their own: near these lines of landmarks a colour says little, and
# what surrounds it decides.
FEATURE_MM = 4.0
FEATURES = (
    (*range(17, 22),), (*range(22, 27),), (*range(31, 36),), (*range(36, 42), 36), (*range(42, 48), 42),
    (*range(48, 60), 48), (*range(60, 68), 60),
)  # fmt: skip
# Neighbours agree: log-odds gained where all around is face, and what is around (texels of a level of 64).
COUPLING, AROUND = 4.0, 1.5
# Colours of "else": bins a side of the cube, and the share of them that was never seen before.
BINS, UNSEEN = 8, 0.3
# Light that is not ambient needs a reason: its prior, per unit of evidence.
STIFFNESS = 1e-4
GRAZING = 0.2


def skin_mask(
    observation: Observation,
    scene: Scene,
    model: LinearFaceModel,
    level: PyramidLevel,
    before: SkinMask | None = None,
) -> SkinMask:
    """Where the face region of a scene is seen and shows skin; `before` is an earlier mask of the photograph.

    A mask that the user has given is taken at its word.
    """
    head = _head(scene, model, level)
    shown, light = np.ones(level.usable.shape), None
    face = np.zeros(level.usable.shape, dtype=bool)
    face[head.row[head.face], head.column[head.face]] = True
    if observation.mask_given:
        shown[face] = level.usable[face]
    elif head.core.sum() >= 20:
        explained, light = _explained(head, level, None if before is None else before.light)
        shown[head.row, head.column] = np.where(head.face, explained, 1.0)
    return SkinMask(face, shown, level.scale, level.origin, light)


@dataclass(frozen=True, eq=False)
class _Head:
    """The texels that the head covers: where, what part of it, its light basis, mean albedo, observed sRGB."""

    row: Int[np.ndarray, "n"]
    column: Int[np.ndarray, "n"]
    face: Bool[np.ndarray, "n"]
    feature: Bool[np.ndarray, "n"]
    core: Bool[np.ndarray, "n"]
    basis: Float[np.ndarray, "n 9"]
    albedo: Float[np.ndarray, "n 3"]
    observed: Float[np.ndarray, "n 3"]


def _head(scene: Scene, model: LinearFaceModel, level: PyramidLevel) -> _Head:
    rows, columns = level.usable.shape
    vertices = shape_at(model, scene)
    posed = scene.pose.apply(vertices)
    texels = ((scene.camera.project(posed) - torch.from_numpy(level.origin)) * level.scale).numpy()
    depth = posed[:, 2].numpy().astype(np.float64)
    nearest, ids = np.empty((rows, columns)), np.empty((rows, columns), dtype=np.int32)
    inverse = np.where(depth > 1e-6, 1 / np.maximum(depth, 1e-6), 0.0)
    rasterize_kernel(
        np.ascontiguousarray(texels, dtype=np.float64), inverse, corners_of(model), True, nearest, ids
    )
    row, column = np.nonzero(ids >= 0)
    triangle = ids[row, column]
    corner = model.topology.triangles[triangle]
    a, b, c = vertices.numpy()[corner].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.sqrt((normal**2).sum(1, keepdims=True)), 1e-12)
    sight = posed.numpy()[corner[:, 0]]
    in_camera = normal @ scene.pose.camera_from_model.numpy().T
    cosine = -(in_camera * sight).sum(1) / np.maximum(np.sqrt((sight**2).sum(1)), 1e-12)
    parts = _parts(model)
    face, feature = parts.face[triangle], parts.feature[triangle]
    return _Head(
        row,
        column,
        face,
        feature,
        face & ~feature & level.usable[row, column] & (cosine > GRAZING),
        irradiance_basis(torch.from_numpy(normal)).numpy(),
        parts.albedo[triangle],
        level.image[row, column],
    )


def _explained(
    head: _Head, level: PyramidLevel, light: Float[np.ndarray, "9 3"] | None
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "9 3"]]:
    """Probability of each texel of the head to show the head, and the light on skin of the mean albedo."""
    rows, columns = level.usable.shape
    width = AROUND * rows / 64
    covered = np.zeros((rows, columns))
    covered[head.row, head.column] = 1
    around = gaussian_filter(covered, width)[head.row, head.column]
    outside = level.usable & (covered == 0)
    colour = (level.image * BINS).astype(np.int64).clip(0, BINS - 1) @ np.array([BINS * BINS, BINS, 1])
    own, background = colour[head.row, head.column], np.bincount(colour[outside], minlength=BINS**3)
    before = np.where(head.face, FACE_LOG_ODDS, HEAD_LOG_ODDS)
    most_else = np.where(head.feature, MOST_OF_FEATURE, MOST)
    rounds, tries = (ROUNDS, 3) if light is None else (ROUNDS_AGAIN, 1)
    light, spread = _ambient(head) if light is None else light, (ALONG[1], ACROSS[1])
    shown = np.where(head.core, 1.0, 0.5)
    field = np.zeros((rows, columns))
    squared, spread = _misfit(head, light, shown, spread)
    for number in range(rounds):
        for _ in range(1 if number else tries):
            light = _lit(head, light, shown * head.core / (1 + squared / 12) ** 2)
            squared, spread = _misfit(head, light, shown, spread)
        log_skin = (
            -0.5 * squared - math.log(spread[0]) - 2 * math.log(spread[1]) - 1.5 * math.log(2 * math.pi)
        )
        evidence = before + log_skin - _log_else(background + np.bincount(own, 1 - shown, BINS**3))[own]
        evidence = evidence.clip(-most_else, MOST)
        for _ in range(2):
            field[head.row, head.column] = 2 * shown - 1
            agreed = gaussian_filter(field, width)[head.row, head.column] / np.maximum(around, 1e-6)
            shown = 1 / (1 + np.exp(-(evidence + COUPLING * agreed)))
    return shown, light


def _ambient(head: _Head) -> Float[np.ndarray, "9 3"]:
    """White-balanced ambient light at the core's median brightness."""
    light = np.zeros((9, 3))
    ratio = _linear(head.observed[head.core]) / head.albedo[head.core]
    light[0] = np.median(ratio, axis=0) / head.basis[0, 0]
    return light


def _misfit(
    head: _Head, light: Float[np.ndarray, "9 3"], shown: Float[np.ndarray, "n"], spread: tuple[float, float]
) -> tuple[Float[np.ndarray, "n"], tuple[float, float]]:
    """Squared distance from skin in standard deviations, along and across its colour, and these deviations."""
    skin = _srgb(head.albedo * (head.basis @ light.astype(np.float32)))
    difference = head.observed - skin
    length = np.sqrt(np.einsum("nc,nc->n", skin, skin))
    along = np.einsum("nc,nc->n", difference, skin) / np.maximum(length, 1e-6)
    across = np.sqrt(np.maximum(np.einsum("nc,nc->n", difference, difference) - along**2, 0))
    judged = head.core & (shown > 0.5)
    if judged.any():
        # Median of |x| to standard deviation in one dimension, and in two.
        spread = (
            float(np.clip(1.48 * np.median(np.abs(along[judged])), *ALONG)),
            float(np.clip(np.median(across[judged]) / 1.18, *ACROSS)),
        )
    return (along / spread[0]) ** 2 + (across / spread[1]) ** 2, spread


def _lit(
    head: _Head, light: Float[np.ndarray, "9 3"], weight: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "9 3"]:
    """One Gauss-Newton step of the light towards the colours of what is taken for skin."""
    chosen = np.flatnonzero(weight > 1e-3)
    basis, albedo, root = head.basis[chosen], head.albedo[chosen], np.sqrt(weight[chosen])
    linear = np.maximum(albedo * (basis @ light.astype(np.float32)), 1e-4)
    skin = _srgb(linear)
    slope = np.where(linear > 1, 1.055 / 2.4, (skin + 0.055) / linear / 2.4)
    scale = root[:, None] * slope * albedo
    difference = root[:, None] * (head.observed[chosen] - skin)
    stiffness = np.full(9, STIFFNESS * max(float(weight.sum()), 1.0))
    stiffness[0] *= 1e-3
    moved = np.empty_like(light)
    for channel in range(3):
        jacobian = (scale[:, channel, None] * basis).astype(np.float64)
        square = jacobian.T @ jacobian
        target = jacobian.T @ difference[:, channel] + square @ light[:, channel]
        moved[:, channel] = np.linalg.solve(square + np.diag(stiffness), target)
    return moved


def _log_else(counts: Float[np.ndarray, "bins"]) -> Float[np.ndarray, "bins"]:
    """Logarithm of the density of colours (per unit cube) that are no skin of this face."""
    smooth = gaussian_filter(counts.reshape(BINS, BINS, BINS).astype(np.float64), 0.7).ravel()
    density = (1 - UNSEEN) * smooth / max(float(smooth.sum()), 1.0) * BINS**3 + UNSEEN
    logarithm: Float[np.ndarray, "bins"] = np.log(density)
    return logarithm


def _linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def _srgb(linear: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """As `rendering.shade.linear_to_srgb`, straight on above 1; dark ends do not matter here."""
    curve = 1.055 * np.maximum(linear, 1e-4) ** (1 / 2.4) - 0.055
    return np.where(linear > 1, 1 + (linear - 1) * (1.055 / 2.4), curve)


@dataclass(frozen=True, eq=False)
class _Parts:
    """Per triangle of a model."""

    face: Bool[np.ndarray, "triangles"]
    feature: Bool[np.ndarray, "triangles"]
    albedo: Float[np.ndarray, "triangles 3"]


@lru_cache(maxsize=4)
def _parts(model: LinearFaceModel) -> _Parts:
    triangles = model.topology.triangles
    face = np.zeros(len(triangles), dtype=bool)
    face[face_triangles(model.topology, model.n_vertices)] = True
    marks = dict(
        zip(model.topology.landmarks.numbers.tolist(), model.landmark_points(model.mean).numpy(), strict=True)
    )
    distance = np.full(model.n_vertices, np.inf)
    for line in FEATURES:
        points = np.array([marks[n] for n in line if n in marks])
        if len(points) > 1:
            near = segment_distance(model.mean.numpy(), points[:-1], points[1:]).min(axis=1)
            distance = np.minimum(distance, near)
    feature = distance[triangles].min(axis=1) < FEATURE_MM
    albedo = np.maximum(model.albedo_mean.numpy()[triangles].mean(axis=1), 0.005)
    return _Parts(face, feature, albedo)
