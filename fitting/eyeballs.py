"""A model's eyeballs as a fit sees them: spheres with round irises."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from facefit.models.eye_turns import ball_centre
from facefit.models.face_model import LinearFaceModel
from facefit.rendering.rasterize import rasterize

# A mode belongs to the eyes where the rest of the model has less than this of it.
ELSEWHERE = 1e-3
# Colours are known in rings about the axis of gaze, so wide; from here on outwards everything is the white of the eye,
# for what the model paints there (the lids' shadow, their red corners) does not turn with the gaze.
RING_MM, WHITE_MM, LAST_MM = 0.25, 7.5, 9.0


@dataclass(frozen=True, eq=False)
class Eyeballs:
    """The subject's left and right eye.

    `eye_of` says whose ball a triangle belongs to (-1: neither), `pupil` is the vertex in the middle of it and `radius`
    from there to the centre. `centre_mean` and `centre_basis` give the centres by identity. `colours` are linear, by
    distance from the axis of gaze: the mean's, and what each of `modes` adds, which only eyes have. `is_iris` marks
    modes that leave the white of the eye alone.
    """

    eye_of: Int[np.ndarray, "triangles"]
    vertices: Int[np.ndarray, "balls"]
    pupil: Int[np.ndarray, "2"]
    centre_mean: Float[np.ndarray, "2 3"]
    centre_basis: Float[np.ndarray, "identity 2 3"]
    radius: float
    modes: Int[np.ndarray, "modes"]
    is_iris: Bool[np.ndarray, "modes"]
    colours: Float[np.ndarray, "rings 1+modes 3"]


@lru_cache(maxsize=4)
def eyeballs_of(model: LinearFaceModel) -> Eyeballs | None:
    """None for a model without eyeballs, or whose albedo has no word for them."""
    if "eyeballs" not in model.topology.regions or not model.n_albedo:
        return None
    ball = np.zeros(model.n_vertices, dtype=bool)
    ball[model.topology.regions["eyeballs"]] = True
    # One after the other: a copy of all modes would stay in the process's memory.
    own = np.array([
        number
        for number, mode in enumerate(model.albedo_basis.numpy())
        if np.abs(mode[ball]).max() > ELSEWHERE and np.abs(mode[~ball]).max(initial=0) < ELSEWHERE
    ], dtype=np.int64)  # fmt: skip
    mean, corners = model.mean.double().numpy(), model.topology.triangles
    sides = [ball & (mean[:, 0] > 0), ball & (mean[:, 0] <= 0)]
    eye_of = np.full(len(corners), -1, dtype=np.int64)
    for number, side in enumerate(sides):
        eye_of[side[corners].all(1)] = number
    if not len(own) or not all((eye_of == number).any() for number in range(2)):
        return None
    centres = np.stack([ball_centre(mean[side]) for side in sides])
    moves = [[mode[side].mean(0) for side in sides] for mode in model.identity_basis.numpy()]
    pupil = np.array([np.where(side, mean[:, 2], -np.inf).argmax() for side in sides])
    albedo = np.concatenate([model.albedo_mean.numpy()[None], model.albedo_basis.numpy()[own]])
    rings = [
        _rings(mean - centre, corners[eye_of == number], albedo.transpose(1, 0, 2))
        for number, centre in enumerate(centres)
    ]
    colours = np.mean(rings, axis=0)
    return Eyeballs(
        eye_of=eye_of,
        vertices=np.flatnonzero(ball),
        pupil=pupil,
        centre_mean=centres,
        centre_basis=np.array(moves, dtype=np.float64),
        radius=float((mean[pupil, 2] - centres[:, 2]).mean()),
        modes=own,
        is_iris=np.abs(colours[-1, 1:]).max(1) < ELSEWHERE,
        colours=colours,
    )


def on_sphere(
    ray: Float[np.ndarray, "n 3"], centre: Float[np.ndarray, "n 3"], radius: float
) -> Float[np.ndarray, "n 3"]:
    """Unit vectors from the spheres' centres to where rays meet them first, or pass nearest."""
    ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    along = (ray * centre).sum(1)
    depth = np.sqrt(np.maximum(radius**2 - (centre**2).sum(1) + along**2, 0.0))
    found = ray * (along - depth)[:, None] - centre
    unit: Float[np.ndarray, "n 3"] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def _rings(
    points: Float[np.ndarray, "vertices 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    colours: Float[np.ndarray, "vertices channels 3"],
) -> Float[np.ndarray, "rings channels 3"]:
    """Mean colours of an eyeball about its centre, by distance from the axis, as a camera far ahead of it sees it."""
    texel, side = RING_MM / 2, round(4 * LAST_MM / RING_MM)
    place = torch.from_numpy(0.5 * side + points[:, :2] * [1.0, -1.0] / texel)
    depth = torch.from_numpy(1000.0 - points[:, 2])
    drawn = rasterize(place, depth, torch.from_numpy(triangles), side, side)
    at = (np.arange(side) + 0.5 - 0.5 * side) * texel
    away = np.hypot(*np.meshgrid(at, at))
    seen = drawn.covered.numpy() & (away < LAST_MM)
    corners, shares = triangles[drawn.triangle.numpy()[seen]], drawn.barycentric.numpy()[seen]
    ring = np.rint(away[seen] / RING_MM).astype(np.int64)
    outside = away[seen] > WHITE_MM
    ring[outside] = ring[outside].min()
    means = np.empty((ring.max() + 1, *colours.shape[1:]))
    count = np.bincount(ring)
    # One after the other: what all channels of all texels take at once would stay in the process's memory.
    for channel in np.ndindex(colours.shape[1:]):
        shown = (colours[(corners, *channel)] * shares).sum(1)
        means[(slice(None), *channel)] = np.bincount(ring, shown) / count
    # Two more, where the slope is 0.
    return np.concatenate([means, means[[-1, -1]]])
