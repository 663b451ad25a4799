"""A person's skin as their photographs show it in common: where the same spot lies in each is known to a pixel.

The albedo modes know no mole and no hair of a brow, and a fit to one photograph must explain these by shape or light,
or not at all. In several photographs they are the same, so each may be compared with what the others show: lips, brows
and lids then say where their surface is, whatever the model thinks of their colour, and views from different sides
say how deep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
# Skin, hair of a brow and white of an eye are within this factor's logarithm of the modes.
FURTHEST = 1.5


def common_skin(
    model: LinearFaceModel,
    samples: SurfaceSamples,
    scenes: Sequence[Scene],
    levels: Sequence[PyramidLevel | None],
) -> SurfaceSamples:
    """The samples with the skin that the photographs show beyond the albedo modes, at scenes of one person.

    Each photograph's ratio of observed to predicted colour, in linear light, as a mean of logarithms over those that
    see a spot, drawn towards 1 by `PRIOR_LOOKS`. Light that a photograph's own nine harmonics explain is not in it.
    """
    total = np.zeros((len(samples), 3))
    looks = np.zeros((len(samples), 1))
    albedo = samples.albedo_mean + samples.albedo_basis @ scenes[0].albedo.numpy()
    for scene, level in zip(scenes, levels, strict=True):
        if level is None:
            continue
        ratio, chosen = seen_beyond(PhotometricResidual(model, samples, level), scene)
        total[chosen] += ratio
        looks[chosen] += 1
    change = albedo * np.expm1(total / (looks + PRIOR_LOOKS))
    return replace(samples, albedo_mean=(samples.albedo_mean + change).astype(samples.albedo_mean.dtype))


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
