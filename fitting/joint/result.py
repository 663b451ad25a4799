"""What the fit of several photographs of one person leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.fitting.posterior import Posterior, neutral_sigma_mm
from facefit.fitting.result import FitResult, Status
from facefit.models.face_model import LinearFaceModel


@dataclass(frozen=True)
class JointResult:
    """One `FitResult` per photograph, in their order; identity and albedo are the same in all.

    `skipped` are photographs that could not be used, with the reason. `strangeness` says how far each
    photograph's own shape is from the others' (1 is what one person's differ by; see `same_person`).
    """

    results: tuple[FitResult, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    strangeness: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> LinearFaceModel:
        return self.results[0].model

    @property
    def status(self) -> Status:
        """The first that is not well, else the first."""
        states = [result.status for result in self.results]
        return next((status for status in states if not status.ok), states[0])

    @property
    def seconds(self) -> float:
        return self.results[0].seconds

    @cached_property
    def posterior(self) -> Posterior | None:
        """How sure the person's identity and albedo are, all that belongs to single photographs integrated out."""
        from facefit.fitting.joint.recipe import posterior_together

        return posterior_together(self)

    def vertex_sigma_mm(self) -> Float[np.ndarray, "vertices 3"] | None:
        """As `FitResult.vertex_sigma_mm`, from all photographs together."""
        if self.posterior is None or "identity" not in self.posterior.layout:
            return None
        neutral = self.results[0].scene.neutral_shape(self.model).detach()
        return neutral_sigma_mm(self.model, self.posterior, neutral)

    def summary(self) -> str:
        """A few lines a person reads after a fit: the whole, then a line for each photograph."""
        many = len(self.results)
        head = (
            f"{many} photograph{'s' if many > 1 else ''} fitted as one person in {1000 * self.seconds:.0f} ms"
        )
        if self.skipped:
            head += f"; {len(self.skipped)} could not be used"
        lines = [self.status.value, head]
        for number, result in enumerate(self.results, start=1):
            yaw, _, _ = result.scene.pose.yaw_pitch_roll_deg()
            lines.append(
                f"{self.name(number - 1)}: landmarks {100 * result.landmark_error:.1f} % of the eye distance, "
                f"colour RMS {255 * result.photometric_rms:.1f} grey levels, head turned {yaw:+.0f} deg, "
                f"field of view {result.scene.camera.field_of_view_deg:.0f} deg; {result.verdict.sentence}"
            )
        lines += dict.fromkeys(result.terms for result in self.results)
        return "\n".join([*lines, *self.warnings])

    def name(self, index: int) -> str:
        """What a photograph is called: its file's name, or its number."""
        return called(self.results[index].observation.path, index)


def called(path: Path | None, index: int) -> str:
    return f"photograph {index + 1}" if path is None else path.name
