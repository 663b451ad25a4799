"""Detectors with our own network in them: for landmarks where dlib's file is not wanted, for turned heads always."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from facefit.detection import DlibDetector, Face, Hit, overlap
from facefit.errors import ModelFileError, NoFaceFound
from facefit.learned_init.crop import BOX_MARGIN, Crop
from facefit.learned_init.predict import DOMAIN_GAP, NO_MARKS, refined
from facefit.learned_init.turned import seen, turned_hits
from facefit.learned_init.weights import Initialiser, initialiser_for
from facefit.models import load_model
from facefit.models.face_model import LinearFaceModel

# Above this a hit of dlib's is a face that it can mark.
CLEAR = 1.0


class FaceDetector(DlibDetector):
    """dlib's faces and landmarks; where dlib sees nobody (or what is hardly a face), or every face is asked for, turned
    heads, with our network's landmarks.

    dlib's detector ends at about 40 degrees of yaw, and its landmarks are of no use beyond. The network is the
    built-in model's where the model has none.
    """

    SEARCHED_FOR = "that face the camera, and upright for turned heads and profiles"

    def __init__(self, model: LinearFaceModel | str | Path = "builtin") -> None:
        super().__init__()
        self.model = model

    @cached_property
    def network(self) -> Initialiser:
        """Read when it is first needed, so that what is wrong with a photograph is said first."""
        model = self.model if isinstance(self.model, LinearFaceModel) else load_model(self.model)
        found = initialiser_for(model) or initialiser_for(load_model("builtin"))
        if found is None:
            raise ModelFileError(
                "no trained weights to find landmarks with: facefit train --model builtin makes them"
            )
        return found

    def find(self, image: UInt8[np.ndarray, "height width 3"], every: bool = False) -> list[Hit]:
        found = self.facing_first(image, every)
        if not every or all(hit.turned for hit in found):
            return found
        # Beside people who face the camera, those who look at one another.
        beside = turned_hits(self.network, image)
        return found + [hit for hit in beside if not any(overlap(hit, other) for other in found)]

    def facing_first(self, image: UInt8[np.ndarray, "height width 3"], every: bool) -> list[Hit]:
        """dlib's faces; turned heads only where dlib is sure of none. At least one, or `NoFaceFound`."""
        try:
            facing = super().find(image, every)
        except NoFaceFound:
            if found := turned_hits(self.network, image):
                return found
            raise
        if all(hit.score > CLEAR for hit in facing):
            return facing
        # Ears of turned heads score up to 0.4: a doubtful hit counts where the network sees a face or none elsewhere.
        looks = [None if hit.score > CLEAR else seen(self.network, image, hit) for hit in facing]
        if all(hit.score <= CLEAR and look is None for hit, look in zip(facing, looks, strict=True)):
            return turned_hits(self.network, image) or facing
        return [
            look._replace(score=hit.score) if look is not None and look.turned else hit
            for hit, look in zip(facing, looks, strict=True)
        ]

    def face(self, image: UInt8[np.ndarray, "height width 3"], hit: Hit) -> Face:
        return self.marked(image, hit) if hit.turned else super().face(image, hit)

    def marked(self, image: UInt8[np.ndarray, "height width 3"], hit: Hit) -> Face:
        """A hit's landmarks by our network, its first points.

        Jaw points are points of the mesh, not of the silhouette; on a turned head they lie inside it.
        """
        crop = Crop(hit.centre, BOX_MARGIN * hit.side, -math.radians(hit.tilt))
        points, spread, _, crop = refined(self.network, image, crop, NO_MARKS)
        back = crop.turn / crop.scale
        covariance: Float[np.ndarray, "68 2 2"] = DOMAIN_GAP**2 * back.T @ spread[:68] @ back
        return Face(hit.box, hit.score, points[:68], covariance, 90 * hit.quarter, "facefit")


class NetworkDetector(FaceDetector):
    """The same with our network's landmarks on every face: a chain free of non-commercial parts."""

    def face(self, image: UInt8[np.ndarray, "height width 3"], hit: Hit) -> Face:
        return self.marked(image, hit)
