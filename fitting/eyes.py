"""The colour of the irises: seen when everything else is known.

The face's samples lie on skin, so nothing tells a fit what colour the eyes have. They are looked at last, with shape,
pose and light fixed, and move no other number. Models pose their eyes straight ahead while people look to the side, so
the eyes are also moved about in the picture until they explain it best; where the photograph shows no eye between the
lids (dark glasses, closed lids, hair) they keep the model's mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from facefit.fitting.projection import rotation_of
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.visibility import corners_of, shape_at
from facefit.kernels.rasterize import rasterize_kernel
from facefit.kernels.skin import head_kernel
from facefit.kernels.visibility import pose_kernel
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

# A mode belongs to the eyes where the rest of the model has less than this of it.
ELSEWHERE = 1e-3
# What a texel of an eye strays by (sRGB): lashes, highlights, vessels. All texels are worth this many observations.
SIGMA, INDEPENDENT = 0.06, 40.0
# Where the eyes may look: the iris is moved so far across and down the picture. Who looks down hides the iris; lids
# that the fit leaves too low are like an iris too low.
ACROSS_MM, DOWN_MM, GAZE_SIGMA_MM = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0), (-2.0, 0.0), 3.0
FEWEST, MOST = 20, 100
ROUNDS = 3
# Black, in linear colour: the slope of sRGB there is not believed.
DARKEST = 0.005
# Geman and McClure's weight falls to a quarter at so many deviations.
TOLERANCE = 2.5


@dataclass(frozen=True, eq=False)
class _Eyes:
    """A model's eyeballs: vertices, triangles, per triangle the mean albedo and then the modes that only they have.

    `is_iris` marks modes that leave the white of the eye alone.
    """

    vertices: Int[np.ndarray, "balls"]
    triangles: Int[np.ndarray, "eye 3"]
    is_eye: Bool[np.ndarray, "triangles"]
    modes: Int[np.ndarray, "modes"]
    is_iris: Bool[np.ndarray, "modes"]
    colours: Float[np.ndarray, "eye 1+modes 3"]


def with_eye_colour(scene: Scene, model: LinearFaceModel, level: PyramidLevel) -> Scene:
    """The scene with the albedo modes of its eyes as the photograph has them."""
    eyes = _eyes(model)
    seen = None if eyes is None else _seen(scene, model, level, eyes)
    if eyes is None or seen is None:
        return scene
    colours, observed, gaze = seen
    known, cost = _explained(colours, observed, np.ones(len(eyes.modes)))
    # The other explanation: one colour, whatever it is. Then only the light between the lids is believed.
    flat = np.concatenate([np.full((3, 1), 0.2), 0.2 * np.eye(3)], axis=1)
    _, plain = _explained(np.broadcast_to(flat, (1, len(observed), 3, 4)), observed, np.full(3, 3.0))
    if (cost + gaze).min() > plain[0]:
        known, cost = _explained(colours, observed, np.where(eyes.is_iris, 1e-3, 1.0))
    albedo = scene.albedo.clone()
    albedo[torch.from_numpy(eyes.modes)] = torch.from_numpy(known[(cost + gaze).argmin()]).to(albedo)
    return replace(scene, albedo=albedo)


def _explained(
    colours: Float[np.ndarray, "gazes n 3 1+unknowns"],
    observed: Float[np.ndarray, "n 3"],
    deviations: Float[np.ndarray, "unknowns"],
) -> tuple[Float[np.ndarray, "gazes unknowns"], Float[np.ndarray, "gazes"]]:
    """For each gaze the unknowns near 0 that explain the colours (sRGB) best, robustly, and their cost.

    `colours` are linear: at 0, and what one unit of each unknown adds.
    """
    gazes, count = colours.shape[:2]
    worth, prior = INDEPENDENT / count, np.diag(deviations**-2.0)
    known = np.zeros((gazes, len(deviations), 1))
    weight = np.ones((gazes, count))
    flat = colours.reshape(gazes, 3 * count, -1)
    mean, modes, wanted = flat[..., :1], flat[..., 1:], observed.reshape(-1, 1)
    for number in range(ROUNDS + 1):
        linear = np.maximum(mean + modes @ known, DARKEST)
        root = linear ** (1 / 2.4)
        gap = (wanted - 1.055 * root + 0.055) / SIGMA
        squared = (gap**2).reshape(gazes, count, 3).mean(2) / TOLERANCE**2
        if number == ROUNDS:
            break
        weight = 1 / (1 + squared) ** 2
        rows = modes * (1.055 / 2.4 / SIGMA * root / linear)
        weighted = rows.transpose(0, 2, 1) * np.repeat(worth * weight, 3, axis=1)[:, None]
        known = np.linalg.solve(weighted @ rows + prior, weighted @ (gap + rows @ known))
    cost = 1.5 * worth * TOLERANCE**2 * (squared / (1 + squared)).sum(1)
    return known[..., 0], cost + 0.5 * ((known[..., 0] / deviations) ** 2).sum(1)


def _seen(
    scene: Scene, model: LinearFaceModel, level: PyramidLevel, eyes: _Eyes
) -> (
    tuple[Float[np.ndarray, "gazes n 3 1+modes"], Float[np.ndarray, "n 3"], Float[np.ndarray, "gazes"]] | None
):
    """Between the lids: for each gaze the mean's linear colours and what each mode adds; the photograph's in sRGB; and
    what each gaze costs. None where too little of the eyes is seen.
    """
    vertices, (rotation, _) = shape_at(model, scene).numpy(), rotation_of(scene)
    posed, pixels, inverse = np.empty(vertices.shape), np.empty((len(vertices), 2)), np.empty(len(vertices))
    centre = (scene.camera.principal_point.numpy().astype(np.float64) - level.origin) * level.scale
    focal = float(scene.camera.focal_px) * level.scale
    translation = scene.pose.translation_mm.numpy().astype(np.float64)
    pose_kernel(vertices, rotation, translation, focal, centre, posed, pixels, inverse)
    used = eyes.vertices
    limit = np.array(level.usable.shape)[::-1]
    low = np.floor(pixels[used].min(0)).clip(0, limit - 1).astype(np.int64)
    high = np.ceil(pixels[used].max(0)).clip(low + 1, limit).astype(np.int64)
    pixels -= low
    columns, rows = high - low
    nearest, head = np.empty((rows, columns)), np.empty((rows, columns), dtype=np.int32)
    rasterize_kernel(pixels, inverse, corners_of(model), True, nearest, head)
    balls = np.empty((rows, columns), dtype=np.int32)
    rasterize_kernel(pixels, inverse, eyes.triangles, True, nearest, balls)
    texels = (slice(low[1], high[1]), slice(low[0], high[0]))
    y, x = np.nonzero((head >= 0) & eyes.is_eye[head] & (balls >= 0) & level.usable[texels])
    if len(y) < FEWEST:
        return None
    step = -(-len(y) // MOST)
    y, x = y[::step], x[::step]

    colours, covered = _lit(scene, balls, posed, rotation, eyes)
    texel_mm = float(np.median(posed[used, 2])) / focal
    gaze = np.stack(np.meshgrid(ACROSS_MM, DOWN_MM), -1).reshape(-1, 2)
    shift = np.rint(gaze / texel_mm).astype(np.int64)
    from_y, from_x = y - shift[:, 1:], x - shift[:, :1]
    inside = (from_y >= 0) & (from_y < rows) & (from_x >= 0) & (from_x < columns)
    from_y, from_x = np.where(inside, from_y, y), np.where(inside, from_x, x)
    # A gaze that would look past the ball's edge leaves such a texel as it is.
    on_ball = covered[from_y, from_x]
    from_y, from_x = np.where(on_ball, from_y, y), np.where(on_ball, from_x, x)
    photo = level.image[texels][y, x].astype(np.float64)
    return colours[from_y, from_x].transpose(0, 1, 3, 2), photo, 0.5 * ((gaze / GAZE_SIGMA_MM) ** 2).sum(1)


def _lit(
    scene: Scene,
    ids: Int[np.ndarray, "rows columns"],
    posed: Float[np.ndarray, "vertices 3"],
    rotation: Float[np.ndarray, "3 3"],
    eyes: _Eyes,
) -> tuple[Float[np.ndarray, "rows columns 1+modes 3"], Bool[np.ndarray, "rows columns"]]:
    """The eyeballs in the scene's light as if there were no lids, and the texels that they cover."""
    cell, triangle = np.empty(ids.size, dtype=np.int64), np.empty(ids.size, dtype=np.int32)
    basis, cosine = np.empty((ids.size, 9), dtype=np.float32), np.empty(ids.size, dtype=np.float32)
    count = head_kernel(ids, eyes.triangles, posed, rotation, cell, triangle, basis, cosine)
    light = np.maximum(basis[:count] @ scene.lighting.coefficients.numpy(), 1e-3)
    colours = np.zeros((*ids.shape, *eyes.colours.shape[1:]))
    colours.reshape(ids.size, *eyes.colours.shape[1:])[cell[:count]] = (
        eyes.colours[triangle[:count]] * light[:, None]
    )
    return colours, ids >= 0


@lru_cache(maxsize=4)
def _eyes(model: LinearFaceModel) -> _Eyes | None:
    if "eyeballs" not in model.topology.regions or not model.n_albedo:
        return None
    ball = np.zeros(model.n_vertices, dtype=bool)
    ball[model.topology.regions["eyeballs"]] = True
    # One after the other: a copy of all modes would stay in the process's memory.
    modes = np.stack([np.abs(mode).max(1) for mode in model.albedo_basis.numpy()])
    own = np.flatnonzero(
        (modes[:, ball].max(1) > ELSEWHERE) & (modes[:, ~ball].max(1, initial=0) < ELSEWHERE)
    )
    is_eye = ball[model.topology.triangles].all(1)
    triangles = np.ascontiguousarray(model.topology.triangles[is_eye], dtype=np.int32)
    if not len(own) or not len(triangles):
        return None
    albedo = np.concatenate([model.albedo_mean.numpy()[None], model.albedo_basis.numpy()[own]])
    colours = albedo[:, triangles].mean(2).transpose(1, 0, 2)
    white = colours[:, 0].min(1) > 0.5 * colours[:, 0].max()
    is_iris = np.abs(colours[white, 1:]).max((0, 2), initial=0) < ELSEWHERE
    return _Eyes(np.unique(triangles), triangles, is_eye, own, is_iris, colours)
