"""Turned heads, from half-profile to profile, where a detector of frontal faces sees nobody.

Two gradient detectors of our own (see `turned_train`; drawn pictures only, free to use) propose boxes in the picture
and in its mirror image, generously; the network that is to find the landmarks then looks at each and tells whether it
sees a face: of what is none it is four times as unsure.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from facefit.detection import Hit, distinct, reduced
from facefit.errors import ModelFileError
from facefit.learned_init.crop import BOX_MARGIN, Crop
from facefit.learned_init.predict import NO_MARKS, refined
from facefit.learned_init.weights import Initialiser

PATH = Path(__file__).with_name("turned_heads.svm")
WINDOW_PX = 80
LONG_SIDE = 1024
# Boxes that score below are not looked at, nor more than so many, the surest first.
PROPOSED, MOST_PROPOSED = -0.2, 16
# A face is where the network's mean deviation of an inner landmark is less than this, in pixels of its crop. Chosen on
# 420 drawn heads at yaws of 30 to 95 degrees that it was not trained on: 94 % are found, all where they are; nothing on
# 80 drawn heads from behind (3.7 at least), 60 backgrounds (5.3) and 21 photographs of things (4.5).
UNSURE_PX = 3.1

Image8 = UInt8[np.ndarray, "height width 3"]


def turned_hits(network: Initialiser, image: Image8) -> list[Hit]:
    """The turned faces in an upright photograph, perhaps none; placed where the network sees them, scored by how sure
    it is (1 at best, 0 is not enough).
    """
    copy, ratio = reduced(image, LONG_SIDE)
    for upsample in (0, 1):
        proposed = distinct(proposals(copy, ratio, upsample))[:MOST_PROPOSED]
        if found := distinct([hit for hit in (seen(network, image, p) for p in proposed) if hit.score > 0]):
            return found
    return []


def seen(network: Initialiser, image: Image8, proposed: Hit) -> Hit:
    """The hit as the network sees it."""
    crop = Crop(proposed.centre, BOX_MARGIN * proposed.side)
    _, covariance, _, crop = refined(network, image, crop, NO_MARKS)
    variance: Float[np.ndarray, "51"] = np.trace(covariance[17:68], axis1=1, axis2=2) / 2
    score = 1 - float(np.sqrt(variance).mean()) / UNSURE_PX
    return Hit(score, crop.centre, crop.side / BOX_MARGIN, -math.degrees(crop.roll), 0, turned=True)


def proposals(copy: Image8, ratio: float, upsample: int) -> list[Hit]:
    """Boxes in a copy `ratio` times smaller, of heads that look to either side; in the photograph's pixels."""
    width = copy.shape[1]
    found = []
    for mirrored in (False, True):
        seen = np.ascontiguousarray(copy[:, ::-1]) if mirrored else copy
        for box, score, _ in zip(*_detector().run(seen, upsample, PROPOSED), strict=True):
            x, y = (box.left() + box.right() + 1) / 2, (box.top() + box.bottom() + 1) / 2
            centre = (ratio * (width - x if mirrored else x), ratio * y)
            found.append(Hit(float(score), centre, ratio * float(box.width()), 0.0, 0))
    return found


@functools.cache
def _detector() -> Any:
    import dlib

    try:
        return dlib.fhog_object_detector(str(PATH))
    except RuntimeError as error:
        raise ModelFileError(f"{PATH} is not a detector of heads ({error}): install facefit again") from None
