"""How far a fit can be trusted, as plain data: the entries of result.json and the arrays of params.npz."""

from __future__ import annotations

from typing import Any

import numpy as np

from facefit.fitting.result import FitResult
from facefit.fitting.uncertainty import MISMATCH, SCALE_SIGMA
from facefit.mesh import vertex_normals
from facefit.models.scene import BLOCKS

MEANING = (
    "Standard deviations of a Gaussian posterior: the curvature of the cost at the fitted scene. The noise is "
    "estimated from the residuals, and all pixels together count as a few independent observations, since what a "
    "model cannot say is shared by neighbouring pixels. On pictures drawn with the fitted model 90 % intervals hold "
    "about 90 % of the truth."
)
INFLATION = (
    "On path-traced heads of other identities the models cannot say everything: intervals had to be this many times "
    "wider to hold 90 % of the true surface. Applied to the figures by part, to no other."
)


def verdict_entry(result: FitResult) -> dict[str, Any]:
    found = result.verdict
    return {
        "grade": found.grade,
        "reasons": list(found.reasons),
        "expected_error_mm": found.expected_mm,
        "sentence": found.sentence,
    }


def gaze_entry(result: FitResult) -> dict[str, Any] | None:
    """None for a model whose expressions do not turn its eyes."""
    gaze = result.gaze
    if gaze is None:
        return None
    return {
        "unit": "degrees that the model's eyes turn in the head; also among the expressions",
        "signs": "left and up are the subject's",
        "seen": gaze.seen,
        "left_deg": gaze.left_deg,
        "up_deg": gaze.up_deg,
        "each_inwards_deg": gaze.converging_deg,
        "left_sigma_deg": gaze.left_sigma_deg,
        "up_sigma_deg": gaze.up_sigma_deg,
    }


def uncertainty_entry(result: FitResult) -> dict[str, Any] | None:
    """None where the shape was not fitted."""
    posterior = result.posterior
    if posterior is None:
        return None
    parts, lists = result.part_sigma_mm, sigma_lists(result)
    return {
        "meaning": MEANING,
        "noise_factor": posterior.noise,
        "inflation": {"factor": MISMATCH, "source": INFLATION},
        "parts_mm": {
            "unit": "mm per axis, neutral face, pose taken out; inflated",
            "value": parts,
        },
        "scale_sigma": SCALE_SIGMA,
        "pose_sigma": {
            "rotation_rad": lists["rotation"],
            "translation_mm": lists["translation"],
            "focal_log": lists["focal"],
        },
        "elsewhere": "each parameter's standard deviations stand beside its values; those of vertices, along the "
        "model's axes and not inflated, are vertex_sigma_mm in params.npz",
    }


def sigma_lists(result: FitResult) -> dict[str, list[Any] | None]:
    """Standard deviations of each block of parameters; None for one that was not fitted."""
    found = _sigmas(result)
    return {name: found[name].tolist() if name in found else None for name in BLOCKS}


def uncertainty_arrays(result: FitResult) -> dict[str, np.ndarray]:
    """`NAME_sigma` of each fitted parameter and `vertex_sigma_mm` (per axis, not inflated)."""
    arrays = {f"{name}_sigma": sigma for name, sigma in _sigmas(result).items()}
    vertices = result.vertex_sigma_mm()
    return arrays if vertices is None else {**arrays, "vertex_sigma_mm": vertices}


def vertex_doubt_mm(result: FitResult) -> np.ndarray | None:
    """How far each vertex may be off along its normal, mm, inflated: what the report colours."""
    sigma = result.vertex_sigma_mm()
    if sigma is None:
        return None
    normals = vertex_normals(result.scene.neutral_shape(result.model), result.model.triangles).numpy()
    doubt: np.ndarray = MISMATCH * np.sqrt((normals**2 * sigma**2).sum(1))
    return doubt


def _sigmas(result: FitResult) -> dict[str, np.ndarray]:
    if result.posterior is None:
        return {}
    every = result.posterior.every_sigma()
    shapes = {"lighting": (9, 3)}
    found = {name: sigma.numpy().reshape(shapes.get(name, -1)) for name, sigma in every.items()}
    if result.gaze is not None and "expression" in found:
        # The stages saw no more of the eyeballs than their lids: what the gaze says came later.
        numbers, sigma = zip(*result.gaze.coefficient_sigma.items(), strict=True)
        found["expression"][list(numbers)] = sigma
    return found
