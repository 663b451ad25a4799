"""The part of a photograph that shows the face, asked by points in space: what colour, and is it really seen?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from facefit.fitting.result import FitResult
from facefit.models.camera import Camera
from facefit.rendering.interpolate import interpolate as interpolate_vertices
from facefit.rendering.rasterize import rasterize
from facefit.rendering.shade import srgb_to_linear

# A point hidden by less than this counts as seen: it is the z-buffer's grain, not an occluder.
OCCLUSION_TOLERANCE_MM = 2.5

# Pixels of the coarse copy, on the face.
COARSE_MM = 4.0

# Strands of hair on the forehead: darker than the skin within AROUND_MM by so much (logarithm). Of what lies within
# EDGE_MM from the first (no belief) to the second (full belief) of `INNER` must be skin (ours).
ABOVE_BROWS_MM, AROUND_MM, EDGE_MM = 5.0, 14.0, 5.0
HAIR_DARKER, INNER = (0.2, 0.4), (0.75, 0.98)

_FAR = 1e6


@dataclass(frozen=True)
class PhotoView:
    """Maps of the photograph's crop around the face: linear RGB, usable (0-1), depth of the nearest surface
    (mm).

    A pixel (x, y) of the photograph lies at ((x, y) - `corner`) * `zoom` in `maps`; `coarse` covers the same
    crop with fewer pixels.
    """

    maps: Float[Tensor, "5 height width"]
    coarse: Float[Tensor, "4 rows columns"]
    camera: Camera
    corner: Float[Tensor, "2"]
    zoom: Float[Tensor, "2"]

    @staticmethod
    def of(result: FitResult, camera_points: Float[Tensor, "vertices 3"], size: int) -> PhotoView:
        """The crop that holds the posed surface, at most `size` pixels wide and high."""
        camera, image = result.scene.camera, result.observation.image
        pixels = camera.project(camera_points)
        ahead = pixels[camera_points[:, 2] > 1]
        limit = torch.tensor([camera.width, camera.height])
        low = torch.minimum((ahead.amin(0) - 2).floor().clamp(min=0), limit - 1.0).int().tolist()
        high = torch.maximum(
            (ahead.amax(0) + 2).ceil().int().clamp(max=limit), torch.tensor(low) + 1
        ).tolist()
        span = (high[0] - low[0], high[1] - low[1])
        shrink = min(1.0, size / max(span))
        width, height = (max(1, round(s * shrink)) for s in span)
        zoom = torch.tensor([width / span[0], height / span[1]])
        corner = torch.tensor(low, dtype=torch.float32)

        crop = Image.fromarray(image[low[1] : high[1], low[0] : high[0]])
        small = np.asarray(crop.resize((width, height), Image.Resampling.BOX) if shrink < 1 else crop)
        color = srgb_to_linear(torch.arange(256) / 255)[torch.from_numpy(small.astype(np.int64))].permute(
            2, 0, 1
        )
        fragments = rasterize(
            (pixels - corner) * zoom, camera_points[:, 2], result.model.triangles, height, width
        )
        covered = fragments.covered[None].float()
        depth = torch.where(fragments.covered, fragments.depth, torch.full_like(fragments.depth, _FAR))[None]
        pixel_mm = float(camera_points[:, 2].median() / camera.focal_px / zoom[0])
        usable = _usable(result, (low, high), (height, width), covered, pixel_mm)
        height_mm = interpolate_vertices(fragments, result.model.mean[:, 1:2], result.model.triangles)[..., 0]
        above = _above_brows(result, height_mm, corner, zoom)[None] * covered
        usable = without_hair(usable, color, above, pixel_mm)
        rows, columns = (max(1, round(s * pixel_mm / COARSE_MM)) for s in (height, width))
        coarse = interpolate(torch.cat([color, usable])[None], size=(rows, columns), mode="area")[0]
        return PhotoView(torch.cat([color, usable, depth]), coarse, camera, corner, zoom)

    def sample(
        self, camera_points: Float[Tensor, "points 3"], coarse: bool = False
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 1"]]:
        """Linear colour at points in camera axes, and 1 where they are seen and usable, 0 where hidden or
        outside.

        `coarse` gives the mean colour of the surroundings, free of pores and of noise.
        """
        extent = torch.tensor([self.maps.shape[2], self.maps.shape[1]])
        grid = (self.camera.project(camera_points) - self.corner) * self.zoom / extent * 2 - 1
        inside = (grid.abs() < 1).all(1) & (camera_points[:, 2] > 1)
        found = _bilinear(self.maps, grid)
        visible = inside & (camera_points[:, 2] < found[:, 4] + OCCLUSION_TOLERANCE_MM)
        color = _bilinear(self.coarse, grid)[:, :3] if coarse else found[:, :3]
        return color, (found[:, 3] * visible)[:, None]


def _above_brows(
    result: FitResult,
    height: Float[Tensor, "height width"],
    corner: Float[Tensor, "2"],
    zoom: Float[Tensor, "2"],
) -> Float[Tensor, "height width"]:
    """1 on the forehead and the temples: from ABOVE_BROWS_MM over the brows, the fitted ones and those detected.

    `height` is the mean face's at each pixel. Nowhere where the model has no brows.
    """
    model, detected = result.model, result.observation.landmarks
    brows = [row for row, number in enumerate(model.topology.landmarks.numbers) if number in range(17, 27)]
    if not brows:
        return torch.zeros_like(height)
    top = float(model.landmark_points(model.mean)[brows, 1].max())
    if detected is not None:
        seen = torch.from_numpy(np.nan_to_num(detected[17:27], nan=-1.0)).to(corner)
        column, row = ((seen - corner) * zoom).int().T
        inside = (column >= 0) & (column < height.shape[1]) & (row >= 0) & (row < height.shape[0])
        top = max([top, *height[row[inside], column[inside]].tolist()])
    return smoothstep(height, top + ABOVE_BROWS_MM, top + 2 * ABOVE_BROWS_MM)


def without_hair(
    usable: Float[Tensor, "1 height width"],
    color: Float[Tensor, "3 height width"],
    above: Float[Tensor, "1 height width"],
    pixel_mm: float,
) -> Float[Tensor, "1 height width"]:
    """`usable` without strands of hair over the forehead: what is much darker than the skin around, and its edges.

    The mask is too coarse for strands, and a little of the hair beside it stays; on a forehead nothing but hair is so
    dark (wrinkles are by a tenth or two, in the logarithm). Elsewhere brows, lashes, lips and beard are.
    """
    bright = (color.mean(0, keepdim=True) + 0.01).log()
    kept = usable
    for _ in range(2):
        skin = kept * above
        around = _blurred(torch.cat([bright * skin, skin]), AROUND_MM / pixel_mm)
        darker = around[:1] / around[1:].clamp(min=1e-6) - bright
        kept = usable * (1 - smoothstep(darker, *HAIR_DARKER))
    both = _blurred(torch.cat([kept * above, above]), EDGE_MM / pixel_mm)
    inner = kept * smoothstep(both[:1] / both[1:].clamp(min=1e-6), *INNER)
    return torch.lerp(usable, inner, above)


def _blurred(
    maps: Float[Tensor, "channels height width"], radius_px: float
) -> Float[Tensor, "channels height width"]:
    """The mean over a window of this radius, twice."""
    radius, both = max(1, round(radius_px)), maps[None]
    for _ in range(2):
        both = avg_pool2d(both, (2 * radius + 1, 1), 1, (radius, 0))
        both = avg_pool2d(both, (1, 2 * radius + 1), 1, (0, radius))
    return both[0]


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _bilinear(
    maps: Float[Tensor, "channels height width"], grid: Float[Tensor, "points 2"]
) -> Float[Tensor, "points channels"]:
    sampled = grid_sample(maps[None], grid[None, None], padding_mode="border", align_corners=False)
    return sampled[0, :, 0].T


def _usable(
    result: FitResult,
    box: tuple[list[int], list[int]],
    size: tuple[int, int],
    covered: Float[Tensor, "1 height width"],
    pixel_mm: float,
) -> Float[Tensor, "1 height width"]:
    """1 where the photograph shows skin, softly 0 where the mask or most of the fit's outliers nearby say
    otherwise.

    A few outliers among inliers (a mole, a highlight, an eyelash) belong to the person; a cluster of them
    (hair, a hand, glasses) does not.
    """
    (left, top), (right, bottom) = box
    usable = torch.ones_like(covered)
    for part, smooth_mm in ((result.inliers, 5.0), (result.observation.mask, 0.0)):
        if part is None:
            continue
        crop = torch.from_numpy(part[top:bottom, left:right].astype(np.float32))[None]
        crop = interpolate(crop[None], size=size, mode="area")[0]
        both = _blurred(torch.cat([crop * covered, covered]), smooth_mm / pixel_mm)
        usable = usable * smoothstep(both[:1] / both[1:].clamp(min=1e-6), 0.35, 0.65)
    return usable
