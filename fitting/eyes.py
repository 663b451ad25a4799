"""The colour of the irises and where they look: seen when everything else is known.

The face's samples lie on skin, so nothing tells a fit what colour the eyes have and where they look. They are looked at
last, with shape, pose and light fixed: each eyeball is a sphere between the lids, and both turn until the irises lie
where the photograph has them. Where it shows no eye between the lids (dark glasses, closed lids, hair) the irises keep
the model's mean, and the gaze goes straight ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.fitting.eyeballs import RING_MM, Eyeballs, eyeballs_of, on_sphere
from facefit.fitting.gaze import Gaze, gaze_shapes, with_gaze
from facefit.fitting.projection import rotation_of
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.visibility import corners_of, shape_at
from facefit.kernels.eyes import eyes_kernel
from facefit.kernels.rasterize import rasterize_kernel
from facefit.kernels.visibility import pose_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.lighting import irradiance_basis
from facefit.models.scene import Scene

# What a texel of an eye strays by (roots of linear colour): lashes, highlights, vessels; and how many observations all
# texels are worth. Where the irises lie is seen more dimly than what colour they have there: the lids may be wrong.
COLOUR, GAZE = (0.06, 40.0), (0.1, 15.0)
# Where the pupils' middles are looked for first, mm to the subject's left and up, on about so many texels; how many of
# these places are followed; what pupils in photographs stray by from straight ahead, and each inwards besides.
LEFT_MM, UP_MM, FEW, FOLLOWED = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0), (-3.5, -1.0, 1.5), 60, 2
STRAYS_MM = np.array([3.0, 1.8, 0.3])
# While it is looked for, the white of the eyes may be lighter than the model's and irises lighter or darker, by these
# shares, and the upper lid may shade what lies under it.
WHITE, IRIS, SHADOW = 0.5, 0.3, 0.4
FEWEST, CLEARLY, MOST = 20, 40, 200
FIRST_ROUNDS, ROUNDS = 2, 5
# No eye is further from the mean (deviations): in a dark photograph it would be black.
FURTHEST = 4.0
# Black, in linear colour: the slope of the root there is not believed.
DARKEST = 0.0015
# Geman and McClure's weight falls to a quarter at so many deviations; at first at (1 + WIDE) times as many, for an iris
# that lies beside its place on the photograph looks like an outlier all around.
TOLERANCE, WIDE = 2.5, 3.0
# An eye that, looking straight ahead, would look further from the camera than this (cosine) shows too little iris.
ASIDE = 0.5


@dataclass(frozen=True, eq=False)
class _Seen:
    """Texels between the lids: whose eye, which point of its sphere (unit vector in the head), the light there, how far
    up between the lids (mean 0, deviation 1), and the root of the linear colour. `clearly`: enough of an eye is seen,
    and not too much from the side, to tell where it looks."""

    eye: Int[np.ndarray, "n"]
    aim: Float[np.ndarray, "n 3"]
    light: Float[np.ndarray, "n 3"]
    height: Float[np.ndarray, "n"]
    root: Float[np.ndarray, "n 3"]
    clearly: bool

    def every(self, step: int) -> _Seen:
        eye, aim, light, height, root = (
            np.ascontiguousarray(part[::step])
            for part in (self.eye, self.aim, self.light, self.height, self.root)
        )
        return _Seen(eye, aim, light, height, root, self.clearly)


@dataclass(frozen=True, eq=False)
class _Answers:
    """For each start: coefficients of the modes, shadow and gaze; what they cost; and their precision."""

    unknown: Float[np.ndarray, "starts unknowns"]
    cost: Float[np.ndarray, "starts"]
    precision: Float[np.ndarray, "starts unknowns unknowns"]


def with_eyes(scene: Scene, model: LinearFaceModel, level: PyramidLevel | None) -> tuple[Scene, Gaze | None]:
    """The scene with the colour of its eyes and their gaze as the photograph has them, straight ahead without one.

    The gaze is None for a model whose expressions do not turn its eyes.
    """
    eyes = eyeballs_of(model)
    if eyes is None:
        return scene, None
    seen = None if level is None else _seen(scene, model, level, eyes)
    shown, gaze, covariance = False, np.zeros(3), np.diag((STRAYS_MM / eyes.radius) ** 2)
    if seen is not None:
        found = _looked_for(seen, eyes)
        best = found.cost.argmin()
        # The other explanation: one colour, whatever it is.
        shown = seen.clearly and bool(found.cost[best] < _plain(seen))
        if shown:
            gaze = found.unknown[best, -3:]
            covariance = np.linalg.inv(found.precision[best])[-3:, -3:]
        albedo = scene.albedo.clone()
        colour = torch.from_numpy(_coloured(seen, eyes, found.unknown[[best]], shown))
        albedo[torch.from_numpy(eyes.modes)] = colour.to(albedo)
        scene = replace(scene, albedo=albedo)
    shapes = gaze_shapes(model, eyes)
    if shapes is None or len(scene.expression) < model.n_expression:
        return scene, None
    return with_gaze(scene, shapes, eyes, gaze, covariance, shown)


def _looked_for(seen: _Seen, eyes: Eyeballs) -> _Answers:
    """The likeliest gazes."""
    modes = len(eyes.modes) + 2
    left, up, inwards = (axis.ravel() for axis in np.meshgrid(LEFT_MM, UP_MM, [0.0]))
    starts = np.zeros((len(left), modes + 4))
    starts[:, -3:] = np.stack([left, up, inwards], 1) / eyes.radius
    weight = np.concatenate([np.ones(modes), [SHADOW**-2.0], (STRAYS_MM / eyes.radius) ** -2.0])
    first = _explained(seen.every(-(-len(seen.eye) // FEW)), eyes, True, starts, weight, False, FIRST_ROUNDS)
    followed = starts[np.argsort(first.cost, kind="stable")[:FOLLOWED]]
    return _explained(seen, eyes, True, followed, weight, True)


def _coloured(
    seen: _Seen, eyes: Eyeballs, found: Float[np.ndarray, "1 unknowns"], shown: bool
) -> Float[np.ndarray, "modes"]:
    """The eyes' modes where they look, begun with what they had while they were looked for."""
    modes = len(eyes.modes)
    start = found[:, 2:] * np.repeat([shown, False, True], [modes, 1, 3])
    # Where no eye is seen, only the light between the lids is believed, and that is searched from afar.
    deviations = np.ones(modes) if shown else np.where(eyes.is_iris, 1e-3, 1.0)
    weight = np.concatenate([deviations**-2.0, [1e6], np.zeros(3)])
    known = _explained(seen, eyes, False, start, weight, False, wide=0.0 if shown else WIDE)
    return known.unknown[0, :modes].clip(-FURTHEST, FURTHEST)


def _explained(
    seen: _Seen,
    eyes: Eyeballs,
    freely: bool,
    starts: Float[np.ndarray, "starts unknowns"],
    weight: Float[np.ndarray, "unknowns"],
    turning: bool,
    rounds: int = ROUNDS,
    wide: float = WIDE,
) -> _Answers:
    """What explains the texels best near each start: everything, or everything but the gaze."""
    colours, slopes = _by_ring(eyes, freely)
    sigma, independent = GAZE if freely else COLOUR
    count = starts.shape[1]
    found = _Answers(starts.copy(), np.empty(len(starts)), np.empty((len(starts), count, count)))
    eyes_kernel(
        colours,
        slopes,
        RING_MM / eyes.radius,
        seen.eye,
        seen.aim,
        seen.light,
        seen.height,
        seen.root,
        weight,
        independent / len(seen.eye),
        sigma,
        TOLERANCE,
        wide,
        DARKEST,
        turning,
        rounds,
        found.unknown,
        found.cost,
        found.precision,
    )
    return found


@lru_cache(maxsize=8)
def _by_ring(
    eyes: Eyeballs, freely: bool
) -> tuple[Float[np.ndarray, "rings channels_3"], Float[np.ndarray, "rings channels_3"]]:
    """The eyes' colours and their slopes by distance; `freely` with modes for the white and the iris alone as well."""
    mean, own = eyes.colours[:, :1], eyes.colours[:, 1:]
    light = mean.mean(2, keepdims=True)
    white = ((light / light[-1] - 0.3) / 0.5).clip(0, 1)
    more = [WHITE * white * mean, IRIS * (1 - white) * mean] if freely else []
    flat = np.concatenate([mean, *more, own], axis=1).reshape(len(mean), -1)
    return flat, np.gradient(flat, RING_MM / eyes.radius, axis=0)


def _plain(seen: _Seen) -> float:
    """What it costs to explain the texels by one colour."""
    sigma, independent = GAZE
    colour = np.median(seen.root, axis=0)
    for _ in range(FIRST_ROUNDS + 1):
        squared = ((seen.root - colour) ** 2).mean(1) / (sigma * TOLERANCE) ** 2
        weight = 1 / (1 + squared) ** 2
        colour = weight @ seen.root / weight.sum()
    return float(1.5 * independent * TOLERANCE**2 * (squared / (1 + squared)).mean())


def _seen(scene: Scene, model: LinearFaceModel, level: PyramidLevel, eyes: Eyeballs) -> _Seen | None:
    """None where too little of the eyes is seen."""
    vertices, (rotation, _) = shape_at(model, scene).numpy(), rotation_of(scene)
    posed, pixels, inverse = np.empty(vertices.shape), np.empty((len(vertices), 2)), np.empty(len(vertices))
    principal = (scene.camera.principal_point.numpy().astype(np.float64) - level.origin) * level.scale
    focal = float(scene.camera.focal_px) * level.scale
    translation = scene.pose.translation_mm.numpy().astype(np.float64)
    pose_kernel(vertices, rotation, translation, focal, principal, posed, pixels, inverse)
    limit = np.array(level.usable.shape)[::-1]
    low = np.floor(pixels[eyes.vertices].min(0)).clip(0, limit - 1).astype(np.int64)
    high = np.ceil(pixels[eyes.vertices].max(0)).clip(low + 1, limit).astype(np.int64)
    columns, rows = high - low
    nearest, head = np.empty((rows, columns)), np.empty((rows, columns), dtype=np.int32)
    rasterize_kernel(pixels - low, inverse, corners_of(model), True, nearest, head)

    identity = scene.identity.numpy().astype(np.float64)
    middle = eyes.centre_mean + np.tensordot(identity, eyes.centre_basis[: len(identity)], 1)
    middle = middle @ rotation.T + translation
    ahead = -(middle @ rotation[:, 2]) / np.linalg.norm(middle, axis=1) > ASIDE
    texels = (slice(low[1], high[1]), slice(low[0], high[0]))
    y, x = np.nonzero((head >= 0) & (eyes.eye_of[head] >= 0) & level.usable[texels])
    if len(y) < FEWEST:
        return None
    kept = ahead[eyes.eye_of[head[y, x]]]
    clearly = bool(kept.sum() >= CLEARLY)
    if clearly:
        y, x = y[kept], x[kept]
    step = -(-len(y) // MOST)
    y, x = y[::step], x[::step]
    eye = eyes.eye_of[head[y, x]]
    ray = np.stack(
        [x + low[0] + 0.5 - principal[0], y + low[1] + 0.5 - principal[1], np.full(len(x), focal)], 1
    )
    aim = on_sphere(ray, middle[eye], eyes.radius) @ rotation
    light = irradiance_basis(torch.from_numpy(aim)).numpy() @ scene.lighting.coefficients.numpy()
    photo = level.image[texels][y, x].astype(np.float64)
    linear = np.where(photo > 0.04045, ((photo + 0.055) / 1.055) ** 2.4, photo / 12.92)
    return _Seen(eye, aim, np.maximum(light, 1e-3), _height(eye, aim), np.sqrt(linear), clearly)


def _height(eye: Int[np.ndarray, "n"], aim: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    height = np.zeros(len(eye))
    for own in (eye == 0, eye == 1):
        up = aim[own, 1]
        height[own] = (up - up.mean()) / max(up.std(), 1e-3) if len(up) else up
    return height
