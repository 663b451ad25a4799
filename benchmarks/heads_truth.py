"""What is known about a path-traced head: the manifest's cameras and landmarks, and errors against them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from facefit.benchmarks.estimate import FaceEstimate
from facefit.benchmarks.metrics import (
    Points,
    Similarity,
    Surface,
    angle_between_deg,
    correspondence_error,
    landmark_error,
    outer_eye_distance,
)
from facefit.benchmarks.now import Scan
from facefit.benchmarks.run import Arrays, Row
from facefit.errors import UnreadableInput

# A landmark this far from the outer surface is no point of the face; a median floor below the other means
# that a head lies in the model's own space.
OFF_FACE_MM, IN_SPACE_MM = 5.0, 0.05


@lru_cache(maxsize=2)
def manifest(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Image key -> the manifest's record of it; empty where a folder has no manifest."""
    path = root / "manifest.json"
    try:
        subjects = json.loads(path.read_text(encoding="utf-8"))["subjects"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableInput(f"{path}: not a manifest of heads ({error})") from error
    return {
        "/".join(image["file"].rsplit(".", 1)[0].split("/")[-3:]): {
            **image,
            "landmarks68_mm": s["landmarks68_mm"],
        }
        for s in subjects
        for image in s["images"]
    }


def true_landmarks(truth: Mapping[str, Any], scan: Scan) -> Float[np.ndarray, "68 2"]:
    """The manifest's projected landmarks; NaN for those not on the face (some heads have inner-lip
    points in the throat). Jaw points are points of the mesh, not of the silhouette."""
    pixels = np.array(truth["landmarks68_px"], np.float64)
    off = Surface(scan.mesh, threads=1).distance(np.array(truth["landmarks68_mm"], np.float64)) > OFF_FACE_MM
    pixels[off] = np.nan
    return pixels


def landmark_errors(found: FaceEstimate, truth: Float[np.ndarray, "68 2"]) -> Row:
    """Mean distance of the fitted mesh's landmarks to the truth, in per cent of the outer-eye distance."""
    row: Row = {}
    for name, first in (("landmarks68 %", 0), ("landmarks51 %", 17), ("jaw17 %", 0)):
        numbers = range(first, 17 if name.startswith("jaw") else 68)
        usable = [n for n in numbers if n in found.landmarks_px and np.isfinite(truth[n]).all()]
        if usable:
            mine = np.stack([found.landmarks_px[n] for n in usable])
            row[name] = landmark_error(mine, truth[usable], outer_eye_distance(truth))
    return row


def camera_errors(found: FaceEstimate, onto_scan: Similarity, truth: Mapping[str, Any]) -> Row:
    """Pose in degrees, focal length and distance in per cent.

    A model's own "upright" is a convention, so poses are compared after bringing the predicted head onto the
    scan: what remains is how far the scan, carried along, is turned from where it was.
    """
    assert found.camera_from_model is not None and found.translation_mm is not None
    rotation, translation = np.array(truth["R"]), np.array(truth["t"])
    # scan -> model -> camera, to be compared with scan -> camera.
    carried = onto_scan.inverse.then(Similarity(1.0, found.camera_from_model, found.translation_mm))
    distance, mine = np.linalg.norm(translation), np.linalg.norm(carried.translation)
    turn = angles_deg(rotation.T @ carried.rotation)
    row: Row = {
        "pose deg": angle_between_deg(carried.rotation, rotation),
        **{f"{name} deg": value for name, value in zip(("pitch", "yaw", "roll"), turn, strict=True)},
        "distance %": 100 * (float(mine) / float(distance) - 1),
        "true yaw deg": truth.get("yaw_deg"),
    }
    if found.focal_px is not None:
        row["focal %"] = 100 * (found.focal_px / float(truth["K"][0][0]) - 1)
    return row


def angles_deg(rotation: np.ndarray) -> tuple[float, float, float]:
    """A small rotation about x (pitch), y (yaw), z (roll), R = Rz Ry Rx."""
    return (
        math.degrees(math.atan2(rotation[2, 1], rotation[2, 2])),
        math.degrees(math.asin(max(-1.0, min(1.0, -rotation[2, 0])))),
        math.degrees(math.atan2(rotation[1, 0], rotation[0, 0])),
    )


def correspondences(vertices: Points, subject: Arrays) -> Row:
    """Distance of corresponding vertices, for models whose mesh the projection on the scan shares.

    Where the scan lies in the model's own space (floor below `IN_SPACE_MM`) the projection is the truth,
    vertex by vertex; elsewhere it is only the model's best surface, and "best surface mm" says how far from
    that one is.
    """
    if len(vertices) != len(subject["placed"]) or not subject["scored"].any():
        return {}
    error = correspondence_error(vertices, subject["placed"].astype(np.float64), subject["scored"])
    median = float(np.median(error))
    inside = float(np.median(subject["floor"])) < IN_SPACE_MM
    return {"best surface mm": median} | ({"true mm": median} if inside else {})
