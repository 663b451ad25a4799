"""Which part of the face the photograph shows, and which is behind hair, a hand, glasses, cloth or a hard shadow.

Expectation-maximisation of two explanations for each texel: skin of the model's mean albedo in a smooth light, and a
colour model (a histogram) of everything else. No network, no training: what "else" looks like is learnt from the
photograph around the head and from the texels that skin does not explain. The idea is that of Egger et al.,
"Occlusion-aware 3D Morphable Models and an Illumination Prior for Face Image Analysis", IJCV 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d

from facefit.fitting.inliers import SkinMask
from facefit.fitting.projection import rotation_of
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.surface_samples import face_triangles
from facefit.fitting.visibility import corners_of, shape_at
from facefit.kernels.rasterize import rasterize_kernel
from facefit.kernels.skin import head_kernel, skin_kernel
from facefit.kernels.visibility import pose_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.regions import segment_distance
from facefit.models.scene import Scene
from facefit.observation import Observation

# Rounds of expectation and maximisation, from nothing and from an earlier mask; more change hardly a texel.
ROUNDS, ROUNDS_AGAIN = 5, 2
# How far skin strays from its mean albedo under smooth light. Along its own colour (shading, shadow, highlights), in
# sRGB; across it as an angle, for a shadow keeps skin's hue: in 32 photographs the angle is 0.01 to 0.03 from the
# darkest to the brightest tenth of the skin, a dark lens 0.16 off. Estimated, within these bounds; besides, grain and
# compression blur a colour by so much however dark it is.
ALONG, ACROSS, GRAIN = (0.04, 0.12), (0.03, 0.07), 0.015
# Log-odds of face before anything is seen: most faces are not covered; the rest of the head often is, by hair.
FACE_LOG_ODDS, HEAD_LOG_ODDS = 3.0, -1.0
# One texel decides no more than this, so that its surroundings can overrule it.
MOST, MOST_OF_FEATURE = 6.0, 1.0
# Brows, lashes, lips and nostrils have colours of their own: near these lines of landmarks a colour says little, and
# what surrounds it decides.
FEATURE_MM = 4.0
# The same around the brows of a detector, of the distance between the outer corners of the eyes.
BROW_REACH = 0.05
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
    head = _head(scene, model, level, _detected_brows(observation, level))
    shown, light = np.ones(level.usable.shape), None
    face = np.zeros(level.usable.shape, dtype=bool)
    face.ravel()[head.cell[head.face]] = True
    if observation.mask_given:
        shown[face] = level.usable[face]
    elif head.core.sum() >= 20:
        explained, light = _explained(head, level, None if before is None else before.light)
        shown.ravel()[head.cell] = np.where(head.face, explained, 1.0)
    return SkinMask(face, shown, level.scale, level.origin, light)


@dataclass(frozen=True, eq=False)
class _Head:
    """The texels that the head covers: place in the picture's rows, what part of it, light basis, albedo, sRGB."""

    cell: Int[np.ndarray, "n"]
    face: Bool[np.ndarray, "n"]
    feature: Bool[np.ndarray, "n"]
    core: Bool[np.ndarray, "n"]
    basis: Float[np.ndarray, "n 9"]
    albedo: Float[np.ndarray, "n 3"]
    observed: Float[np.ndarray, "n 3"]

    @cached_property
    def brightness(self) -> Float[np.ndarray, "n"]:
        """Length of the observed colour, sRGB."""
        length: Float[np.ndarray, "n"] = np.linalg.norm(self.observed, axis=1)
        return length

    @cached_property
    def products(self) -> Float[np.ndarray, "81 n"]:
        """Each texel's light basis times itself."""
        basis = np.ascontiguousarray(self.basis.T)
        products: Float[np.ndarray, "81 n"] = (basis[:, None] * basis).reshape(81, -1)
        return products


def _detected_brows(observation: Observation, level: PyramidLevel) -> Bool[np.ndarray, "rows columns"]:
    """Texels near the brows that a detector saw: a fit often leaves the model's below raised ones."""
    near = np.zeros(level.usable.shape, dtype=bool)
    if observation.landmarks is None:
        return near
    marks = (observation.landmarks - level.origin) * level.scale
    reach = BROW_REACH * observation.interocular_px * level.scale
    known = marks[17:27][np.isfinite(marks[17:27]).all(axis=1)]
    if not len(known) or not np.isfinite(reach):
        return near
    # Nothing further away than this need be looked at.
    low = np.clip(np.floor(known.min(axis=0) - reach), 0, near.shape[::-1]).astype(int)
    high = np.clip(np.ceil(known.max(axis=0) + reach), 0, near.shape[::-1]).astype(int)
    rows, columns = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
    texels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    start, end = np.concatenate([marks[17:21], marks[22:26]]), np.concatenate([marks[18:22], marks[23:27]])
    close = (segment_distance(texels, start, end) < reach).any(axis=1)
    near[low[1] : high[1], low[0] : high[0]] = close.reshape(rows.shape)
    return near


def _head(
    scene: Scene, model: LinearFaceModel, level: PyramidLevel, brows: Bool[np.ndarray, "rows columns"]
) -> _Head:
    rows, columns = level.usable.shape
    vertices = shape_at(model, scene).numpy()
    rotation, _ = rotation_of(scene)
    posed, pixels, inverse = np.empty(vertices.shape), np.empty((len(vertices), 2)), np.empty(len(vertices))
    centre = (scene.camera.principal_point.numpy().astype(np.float64) - level.origin) * level.scale
    translation = scene.pose.translation_mm.numpy().astype(np.float64)
    focal = float(scene.camera.focal_px) * level.scale
    pose_kernel(vertices, rotation, translation, focal, centre, posed, pixels, inverse)
    nearest, ids = np.empty((rows, columns)), np.empty((rows, columns), dtype=np.int32)
    rasterize_kernel(pixels, inverse, corners_of(model), True, nearest, ids)
    count = rows * columns
    cell, triangle = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int32)
    basis, cosine = np.empty((count, 9), dtype=np.float32), np.empty(count, dtype=np.float32)
    count = head_kernel(ids, corners_of(model), posed, rotation, cell, triangle, basis, cosine)
    cell, triangle, basis, cosine = cell[:count], triangle[:count], basis[:count], cosine[:count]
    parts = _parts(model)
    face, feature = parts.face[triangle], parts.feature[triangle] | brows.ravel()[cell]
    core = face & ~feature & level.usable.ravel()[cell] & (cosine > GRAZING)
    observed = level.image.reshape(-1, 3)[cell]
    return _Head(cell, face, feature, core, basis, parts.albedo[triangle], observed)


def _explained(
    head: _Head, level: PyramidLevel, light: Float[np.ndarray, "9 3"] | None
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "9 3"]]:
    """Probability of each texel of the head to show the head, and the light on skin of the mean albedo."""
    rows, columns = level.usable.shape
    smooth = [_smoothing(size, AROUND * rows / 64) for size in (rows, columns)]
    covered = np.zeros((rows, columns), dtype=np.float32)
    covered.ravel()[head.cell] = 1
    around = np.maximum((smooth[0] @ covered @ smooth[1].T).ravel()[head.cell], 1e-6)
    outside = level.usable & (covered == 0)
    colour = (level.image * BINS).astype(np.int64).clip(0, BINS - 1) @ np.array([BINS * BINS, BINS, 1])
    own, background = colour.ravel()[head.cell], np.bincount(colour[outside], minlength=BINS**3)
    before = np.where(head.face, FACE_LOG_ODDS, HEAD_LOG_ODDS).astype(np.float32)
    most_else = np.where(head.feature, MOST_OF_FEATURE, MOST).astype(np.float32)
    rounds, tries = (ROUNDS, 3) if light is None else (ROUNDS_AGAIN, 1)
    light = _ambient(head) if light is None else light
    shown = np.where(head.core, 1.0, 0.5).astype(np.float32)
    field = np.zeros((rows, columns), dtype=np.float32)
    skin = _Skin.under(light, head, shown, (ALONG[1], ACROSS[1]))
    for number in range(rounds):
        for _ in range(1 if number else tries):
            light = _lit(head, skin, light, shown * head.core / (1 + skin.squared / 12) ** 2)
            skin = _Skin.under(light, head, shown, skin.spread)
        log_else = _log_else(background + np.bincount(own, 1 - shown, BINS**3)).astype(np.float32)
        evidence = before + skin.log_density - log_else[own]
        evidence = evidence.clip(-most_else, MOST)
        for _ in range(2):
            field.ravel()[head.cell] = 2 * shown - 1
            agreed = (smooth[0] @ field @ smooth[1].T).ravel()[head.cell] / around
            shown = 1 / (1 + np.exp(-(evidence + COUPLING * agreed)))
    return shown, light


@lru_cache(maxsize=16)
def _smoothing(size: int, width: float) -> Float[np.ndarray, "size size"]:
    """`gaussian_filter` along one axis as a matrix: at these sizes two products take a quarter of its time."""
    matrix: Float[np.ndarray, "size size"] = gaussian_filter1d(np.eye(size), width, axis=0)
    return matrix.astype(np.float32)


def _ambient(head: _Head) -> Float[np.ndarray, "9 3"]:
    """White-balanced ambient light at the core's median brightness."""
    light = np.zeros((9, 3))
    ratio = _linear(head.observed[head.core]) / head.albedo[head.core]
    light[0] = np.median(ratio, axis=0) / head.basis[0, 0]
    return light


@dataclass(frozen=True, eq=False)
class _Skin:
    """How far each texel is from skin under a light.

    `squared` is the distance in standard deviations, squared; `spread` are these, along skin's colour (sRGB) and across
    it (radians), `variance` the square of the second in sRGB. `difference` is the observed colour minus skin's, `slope`
    the derivative of skin's colour by its irradiance.
    """

    squared: Float[np.ndarray, "n"]
    variance: Float[np.ndarray, "n"]
    spread: tuple[float, float]
    difference: Float[np.ndarray, "n 3"]
    slope: Float[np.ndarray, "n 3"]

    @staticmethod
    def under(
        light: Float[np.ndarray, "9 3"],
        head: _Head,
        shown: Float[np.ndarray, "n"],
        spread: tuple[float, float],
    ) -> _Skin:
        count = len(head.cell)
        along, across = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.float32)
        slope, difference = np.empty((count, 3), dtype=np.float32), np.empty((count, 3), dtype=np.float32)
        colours = head.basis, head.albedo, head.observed, light.astype(np.float32)
        skin_kernel(*colours, along, across, slope, difference)
        judged = head.core & (shown > 0.5)
        if judged.any():
            # Median of |x| to standard deviation in one dimension, and in two.
            angle = across[judged] / np.maximum(head.brightness[judged], 1e-3)
            spread = (
                float(np.clip(1.48 * np.median(np.abs(along[judged])), *ALONG)),
                float(np.clip(np.median(angle) / 1.18, *ACROSS)),
            )
        variance = (spread[1] * head.brightness) ** 2 + GRAIN**2
        squared = (along / spread[0]) ** 2 + across**2 / variance
        return _Skin(squared, variance, spread, difference, slope)

    @property
    def log_density(self) -> Float[np.ndarray, "n"]:
        """Of the observed colours as skin's, per unit cube."""
        constant = math.log(self.spread[0]) + 1.5 * math.log(2 * math.pi)
        density: Float[np.ndarray, "n"] = -0.5 * self.squared - np.log(self.variance) - constant
        return density


def _lit(
    head: _Head, skin: _Skin, light: Float[np.ndarray, "9 3"], weight: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "9 3"]:
    """One Gauss-Newton step of the light towards the colours of what is taken for skin."""
    known = np.where(weight > 1e-3, weight, 0.0).astype(np.float32)[:, None] * skin.slope
    # J^T J of each channel is a weighted sum of products of the basis with itself.
    squares = (head.products @ (known * skin.slope)).T.reshape(3, 9, 9).astype(np.float64)
    target = (head.basis.T @ (known * skin.difference)).T
    stiffness = np.full(9, STIFFNESS * max(float(weight.sum()), 1.0))
    stiffness[0] *= 1e-3
    moved = np.linalg.solve(
        squares + np.diag(stiffness), (target + np.einsum("cij,jc->ci", squares, light))[..., None]
    )
    return np.ascontiguousarray(moved[..., 0].T)


def _log_else(counts: Float[np.ndarray, "bins"]) -> Float[np.ndarray, "bins"]:
    """Logarithm of the density of colours (per unit cube) that are no skin of this face."""
    along = _smoothing(BINS, 0.7)
    smooth = (along @ counts.reshape(BINS, -1)).reshape(BINS, BINS, BINS)
    smooth = (along @ smooth @ along.T).ravel()
    density = (1 - UNSEEN) * smooth / max(float(smooth.sum()), 1.0) * BINS**3 + UNSEEN
    logarithm: Float[np.ndarray, "bins"] = np.log(density)
    return logarithm


def _linear(srgb: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


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
