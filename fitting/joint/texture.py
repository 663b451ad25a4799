"""A person's skin as their photographs show it in common: where the same spot lies in each is known to a pixel.

The albedo modes know no mole and no hair of a brow, and a fit to one photograph must explain these by shape or light,
or not at all. In several photographs they are the same, so each may be compared with what the others show: lips, brows
and lids then say where their surface is, whatever the model thinks of their colour, and views from different sides
say how deep.

What varies over centimetres is no such mark: light that nine harmonics do not hold, shadows and highlights, which are
each photograph's own. Taken for the person's they bend the shape, and more with every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from facefit.fitting.linear import with_ambient_level
from facefit.fitting.pyramid import PyramidLevel
from facefit.fitting.residuals.photometric import PhotometricResidual
from facefit.fitting.surface_samples import SurfaceSamples
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene

# A spot's colour is believed to differ from the modes' about as much as one photograph errs in showing it, twice over.
PRIOR_LOOKS = 0.5
# Darker than this (sRGB) a ratio of colours is noise.
DARKEST = 0.02
GAMMA = 2.2
# Over this length along the face differences are a photograph's own light (12 and 36 mm: half the gain on path-traced
# heads). Smoothed in two steps of 1 / sqrt 2 of it, by way of a few points.
LIGHT_MM, POINTS = 24.0, 256
# Skin, hair of a brow and white of an eye are within this factor's logarithm of the modes.
FURTHEST = 1.5


def common_skin(
    model: LinearFaceModel,
    samples: SurfaceSamples,
    scenes: Sequence[Scene],
    levels: Sequence[PyramidLevel | None],
) -> list[SurfaceSamples]:
    """The samples as each photograph should show them, at scenes of one person: with the marks beyond the albedo modes
    that all photographs have in common, in the photograph's own light.

    Of the logarithms of each photograph's ratio of observed to predicted colour, in linear light, the smooth part is
    its own; the rest is a mean over those that see a spot, drawn towards 0 by `PRIOR_LOOKS`.
    """
    total = np.zeros((len(samples), 3))
    looks = np.zeros((len(samples), 1))
    lights = [np.zeros((len(samples), 3)) for _ in scenes]
    for light, scene, level in zip(lights, scenes, levels, strict=True):
        if level is None:
            continue
        ratio, chosen = seen_beyond(PhotometricResidual(model, samples, level), scene)
        light += smoothed(samples, ratio, chosen)
        total[chosen] += ratio - light[chosen]
        looks[chosen] += 1
    marks = total / (looks + PRIOR_LOOKS)
    albedo = samples.albedo_mean + samples.albedo_basis @ scenes[0].albedo.numpy()
    kind = samples.albedo_mean.dtype
    return [
        replace(samples, albedo_mean=(samples.albedo_mean + albedo * np.expm1(marks + light)).astype(kind))
        for light in lights
    ]


def smoothed(
    samples: SurfaceSamples, values: Float[np.ndarray, "n 3"], chosen: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "samples 3"]:
    """Weighted means, at all samples, of values at some of them; zero far from these."""
    near = _near(samples)
    found = near @ (near[chosen].T @ np.column_stack([values, np.ones(len(chosen))]))
    mean: Float[np.ndarray, "samples 3"] = found[:, :3] / np.maximum(found[:, 3:], 1e-6)
    return mean


@lru_cache(maxsize=2)
def _near(samples: SurfaceSamples) -> Float[np.ndarray, "samples points"]:
    places = samples.geometry_mean[:, :3].astype(np.float64)
    points = places[np.random.default_rng(0).permutation(len(places))[:POINTS]]
    squared = ((places[:, None] - points) ** 2).sum(2)
    near: Float[np.ndarray, "samples points"] = np.exp(-squared / LIGHT_MM**2)
    return near


def seen_beyond(
    term: PhotometricResidual, scene: Scene
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "n"]]:
    """Logarithm of observed over predicted linear colour at the samples a photograph sees, and which these are."""
    term = term.freeze(scene)
    assert term.frozen is not None
    chosen = term.frozen.chosen
    if not len(chosen):
        return np.zeros((0, 3)), chosen
    observed = -term.differences(with_ambient_level(scene, 0.0), chosen)
    predicted = observed + term.differences(scene, chosen)
    # Not weighted by how usual it is: what is far from the modes is what is looked for, and what hides the face is
    # masked already.
    ratio: Float[np.ndarray, "n 3"] = GAMMA * np.log(observed.clip(DARKEST, 1) / predicted.clip(DARKEST, 1))
    return ratio.clip(-FURTHEST, FURTHEST), chosen
