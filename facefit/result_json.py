"""A fit as plain data: the contents of result.json and of params.npz."""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

import facefit
from facefit.camera_conventions import CONVENTIONS, camera_to
from facefit.displacement import detail_entry
from facefit.fitting.result import FitResult
from facefit.on_cpu import on_cpu
from facefit.result_trust import gaze_entry, sigma_lists, uncertainty_arrays, uncertainty_entry, verdict_entry

FORMAT = 1

# dlib's 68-point file was trained on iBUG 300-W, whose terms exclude commercial use.
LANDMARK_LICENCE = {"dlib": "non-commercial", "facefit": "free", "given": "as given"}
SCALE_STATEMENT = (
    "One photograph does not determine absolute size: a small face nearby and a large one further away give "
    "the same picture. Lengths are millimetres of an average adult head; the size is the model's prior, not "
    "a measurement (heads differ by about 5 %), and depends on the field of view assumed."
)

MODEL_FRAME = "millimetres, x to the subject's left, y up, z out of the nose"
PHOTO_FRAME = (
    "pixels of the original photograph, EXIF orientation applied; the first pixel's centre is (0.5, 0.5)"
)


def result_dict(result: FitResult) -> dict[str, Any]:
    """Everything a run knows, as numbers, strings, lists and dictionaries; NaN where a figure does not apply."""
    result = on_cpu(result)
    model, photo = result.model, result.observation
    return {
        "facefit": {"version": facefit.__version__, "format": FORMAT},
        "status": {"code": result.status.name, "ok": result.status.ok, "sentence": result.status.value},
        "summary": result.summary(),
        "warnings": list(result.warnings),
        "photo": {
            "file": None if photo.path is None else photo.path.name,
            "width": photo.width,
            "height": photo.height,
        },
        "model": {
            "name": model.source.name,
            "licence": model.source.licence,
            "licence_class": model.source.licence_class,
            "citation": model.source.citation,
            "sha256": model.source.sha256,
            "vertices": model.n_vertices,
            "triangles": len(model.topology.triangles),
        },
        "camera": _camera(result),
        "pose": _pose(result),
        "parameters": _parameters(result),
        "scale": {"metric": False, "unit": "mm", "statement": SCALE_STATEMENT},
        "landmarks": {
            "scheme": "iBUG 68, number = position in the list",
            "frame": PHOTO_FRAME,
            "by": photo.landmarks_by,
            "licence_class": LANDMARK_LICENCE[photo.landmarks_by],
            "found": None if photo.landmarks is None else photo.landmarks.round(3).tolist(),
            "fitted": None if result.landmarks_fitted is None else result.landmarks_fitted.round(3).tolist(),
            "mean_error_of_outer_eye_distance": result.landmark_error,
        },
        "fit": {
            "photometric_rms_start": result.photometric_rms_start,
            "photometric_rms": result.photometric_rms,
            "photometric_unit": "sRGB levels, 0-1, over the face pixels in use",
            "pixels_used": result.pixels_used,
            "stages": [
                {
                    "name": stage.name,
                    "status": stage.status.name,
                    "steps": stage.steps,
                    "cost_before": dict(stage.cost_before),
                    "cost_after": dict(stage.cost_after),
                    "seconds": stage.seconds,
                }
                for stage in result.stages
            ],
        },
        "detail": detail_entry(result),
        "gaze": gaze_entry(result),
        "verdict": verdict_entry(result),
        "uncertainty": uncertainty_entry(result),
        "timings_s": {**result.timings, "fit": result.seconds},
        "versions": _versions(),
    }


def encode_json(data: Any) -> str:
    """Strict JSON: NaN and infinities become null, tensors and arrays are refused."""
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False)
    # A photograph's name may hold bytes that are no text (surrogates on disk); JSON must still be UTF-8.
    return text.encode("utf-8", "replace").decode() + "\n"


def parameter_arrays(result: FitResult) -> dict[str, np.ndarray]:
    """The arrays of params.npz: numeric, loadable without pickles, in the units of result.json."""
    result = on_cpu(result)
    scene, model = result.scene, result.model
    arrays: dict[str, torch.Tensor] = {
        "identity": scene.identity,
        "expression": scene.expression,
        "expression_activation": scene.expression * model.expression_unit.to(scene.expression),
        "albedo": scene.albedo,
        "lighting": scene.lighting.coefficients,
        "rotation": scene.pose.rotation,
        "translation_mm": scene.pose.translation_mm,
        "K": scene.camera.matrix,
        "R": scene.pose.camera_from_model,
        "vertices_mm": scene.shape(model),
        "neutral_vertices_mm": scene.neutral_shape(model),
        "triangles": model.triangles,
        "image_size": torch.tensor([scene.camera.width, scene.camera.height]),
    }
    if scene.offsets is not None:
        arrays["offsets_mm"] = scene.offsets
    if scene.albedo_offsets is not None:
        arrays["albedo_offsets"] = scene.albedo_offsets
    plain = {name: tensor.numpy() for name, tensor in arrays.items()}
    if result.observation.landmarks is not None:
        plain["landmarks_found_px"] = result.observation.landmarks
    if result.landmarks_fitted is not None:
        plain["landmarks_fitted_px"] = result.landmarks_fitted
    return {**plain, **uncertainty_arrays(result)}


def _camera(result: FitResult) -> dict[str, Any]:
    camera, pose = result.scene.camera, result.scene.pose
    return {
        "convention": "opencv",
        "meaning": "X_camera = R X_model + t, camera axes x right, y down, z forward; pixel = K X_camera / z",
        "model_frame": MODEL_FRAME,
        **camera_to("opencv", pose, camera),
        "focal_px": float(camera.focal_px),
        "field_of_view_deg": camera.field_of_view_deg,
        "field_of_view_spans": "the longer side",
        "focal_source": camera.focal_source,
        "conversions": {name: camera_to(name, pose, camera) for name in CONVENTIONS if name != "opencv"},
    }


def _pose(result: FitResult) -> dict[str, Any]:
    yaw, pitch, roll = result.scene.pose.yaw_pitch_roll_deg()
    return {
        "rotation": {
            "unit": "rad",
            "meaning": "rotation vector about the model's axes",
            "value": _list(result.scene.pose.rotation),
        },
        "translation": {
            "unit": "mm",
            "meaning": "model origin in camera axes",
            "value": _list(result.scene.pose.translation_mm),
        },
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "roll_deg": roll,
        "signs": "yaw > 0 to the subject's left, pitch > 0 up, roll > 0 to the subject's left shoulder",
    }


def _parameters(result: FitResult) -> dict[str, Any]:
    scene, model = result.scene, result.model
    deviations = "standard deviations of the model's prior"
    activation = scene.expression * model.expression_unit.to(scene.expression)
    offsets = scene.offsets
    sigma = sigma_lists(result)
    of_expression = sigma["expression"] or [None] * scene.expression.numel()
    return {
        "identity": {"unit": deviations, "value": _list(scene.identity), "sigma": sigma["identity"]},
        "expression": {
            "unit": deviations,
            "activation_unit": "the model's own scale; for ARKit shapes 0 is rest and 1 the full shape",
            "value": [
                {"name": name, "coefficient": float(c), "activation": float(a), "coefficient_sigma": s}
                for name, c, a, s in zip(
                    model.expression_names, scene.expression, activation, of_expression, strict=False
                )
            ],
        },
        "albedo": {"unit": deviations, "value": _list(scene.albedo), "sigma": sigma["albedo"]},
        "lighting": {
            "unit": "linear RGB radiance, divided by pi",
            "order": "(l, m) = (0,0), (1,-1), (1,0), (1,1), (2,-2) ... (2,2), orthonormal real harmonics, "
            "model frame; rows are harmonics, columns red, green, blue",
            "value": scene.lighting.coefficients.tolist(),
            "sigma": sigma["lighting"],
        },
        "offsets": {
            "unit": "mm per vertex, model frame; in params.npz",
            "used": offsets is not None,
            "albedo_used": scene.albedo_offsets is not None,
            "rms_mm": 0.0 if offsets is None else float(offsets.norm(dim=1).square().mean().sqrt()),
        },
        "distance_from_mean_face": {
            "unit": "RMS of the identity coefficients: 0 is the mean face; a typical person's true value is about 1, a "
            "fitted one is smaller, since modes of which the photograph says little stay near 0",
            "value": float(scene.identity.square().mean().sqrt()),
        },
    }


def _versions() -> dict[str, str | None]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = {name: of(name) for name in ("numpy", "torch", "numba", "scipy", "pillow")}
    return {"python": platform.python_version(), "platform": platform.platform(terse=True), **packages}


def _list(tensor: torch.Tensor) -> list[float]:
    return [float(x) for x in tensor.reshape(-1)]


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return data
