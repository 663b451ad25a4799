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
from facefit.learned_init.predict import NO_MARKS, look
from facefit.learned_init.synthetic import Sample, Synthesizer, draw_landmarks
from facefit.learned_init.weights import Initialiser
from facefit.models.camera import Camera
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import DEFAULT_FOCAL_SIGMA, EXIF_FOCAL_SIGMA, Observation

# A photograph in, its first fit out: given from above, where starts and fits are both known.
FirstFit = Callable[[Observation, LinearFaceModel], Scene]

# Every picture is fitted anew from each of these: landmarks that err as a detector's, and those of the first look,
# which err towards what is usual (closed mouths).
BY = ("detector", "first look")
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
    """Draws `CloserSample`s from one model, some of each picture; with no network of the first look, detectors' errors
    stand in for its own.
    """

    def __init__(
        self, model: LinearFaceModel, first_fit: FirstFit, network: Initialiser | None = None
    ) -> None:
        self.model, self.first_fit, self.network = model, first_fit, network
        self.pictures = Synthesizer(model)
        self.looker = Looker(model, self.pictures.points)

    def __call__(self, seed: int, index: int) -> Iterator[CloserSample]:
        """The same for the same seed and index."""
        sample = self.pictures(seed, index)
        rng = np.random.default_rng((seed, index, len(BY)))
        for by in BY:
            landmarks = self.first_look(sample) if by == "first look" else None
            photo, landmarks = observed(sample, rng, landmarks)
            seen = self.looker(sample.image, WHOLE, landmarks, self.first_fit(photo, self.model))
            shift = (sample.points - seen.points) / seen.px_per_mm
            if np.isfinite(shift).all() and np.abs(shift).max() < LARGEST_MM:
                normals = np.rint(127 * seen.unwrapped.normals).astype(np.int8)
                yield CloserSample(seen.unwrapped.picture, normals, seen.marks, seen.view, shift)

    def first_look(self, sample: Sample) -> Float[np.ndarray, "68 2"] | None:
        """The landmarks that the first look finds by itself; None without its network."""
        if self.network is None:
            return None
        points, _, _ = look(self.network, sample.image, [WHOLE], NO_MARKS)
        landmarks: Float[np.ndarray, "68 2"] = points.mean(0)[:68]
        return landmarks if np.isfinite(landmarks).all() else None


def observed(
    sample: Sample, rng: np.random.Generator, landmarks: Float[np.ndarray, "68 2"] | None
) -> tuple[Observation, Float[np.ndarray, "68 2"]]:
    """The crop as a photograph with these landmarks, or all as a detector gives them, through a lens as well known as
    usual; and the landmarks.
    """
    while landmarks is None or not np.isfinite(landmarks).all():
        landmarks = draw_landmarks(sample.marked, rng)
    sigma, off = (EXIF_FOCAL_SIGMA,) * 2 if rng.random() < WITH_EXIF else (DEFAULT_FOCAL_SIGMA, FOCAL_OFF)
    focal = sample.size_px_per_mm * sample.distance_mm * math.exp(off * float(np.clip(rng.normal(), -2, 2)))
    camera = Camera(
        torch.tensor(focal).float(), torch.from_numpy(sample.principal).float(), SIZE_PX, SIZE_PX, "given"
    )
    covariance = landmark_covariance(landmarks)
    return Observation(sample.image, camera, landmarks, covariance, focal_sigma=sigma), landmarks
