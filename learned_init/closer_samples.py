"""Training pictures for the closer look: drawn faces, unwrapped along fits as wrong as first fits are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from facefit.detection import landmark_covariance
from facefit.learned_init.closer_look import Looker
from facefit.learned_init.crop import SIZE_PX, Crop
from facefit.learned_init.synthetic import Sample, Synthesizer, draw_landmarks
from facefit.models.camera import Camera
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import DEFAULT_FOCAL_SIGMA, EXIF_FOCAL_SIGMA, Observation

# A photograph in, its first fit out: given from above, where starts and fits are both known.
FirstFit = Callable[[Observation, LinearFaceModel], Scene]

# Every picture is fitted anew from so many draws of landmarks and focal length.
FITS = 2
# How far off the believed focal length is, log: without EXIF, and with it, which one in five has.
FOCAL_OFF, WITH_EXIF = 0.5, 0.2
# Corrections beyond this are of fits that went astray; the closer look is not asked about those.
LARGEST_MM = 200.0
WHOLE = Crop((SIZE_PX / 2, SIZE_PX / 2), SIZE_PX)


@dataclass(frozen=True)
class CloserSample:
    """What the network is shown (see `Look`; normals in 127ths), and by how much the fit's points are off, mm."""

    picture: UInt8[np.ndarray, "128 128 3"]
    normals: Int[np.ndarray, "64 64 3"]
    marks: Float[np.ndarray, "68 2"]
    view: Float[np.ndarray, "2"]
    shift: Float[np.ndarray, "points 2"]


class CloserSynthesizer:
    """Draws `CloserSample`s from one model, some of each picture."""

    def __init__(self, model: LinearFaceModel, first_fit: FirstFit) -> None:
        self.model, self.first_fit = model, first_fit
        self.pictures = Synthesizer(model)
        self.looker = Looker(model, self.pictures.points)

    def __call__(self, seed: int, index: int) -> Iterator[CloserSample]:
        """The same for the same seed and index."""
        sample = self.pictures(seed, index)
        rng = np.random.default_rng((seed, index, FITS))
        for _ in range(FITS):
            photo, landmarks = observed(sample, rng)
            look = self.looker(sample.image, WHOLE, landmarks, self.first_fit(photo, self.model))
            shift = (sample.points - look.points) / look.px_per_mm
            if np.isfinite(shift).all() and np.abs(shift).max() < LARGEST_MM:
                normals = np.rint(127 * look.unwrapped.normals).astype(np.int8)
                yield CloserSample(look.unwrapped.picture, normals, look.marks, look.view, shift)


def observed(sample: Sample, rng: np.random.Generator) -> tuple[Observation, Float[np.ndarray, "68 2"]]:
    """The crop as a photograph with all landmarks as a detector gives them, through a lens as well known as usual; and
    these landmarks.
    """
    landmarks = draw_landmarks(sample.marked, rng)
    while not np.isfinite(landmarks).all():
        landmarks = draw_landmarks(sample.marked, rng)
    sigma, off = (EXIF_FOCAL_SIGMA,) * 2 if rng.random() < WITH_EXIF else (DEFAULT_FOCAL_SIGMA, FOCAL_OFF)
    focal = sample.size_px_per_mm * sample.distance_mm * math.exp(off * float(np.clip(rng.normal(), -2, 2)))
    camera = Camera(
        torch.tensor(focal).float(), torch.from_numpy(sample.principal).float(), SIZE_PX, SIZE_PX, "given"
    )
    covariance = landmark_covariance(landmarks)
    return Observation(sample.image, camera, landmarks, covariance, focal_sigma=sigma), landmarks
