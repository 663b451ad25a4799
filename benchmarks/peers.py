"""Small jobs in processor time, taken in turns: rasterising, its derivative, and eos's fit where eos is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from facefit.benchmarks.growth import in_turns
from facefit.benchmarks.run import Row

PICTURES = (256, 512)
CHANNELS = 6
REPEATS = 15
# Where eos's own model files lie (its folder `share`): the public Surrey shape, blendshapes, contours, edges.
EOS_SHARE = "FACEFIT_EOS_SHARE"


def rasterising(model: Any) -> list[Row]:
    """The mean face, as large as the picture: triangle, weights and depth of each pixel; six channels; derivatives."""
    from facefit.rendering.interpolate import differentiable_barycentric, interpolate
    from facefit.rendering.rasterize import rasterize

    attributes = torch.randn(model.n_vertices, CHANNELS, generator=torch.Generator().manual_seed(0))
    rows: list[Row] = []
    for size in PICTURES:
        pixels, depth = filling(model, size)

        def plain(pixels: Any = pixels, depth: Any = depth, size: int = size) -> Any:
            return rasterize(pixels, depth, model.triangles, size, size)

        def blended(plain: Any = plain) -> Any:
            return interpolate(plain(), attributes, model.triangles)

        def both_ways(pixels: Any = pixels, depth: Any = depth, plain: Any = plain) -> None:
            moving = [t.clone().requires_grad_() for t in (pixels, depth, attributes)]
            smooth = differentiable_barycentric(plain(), moving[0], moving[1], model.triangles)
            torch.autograd.grad(interpolate(smooth, moving[2], model.triangles).sum(), moving)

        with torch.enable_grad():
            times = in_turns(
                {
                    "triangle, weights, depth": plain,
                    "with 6 channels": blended,
                    "forward, backward": both_ways,
                },
                REPEATS,
            )
        covered = float(plain().covered.double().mean())
        note = f"{len(model.triangles)} triangles, {100 * covered:.0f} % covered"
        rows += [
            {"what": f"rasterise {size} x {size}: {name}", "cpu ms": ms, "note": note}
            for name, ms in times.items()
        ]
    return rows


def filling(model: Any, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean face from the front, 0.9 m away, as high as a picture of `size` pixels."""
    turned = (model.mean - model.mean.mean(0)) * torch.tensor([1.0, -1.0, -1.0])
    depth = turned[:, 2] + 900.0
    flat = turned[:, :2] / depth[:, None]
    low, high = flat.amin(0), flat.amax(0)
    scale = size / float((high - low).max())
    return (flat - (low + high) / 2) * scale + size / 2, depth


def beside_eos(observation: Any, model: Any, stages: Sequence[Any]) -> list[Row]:
    """Our fit and eos's landmark and contour fit (Surrey, 69 modes) of the same landmarks; empty without eos.

    eos is told nothing of the pixels: it estimates pose, shape and expression only.
    """
    import facefit as ff

    share = os.environ.get(EOS_SHARE)
    if share is None or observation.landmarks is None:
        return []
    try:
        eos = importlib.import_module("eos")
    except ImportError:
        return []
    theirs = _eos_fit(eos, Path(share), observation)
    least = in_turns({"facefit": lambda: ff.fit(observation, model, stages=stages), "eos": theirs}, REPEATS)
    return [
        {"what": "fit, landmarks given: facefit", "cpu ms": least["facefit"]},
        {
            "what": "... eos, landmarks and contour, 5 rounds",
            "cpu ms": least["eos"],
            "times": least["eos"] / least["facefit"],
        },
    ]


def _eos_fit(eos: Any, share: Path, observation: Any) -> Any:
    def at(name: str) -> str:
        return str(share / name)

    shape = eos.morphablemodel.load_model(at("sfm_shape_3448.bin"))
    model = eos.morphablemodel.MorphableModel(
        shape.get_shape_model(),
        eos.morphablemodel.load_blendshapes(at("expression_blendshapes_3448.bin")),
        color_model=eos.morphablemodel.PcaModel(),
        vertex_definitions=None,
        texture_coordinates=shape.get_texture_coordinates(),
    )
    mapper = eos.core.LandmarkMapper(at("ibug_to_sfm.txt"))
    edges = eos.morphablemodel.load_edge_topology(at("sfm_3448_edge_topology.json"))
    jaw = eos.fitting.ContourLandmarks.load(at("ibug_to_sfm.txt"))
    contour = eos.fitting.ModelContour.load(at("sfm_model_contours.json"))
    seen = [
        eos.core.Landmark(str(number), [float(x), float(y)])
        for number, (x, y) in enumerate(observation.landmarks, start=1)
    ]
    size = observation.width, observation.height
    return lambda: eos.fitting.fit_shape_and_pose(model, seen, mapper, *size, edges, jaw, contour)
