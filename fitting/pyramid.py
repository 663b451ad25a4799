"""The photograph around the face at a few sizes, in float sRGB, with the map to original pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from facefit.observation import Observation

# The crop reaches this far beyond the landmarks' box, as a share of its larger side: forehead and ears.
MARGIN = 0.35


@dataclass(frozen=True, eq=False)
class PyramidLevel:
    """A resampled crop. A point of the photograph lies at (pixel - origin) * scale in it, edge-based as ever."""

    image: Float[np.ndarray, "height width 3"]
    usable: Bool[np.ndarray, "height width"]
    scale: float
    origin: Float[np.ndarray, "2"]


def face_box(observation: Observation) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the landmarks with a margin (more above, for the forehead), inside the photograph."""
    whole = (0, 0, observation.width, observation.height)
    if observation.landmarks is None:
        return whole
    known = observation.landmarks[np.isfinite(observation.landmarks).all(1)]
    if not len(known):
        return whole
    low, high = known.min(0), known.max(0)
    # At least two pixels, so that landmarks in one place still have a picture around them.
    reach = MARGIN * max(float((high - low).max()), 6.0)
    size = np.array([observation.width, observation.height])
    left, top = np.floor(low - [reach, 1.7 * reach]).clip(0, size - 1).astype(int)
    right, bottom = np.ceil(high + [reach, 0.7 * reach]).clip(1, size).astype(int)
    return int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1)


def face_pyramid(observation: Observation, sizes: Sequence[int]) -> list[PyramidLevel]:
    """One square level per size in pixels; a photograph is never enlarged.

    The crop is completed to a square (unusable pixels), so that both axes have exactly the same scale.
    """
    left, top, right, bottom = face_box(observation)
    # A crop many times larger than the largest level is first averaged in blocks of whole pixels: a large
    # photograph as floating-point numbers would fill the memory.
    block = max(1, max(right - left, bottom - top) // (4 * max(sizes, default=1)))
    crop = _blocks(observation.image[top:bottom, left:right], block)
    pixels = torch.from_numpy(crop).permute(2, 0, 1)[None] / 255
    usable = torch.ones(1, 1, *crop.shape[:2])
    if observation.mask is not None:
        kept = _blocks(observation.mask[top:bottom, left:right, None], block)
        usable = torch.from_numpy(kept).permute(2, 0, 1)[None]
    height, width = crop.shape[:2]
    side = max(height, width)
    missing = (0, side - width, 0, side - height)
    pixels = torch.nn.functional.pad(pixels, missing, mode="replicate")
    usable = torch.nn.functional.pad(usable, missing)
    levels = []
    for size in sizes:
        size = min(size, side)
        image = _shrink(pixels, size)[0].permute(1, 2, 0).contiguous().numpy()
        kept = _shrink(usable, size)[0, 0].numpy() > 0.99
        levels.append(
            PyramidLevel(image, kept, size / (side * block), np.array([left, top], dtype=np.float64))
        )
    return levels


def _blocks(
    image: UInt8[np.ndarray, "height width channels"], block: int
) -> Float[np.ndarray, "rows columns channels"]:
    """Means over blocks of block x block pixels, what is left over at the far borders dropped."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    if block == 1 or not rows or not columns:
        return image.astype(np.float32)
    whole = image[: rows * block, : columns * block].reshape(rows, block, columns, block, -1)
    mean: Float[np.ndarray, "rows columns channels"] = whole.mean((1, 3), dtype=np.float32)
    return mean


def _shrink(image: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased resampling to size x size: a tent as wide as the ratio, free of aliasing at any ratio."""
    if image.shape[-1] == size:
        return image
    return torch.nn.functional.interpolate(
        image, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
