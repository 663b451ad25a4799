"""Faces found by dlib's gradient detector, landmarks by our own network: a chain free of non-commercial parts."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from facefit.detection import AbstractDetector, DlibDetector, Face, Hit
from facefit.errors import ModelFileError
from facefit.learned_init.crop import BOX_MARGIN, Crop
from facefit.learned_init.predict import DOMAIN_GAP, NO_MARKS, refined
from facefit.learned_init.weights import Initialiser, initialiser_for
from facefit.models import load_model
from facefit.models.face_model import LinearFaceModel


class NetworkDetector(AbstractDetector):
    """The 68 landmarks as the network's first points; with the built-in model's network for a model without one.

    Jaw points are points of the mesh, not of the silhouette; on a turned head they lie inside it.
    """

    def __init__(self, model: LinearFaceModel | str | Path = "builtin") -> None:
        self.model = model

    @cached_property
    def network(self) -> Initialiser:
        """Read when the first face is looked at, so that what is wrong with a photograph is said first."""
        model = self.model if isinstance(self.model, LinearFaceModel) else load_model(self.model)
        found = initialiser_for(model) or initialiser_for(load_model("builtin"))
        if found is None:
            raise ModelFileError(
                "no trained weights for --landmarks facefit: facefit train --model builtin makes them"
            )
        return found

    def detect(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Face]:
        faces = [self.face(image, hit) for hit in DlibDetector().find(image, every)]
        return sorted(faces, key=lambda face: -face.score * face.size)

    def face(self, image: UInt8[np.ndarray, "height width 3"], hit: Hit) -> Face:
        crop = Crop(hit.centre, BOX_MARGIN * hit.side, -math.radians(hit.tilt))
        points, spread, _, crop = refined(self.network, image, crop, NO_MARKS)
        back = crop.turn / crop.scale
        covariance: Float[np.ndarray, "68 2 2"] = DOMAIN_GAP**2 * back.T @ spread[:68] @ back
        return Face(hit.box, hit.score, points[:68], covariance, 90 * hit.quarter, "facefit")
