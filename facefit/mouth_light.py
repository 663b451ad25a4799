"""How much of the light before the face gets between the lips."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.models.face_model import LinearFaceModel

# The inner borders of the lips, from the subject's right corner to the left, in iBUG's numbers.
UPPER, LOWER = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)
# Lips this far apart take no light beyond what the model's colours lack already, and this share of it comes through
# closed ones (ours).
OPEN_MM, THROUGH = 12.0, 0.06


@torch.no_grad()
def mouth_light(
    model: LinearFaceModel, vertices: Float[Tensor, "vertices 3"]
) -> Float[Tensor, "vertices"] | None:
    """Share of the light that arrives at each vertex: 1 on the skin, less on teeth, tongue and lining.

    Parted lips are a slit as far as what lies behind them is concerned: a point gets the slit's view factor, with the
    slit's height at the point's own place across the mouth, compared with that of an open mouth, whose colours are the
    model's. Between lips that hardly part the teeth are then dark; drawn tight over them, lips leave them bright.
    None for a model that names neither teeth nor the inside of the mouth.
    """
    known = _inside(model)
    if known is None:
        return None
    inside, upper, lower = known
    marks, points = model.landmark_points(vertices), vertices[inside]
    above, below = (_at(marks[line], points[:, 0]) - points[:, 1:] for line in (upper, lower))
    light = torch.ones_like(vertices[:, 0])
    middle, wider = 0.5 * (above + below), torch.tensor([0.5 * OPEN_MM, 0.0]).to(above)
    of_open = slit_view_factor(middle + wider, middle - wider).clamp(min=1e-3)
    share = (slit_view_factor(above, below) / of_open).clamp(max=1)
    light[inside] = THROUGH + (1 - THROUGH) * share
    return light


def slit_view_factor(
    above: Float[Tensor, "points 2"], below: Float[Tensor, "points 2"]
) -> Float[Tensor, "points"]:
    """Share of the light from all around before points that face z which comes through an endless slit in x.

    `above` and `below` are the edges (y, z) as seen from the points; what lies before an edge sees past it.
    """
    sines = [edge[:, 0] / torch.hypot(edge[:, 0], edge[:, 1].clamp(min=1e-3)) for edge in (above, below)]
    return (0.5 * (sines[0] - sines[1])).clamp(0, 1)


def _at(line: Float[Tensor, "marks 3"], x: Float[Tensor, "points"]) -> Float[Tensor, "points 2"]:
    """Height and depth (y, z) of a line of landmarks that runs in x, at some x; its ends continue level."""
    along = line[:, 0].contiguous()
    right = torch.searchsorted(along, x.contiguous()).clamp(1, len(along) - 1)
    left = right - 1
    share = ((x - along[left]) / (along[right] - along[left]).clamp(min=1e-3)).clamp(0, 1)
    return torch.lerp(line[left, 1:], line[right, 1:], share[:, None])


@lru_cache(maxsize=4)
def _inside(
    model: LinearFaceModel,
) -> tuple[Int[Tensor, "inside"], Int[Tensor, "5"], Int[Tensor, "5"]] | None:
    """The vertices behind the lips and the rows of the lips' landmarks."""
    regions, numbers = model.topology.regions, model.topology.landmarks.numbers
    parts = [regions[name] for name in ("teeth", "mouth_inside") if name in regions]
    row = {int(number): i for i, number in enumerate(numbers)}
    if not parts or not {*UPPER, *LOWER} <= set(row):
        return None
    upper, lower = (torch.tensor([row[n] for n in line]).to(model.mean.device) for line in (UPPER, LOWER))
    inside = torch.from_numpy(np.unique(np.concatenate(parts)).astype(np.int64)).to(model.mean.device)
    return inside, upper, lower
