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
from PIL import Image

from facefit.detection import Hit, distinct, reduced
from facefit.errors import ModelFileError
from facefit.learned_init.crop import BOX_MARGIN, Crop
from facefit.learned_init.losses import rotation_of
from facefit.learned_init.predict import NO_MARKS, look, refined
from facefit.learned_init.weights import Initialiser

PATH = Path(__file__).with_name("turned_heads.svm")
WINDOW_PX = 80
LONG_SIDE = 1024
# What is tried until a face is found: how often the picture is enlarged, and the degrees by which heads lean. Seen from
# the side, a raised or lowered head leans.
SEARCHES = ((0, 0.0), (1, 0.0), (0, 25.0), (0, -25.0))
# From this yaw on the network's landmarks are taken: on drawn heads they are 2 % of the eye distance off, dlib's 2
# to 21 where it finds the head at all.
TURNED_DEG = 40.0
# Boxes that score below are not looked at, nor more than so many, the surest first.
PROPOSED, MOST_PROPOSED = -0.2, 16
# A face is where the network's mean deviation of an inner landmark is less than this, in pixels of its crop. Chosen on
# 420 drawn heads at yaws of 30 to 95 degrees that it was not trained on: 94 % are found, all where they are; nothing on
# 80 drawn heads from behind (3.7 at least), 60 backgrounds (5.3) and 21 photographs of things (4.5).
UNSURE_PX = 3.1

Image8 = UInt8[np.ndarray, "height width 3"]


def turned_hits(network: Initialiser, image: Image8) -> list[Hit]:
    """The turned faces in a photograph, perhaps none; placed where the network sees them, scored by how sure it is (1
    at best, 0 is not enough).
    """
    copy, ratio = reduced(image, LONG_SIDE)
    for upsample, lean in SEARCHES:
        proposed = distinct(proposals(copy, ratio, upsample, lean))[:MOST_PROPOSED]
        found = (seen(network, image, hit) for hit in proposed)
        # Whoever these are, dlib did not see them.
        if certain := distinct([hit._replace(turned=True) for hit in found if hit is not None]):
            return certain
    return []


def seen(network: Initialiser, image: Image8, proposed: Hit) -> Hit | None:
    """The hit as the network sees it, turned where its yaw is too large for dlib; None where it sees no face."""
    crop = Crop(proposed.centre, BOX_MARGIN * proposed.side, -math.radians(proposed.tilt))
    # A box need not fit: the first look is allowed more doubt. It spares most of what is no face the others.
    if doubt_px(look(network, image, [crop], NO_MARKS)[1].mean(0)) > 2 * UNSURE_PX:
        return None
    _, covariance, guess, crop = refined(network, image, crop, NO_MARKS)
    score = 1 - doubt_px(covariance) / UNSURE_PX
    if score <= 0:
        return None
    across, _, along = rotation_of(guess.blocks["rotation"][:1])[0, :, 2].tolist()
    turned = abs(math.degrees(math.atan2(across, -along))) > TURNED_DEG
    return Hit(score, crop.centre, crop.side / BOX_MARGIN, -math.degrees(crop.roll), 0, turned)


def doubt_px(covariance: Float[np.ndarray, "points 2 2"]) -> float:
    """The mean deviation of the inner landmarks, in pixels of the network's crop."""
    return float(np.sqrt(np.trace(covariance[17:68], axis1=1, axis2=2) / 2).mean())


def proposals(copy: Image8, ratio: float, upsample: int, lean: float) -> list[Hit]:
    """Boxes in a copy `ratio` times smaller, of heads that look to either side and lean by so many degrees clockwise;
    in the photograph's pixels.
    """
    upright = Image.fromarray(copy).rotate(lean, Image.Resampling.BICUBIC, expand=True) if lean else copy
    straight = np.asarray(upright)
    height, width = straight.shape[:2]
    cos, sin = math.cos(math.radians(lean)), math.sin(math.radians(lean))
    found = []
    for mirrored in (False, True):
        picture = np.ascontiguousarray(straight[:, ::-1]) if mirrored else straight
        for box, score, _ in zip(*_detector().run(picture, upsample, PROPOSED), strict=True):
            x, y = (box.left() + box.right() + 1 - width) / 2, (box.top() + box.bottom() + 1 - height) / 2
            x = -x if mirrored else x
            centre = (
                ratio * (cos * x - sin * y + copy.shape[1] / 2),
                ratio * (sin * x + cos * y + copy.shape[0] / 2),
            )
            found.append(Hit(float(score), centre, ratio * float(box.width()), -lean, 0))
    return found


@functools.cache
def _detector() -> Any:
    import dlib

    try:
        return dlib.fhog_object_detector(str(PATH))
    except RuntimeError as error:
        raise ModelFileError(f"{PATH} is not a detector of heads ({error}): install facefit again") from None
