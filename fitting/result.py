"""What a fit leaves behind: the scene, how each stage ended, and how well the photograph is explained."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from facefit.fitting.gaze import Gaze
from facefit.fitting.inliers import SkinMask
from facefit.fitting.posterior import Posterior, neutral_sigma_mm
from facefit.fitting.uncertainty import MISMATCH, in_words, part_sigma_mm
from facefit.fitting.verdict import Verdict, verdict
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation

if TYPE_CHECKING:
    from facefit.fitting.detail.stage import Detail
    from facefit.fitting.stages import Stage

# Whose the landmarks are decides what a result may be used for, as the model does.
LANDMARK_TERMS = {
    "dlib": "; landmarks by dlib (non-commercial)",
    "facefit": "; landmarks by facefit (free)",
    "given": "",
}


class Status(enum.Enum):
    """How a solver ended; the value is the sentence a user reads."""

    CONVERGED = "The fit converged."
    STEPS_USED = "The fit took all its planned steps."
    NO_DESCENT = "No step lowered the cost any further."
    NOT_FINITE = "The cost became infinite or NaN; the last finite state was kept."
    BEHIND_CAMERA = "Part of the face ended up behind the camera: the landmarks are those of no face."
    NOTHING_TO_FIT = "There was no evidence to fit: no usable landmark and no usable pixel."
    NO_DETAIL = "The face was fitted; no skin was seen well enough, in light, to add detail to it."

    @property
    def ok(self) -> bool:
        return self in (Status.CONVERGED, Status.STEPS_USED, Status.NO_DESCENT, Status.NO_DETAIL)


@dataclass(frozen=True)
class StageReport:
    """One stage: how it ended, its steps, its cost by term before and after, and its time."""

    name: str
    status: Status
    steps: int
    cost_before: dict[str, float]
    cost_after: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """A fitted scene with its evidence.

    `landmark_error` is the mean distance of the 51 inner landmarks over the outer eye distance (a fraction);
    the photometric figures are RMS differences in sRGB levels (0-1) over the face pixels in use, at the start and
    at the end; `pixels_used` is the fraction of visible face pixels in use. NaN where it does not apply. `skin` says
    where the photograph shows the face; None where no stage looked. `detail` is what is finer than the model's mesh,
    `gaze` where the eyes look; None where the expressions do not turn them, or were not fitted.
    """

    scene: Scene
    model: LinearFaceModel
    observation: Observation
    stages: tuple[StageReport, ...]
    landmark_error: float = float("nan")
    photometric_rms_start: float = float("nan")
    photometric_rms: float = float("nan")
    pixels_used: float = float("nan")
    landmarks_fitted: Float[np.ndarray, "68 2"] | None = None
    skin: SkinMask | None = None
    detail: Detail | None = None
    gaze: Gaze | None = None
    recipe: tuple[Stage, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The last stage's, unless an earlier one lost its way."""
        for stage in self.stages:
            if stage.status in (Status.NOT_FINITE, Status.BEHIND_CAMERA):
                return stage.status
        return self.stages[-1].status if self.stages else Status.NOTHING_TO_FIT

    @cached_property
    def inliers(self) -> Bool[np.ndarray, "height width"] | None:
        """False where the face is hidden by hair, a hand, glasses ...; of the photograph's size."""
        if self.skin is None:
            return None
        return self.skin.at_photo(self.observation.height, self.observation.width)

    @cached_property
    def posterior(self) -> Posterior | None:
        """How sure the fit is, worked out when first asked for; None where the shape was not fitted."""
        from facefit.fitting.recipe import posterior_of

        return posterior_of(self)

    def vertex_sigma_mm(self) -> Float[np.ndarray, "vertices 3"] | None:
        """How far each vertex of the neutral face may be off along the model's axes: standard deviations in mm.

        None where the shape was not fitted. Size is a prior and not in it; see `neutral_sigma_mm`.
        """
        if self.posterior is None or "identity" not in self.posterior.layout:
            return None
        return neutral_sigma_mm(self.model, self.posterior, self.scene.neutral_shape(self.model).detach())

    @cached_property
    def part_sigma_mm(self) -> dict[str, float]:
        """How far each part of the face may be off per axis, mm, model mismatch included; empty where unknown."""
        sigma = self.vertex_sigma_mm()
        return {} if sigma is None else part_sigma_mm(self.model, MISMATCH * sigma)

    @cached_property
    def verdict(self) -> Verdict:
        """Good, usable or poor, and why."""
        return verdict(self)

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def terms(self) -> str:
        """What the result may be used for: the model's licence, and whose landmarks were used."""
        source = self.model.source
        landmarks = LANDMARK_TERMS[self.observation.landmarks_by]
        return f"model {self.model.name} ({source.licence}, {source.licence_class}){landmarks}"

    def summary(self) -> str:
        """A few lines a person reads after a fit."""
        yaw, pitch, roll = self.scene.pose.yaw_pitch_roll_deg()
        lines = [
            self.status.value,
            self._figures(),
            f"head turned {yaw:+.0f} deg, pitch {pitch:+.0f}, roll {roll:+.0f}; field of view "
            f"{self.scene.camera.field_of_view_deg:.0f} deg ({self.scene.camera.focal_source})",
            self.terms,
        ]
        if self.part_sigma_mm:
            lines.append(in_words(self.part_sigma_mm))
        lines.append(f"verdict: {self.verdict.sentence}")
        return "\n".join([*lines, *self.warnings])

    def _figures(self) -> str:
        """How well landmarks and colours are explained, where they were used, and the time it took."""
        figures = []
        if math.isfinite(self.landmark_error):
            figures.append(f"landmarks off by {100 * self.landmark_error:.1f} % of the eye distance")
        if math.isfinite(self.photometric_rms):
            rms, start = 255 * self.photometric_rms, 255 * self.photometric_rms_start
            figures.append(f"colour RMS {rms:.1f} grey levels (start {start:.1f})")
            figures.append(f"{100 * self.pixels_used:.0f} % of face pixels used")
        return "; ".join([*figures, f"{1000 * self.seconds:.0f} ms"])

    def __repr__(self) -> str:
        """One line: what a notebook shows of a result must not be all its tensors."""
        path = self.observation.path
        of = "" if path is None else f" of {path.name}"
        return f"<FitResult{of}, model {self.model.name}: {self.status.value}>"
