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
# A texel is usable where this share of what it averages is.
WHOLLY = 0.99


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
    height, width = crop.shape[:2]
    side = max(height, width)
    pixels = np.empty((3, side, side), dtype=np.float32)
    pixels[:, :height, :width] = crop.transpose(2, 0, 1)
    pixels[:, height:, :width] = pixels[:, height - 1 : height, :width]
    pixels[:, :, width:] = pixels[:, :, width - 1 : width]
    seen = None if observation.mask is None else observation.mask[top:bottom, left:right, None]
    usable = None if seen is None else _blocks(seen, block)[:, :, 0]
    levels, images = {}, [pixels]
    for wanted in sorted(sizes, reverse=True):
        size = min(wanted, side)
        # From the smallest picture that is large enough: a third of the time.
        source = next(image for image in reversed(images) if len(image[0]) >= 2 * size or image is pixels)
        images.append(_shrink(source, size, size))
        levels[wanted] = PyramidLevel(
            np.ascontiguousarray(images[-1].transpose(1, 2, 0)) / np.float32(255),
            _usable(height, width, size) if usable is None else _usable_of(usable, size),
            size / (side * block),
            np.array([left, top], dtype=np.float64),
        )
    return [levels[size] for size in sizes]


def _usable(height: int, width: int, size: int) -> Bool[np.ndarray, "size size"]:
    """Texels of a crop of height x width completed to a square inside it, by its two sides."""
    place = np.arange(max(height, width))
    # As rows: torch (2.13) gives a column of one texel's width the wrong weights.
    down, across = (
        _shrink((place < inside).astype(np.float32)[None, None], 1, size)[0, 0] for inside in (height, width)
    )
    kept: Bool[np.ndarray, "size size"] = np.outer(down, across) > WHOLLY
    return kept


def _usable_of(kept: Float[np.ndarray, "height width"], size: int) -> Bool[np.ndarray, "size size"]:
    """Texels of a crop completed to a square that are kept wholly."""
    square = np.zeros((1, max(kept.shape), max(kept.shape)), dtype=np.float32)
    square[0, : kept.shape[0], : kept.shape[1]] = kept
    wholly: Bool[np.ndarray, "size size"] = _shrink(square, size, size)[0] > WHOLLY
    return wholly


def _blocks(
    image: UInt8[np.ndarray, "height width channels"], block: int
) -> Float[np.ndarray, "rows columns channels"] | UInt8[np.ndarray, "height width channels"]:
    """Means over blocks of block x block pixels, what is left over at the far borders dropped."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    if block == 1 or not rows or not columns:
        return image
    whole = image[: rows * block, : columns * block].reshape(rows, block, columns, block, -1)
    mean: Float[np.ndarray, "rows columns channels"] = whole.mean((1, 3), dtype=np.float32)
    return mean


def _shrink(
    image: Float[np.ndarray, "channels height width"], rows: int, columns: int
) -> Float[np.ndarray, "channels rows columns"]:
    """Antialiased resampling: a tent as wide as the ratio, free of aliasing at any ratio."""
    if image.shape[1:] == (rows, columns):
        return image
    found: Float[np.ndarray, "channels rows columns"] = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None],
        size=(rows, columns),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].numpy()
    return found
