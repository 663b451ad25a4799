"""Good, usable or poor: how far a fit can be trusted, and why, from what the fit itself knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from facefit.fitting.residuals.landmarks import INNER, landmark_covariance

if TYPE_CHECKING:
    from facefit.fitting.result import FitResult

Grade = Literal["good", "usable", "poor"]

# Up to these expected errors a fit is good, and usable.
GOOD_MM, USABLE_MM = 1.8, 2.5
# A typical fit, the median of 24 pictures of path-traced heads with two models: so far is its surface off (root mean
# square), so much of the model's spread of shapes did the photograph leave, so far is its identity from the mean face
# (of what its evidence allows).
TYPICAL_MM, TYPICAL_LEFT, TYPICAL_STRANGENESS = 1.74, 0.76, 0.66
# How the true error grows with them, as exponents. From 258 drawn pictures of people outside the model's space (drawn
# with one model, fitted with the other; round figures for 2.3 +- 0.3 and 0.36 +- 0.09). More than the first power of
# what is left: who is seen badly is also misfitted where the posterior believes to see.
BY_LEFT, BY_STRANGENESS = 2.0, 0.5
# Landmarks further off than their own sigmas contradict the fit.
BY_CONTRADICTION = 0.5
# None is believed beyond these factors of the typical one.
FEWEST, MOST = 0.4, 4.0

# What a person should know of, whatever the expected error.
BAD_LANDMARKS = 0.05
# A detector that agrees with itself gives a mean landmark sigma of about 2.4 % of the eye distance. Beyond the second
# figure it has missed a part of the face, and a fit that follows it misses it, too.
UNSURE_LANDMARKS, MISSED_LANDMARKS = 0.04, 0.06
FEW_PIXELS, HARDLY_ANY_PIXELS = 0.6, 0.3
SMALL_FACE_PX = 40.0
TURNED_DEG = 40.0
EDGE_SIGMA = 3.0
# The photograph has narrowed the prior's spread of shapes by less than this share.
LITTLE_LEARNT = 0.1


@dataclass(frozen=True)
class Verdict:
    """The grade, the expected error it rests on (mm, NaN where unknown), and what speaks against the fit."""

    grade: Grade
    expected_mm: float
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        if not self.reasons:
            return f"{self.grade}: nothing speaks against it"
        return f"{self.grade}{', but' if self.grade == 'good' else ':'} {'; '.join(self.reasons)}"


def verdict(result: FitResult) -> Verdict:
    """A fit's verdict. Each serious reason costs one grade."""
    expected = expected_error_mm(result)
    serious, slight = _reasons(result)
    if not result.status.ok:
        return Verdict("poor", expected, ("the fit failed", *serious, *slight))
    level = 0 if not expected > GOOD_MM else 1 if expected <= USABLE_MM else 2
    if level:
        slight = (f"the shape may be off by {expected:.1f} mm", *slight)
    level = min(2, level + len(serious))
    if result.pixels_used < HARDLY_ANY_PIXELS:
        level = 2
    grades: tuple[Grade, ...] = ("good", "usable", "poor")
    return Verdict(grades[level], expected, (*serious, *slight))


def expected_error_mm(result: FitResult) -> float:
    """What is left of the model's spread of shapes, more for a person who is unusual in what is seen of them.

    The posterior knows how turned, how small and how hidden the face is, how unsure its landmarks are and how much of
    its colours is unexplained; that the model cannot explain this person it does not know. Who is unusual where it can
    be seen is so elsewhere. How well landmarks and colours fit says nothing more on drawn pictures (exponents of -0.05
    and 0.04, +- 0.04), unless landmarks lie further off than their detector says.

    The rank correlation with the NoW median, over drawn pictures of people outside the model that had no say in it, is
    0.52 for the built-in model and 0.44 for ICT. Over 24 pictures of eight heads, which differ little in what they
    show, it is 0.4 for ICT and none for the built-in model (90 % of resampled heads: -0.4 to 0.4).
    """
    left, unusual = 1 - learnt_share(result), strangeness(result)
    if not (math.isfinite(left) and math.isfinite(unusual)):
        return math.nan
    expected: float = TYPICAL_MM * (left / TYPICAL_LEFT) ** BY_LEFT
    expected *= float(np.clip(unusual / TYPICAL_STRANGENESS, FEWEST, MOST)) ** BY_STRANGENESS
    misfit = landmark_misfit(result)
    if math.isfinite(misfit):
        expected *= float(np.clip(misfit, 1, MOST)) ** BY_CONTRADICTION
    return expected


def _reasons(result: FitResult) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What speaks against a fit, in words: serious and slight."""
    serious, slight = [], []
    error, used, seen = result.landmark_error, result.pixels_used, result.observation
    if error > BAD_LANDMARKS:
        serious.append(f"the fitted points lie {100 * error:.0f} % of the eye distance from the landmarks")
    if used < HARDLY_ANY_PIXELS:
        whose = "the mask leaves" if seen.mask_given else "skin explains"
        serious.append(f"{whose} only {100 * used:.0f} % of the face: the shape rests on landmarks alone")
    elif used < FEW_PIXELS:
        slight.append(f"{100 * (1 - used):.0f} % of the face is hidden or not explained")
    if seen.landmarks is None:
        serious.append("there were no landmarks")
    else:
        eyes = seen.interocular_px
        if eyes < SMALL_FACE_PX:
            slight.append(f"the face is small ({eyes:.0f} px between the eyes)")
        if seen.landmark_covariance is not None and eyes > 0:
            inner = np.trace(seen.landmark_covariance[17:], axis1=1, axis2=2) / 2
            unsure = float(np.sqrt(inner).mean()) / eyes
            told = f"the landmarks are unsure (+-{100 * unsure:.0f} % of the eye distance)"
            if unsure > MISSED_LANDMARKS:
                serious.append(f"{told}: look at the overlay, and give better ones with --landmarks")
            elif unsure > UNSURE_LANDMARKS:
                slight.append(told)
    yaw = abs(result.scene.pose.yaw_pitch_roll_deg()[0])
    if yaw > TURNED_DEG:
        slight.append(f"the head is turned {yaw:.0f} degrees: its far side is a guess")
    identity = result.scene.identity
    if identity.numel() and float(identity.abs().max()) > EDGE_SIGMA:
        serious.append("the face lies at the edge of what the model can say")
    learnt = learnt_share(result)
    if learnt < LITTLE_LEARNT:
        slight.append("the photograph says little about the shape: this is nearly the model's mean face")
    return tuple(serious), tuple(slight)


def landmark_misfit(result: FitResult) -> float:
    """Root mean square distance of the inner landmarks in their own sigmas, per axis; NaN where unknown.

    Not in pixels: what a detector is unsure of, the posterior has heard already.
    """
    seen, fitted = result.observation, result.landmarks_fitted
    if seen.landmarks is None or fitted is None:
        return math.nan
    difference = (seen.landmarks - fitted)[INNER]
    known = np.isfinite(difference).all(1)
    if not known.any():
        return math.nan
    chosen, covariance = difference[known], landmark_covariance(seen)[INNER][known]
    squared = (chosen * np.linalg.solve(covariance, chosen[:, :, None])[:, :, 0]).sum(1)
    return float(np.sqrt(squared.mean() / 2))


def strangeness(result: FitResult) -> float:
    """The identity's distance from the mean face over what is expected of it, about 1; NaN where unknown.

    Under the prior N(0, I) the estimate's squared length is on average the trace of I - posterior covariance: the
    number of modes that the photograph determines.
    """
    posterior = result.posterior
    if posterior is None or "identity" not in posterior.layout:
        return math.nan
    determined = float((1 - (posterior.sigma("identity") / posterior.noise) ** 2).clamp(min=0).sum())
    return float(result.scene.identity.double().norm()) / math.sqrt(max(determined, 1.0))


def learnt_share(result: FitResult) -> float:
    """How much narrower the photograph made the spread of shapes, 0 to 1; NaN where the shape was not fitted."""
    posterior = result.posterior
    if posterior is None or "identity" not in posterior.layout:
        return math.nan
    size = result.model.identity_basis.flatten(1).square().sum(1).double()
    before = float(size.sum().sqrt())
    after = float((size * posterior.sigma("identity") ** 2).sum().sqrt())
    return 1 - min(1.0, after / max(before, 1e-12))
