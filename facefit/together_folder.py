"""What a fit of several photographs of one person leaves behind: the person, and a folder for each photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import facefit
from facefit.export import neutral_obj, write_results
from facefit.fitting.joint.result import JointResult
from facefit.on_cpu import on_cpu
from facefit.result_json import FORMAT, LANDMARK_LICENCE, SCALE_STATEMENT, encode_json, result_dict


def write_together(joint: JointResult, folder: Path) -> list[tuple[str, str]]:
    """Write the person's files and each photograph's folder; gives each name and what it is in one phrase."""
    names = folder_names(joint)
    described = together_dict(joint)
    (folder / "neutral.obj").write_text(neutral_obj(on_cpu(joint.results[0])))
    (folder / "result.json").write_text(encode_json(described), encoding="utf-8")
    files = [
        ("neutral.obj", "the person's head without expression, from all photographs"),
        ("result.json", "the person's parameters, and which photographs were used"),
    ]
    for index, (name, result) in enumerate(zip(names, joint.results, strict=True)):
        (folder / name).mkdir()
        write_results(result, folder / name)
        files.append((f"{name}/", f"everything about {joint.name(index)}; look at {name}/report.html"))
    return files


def folder_names(joint: JointResult) -> list[str]:
    """A folder's name for each photograph: its stem, with a number where two are alike."""
    names: list[str] = []
    for index, result in enumerate(joint.results):
        path = result.observation.path
        stem = f"photograph_{index + 1}" if path is None else path.stem
        taken = {name.lower() for name in names}
        # Some file systems do not tell capitals from small letters.
        name = stem if stem.lower() not in taken else f"{stem}_{index + 1}"
        names.append(name)
    return names


def together_dict(joint: JointResult) -> dict[str, Any]:
    """The joint result as plain data; each photograph's own result.json has the rest."""
    first = result_dict(joint.results[0])
    parameters = first["parameters"]
    sigma = None if joint.posterior is None else joint.posterior.sigma("identity").tolist()
    strange = joint.strangeness or (float("nan"),) * len(joint.results)
    return {
        "facefit": {"version": facefit.__version__, "format": FORMAT},
        "status": {"code": joint.status.name, "ok": joint.status.ok, "sentence": joint.status.value},
        "summary": joint.summary(),
        "warnings": list(joint.warnings),
        "model": first["model"],
        "person": {
            "identity": {**parameters["identity"], "sigma": sigma},
            "albedo": parameters["albedo"],
            "distance_from_mean_face": parameters["distance_from_mean_face"],
        },
        "photographs": {
            "used": [
                {
                    "file": joint.name(index),
                    "folder": name,
                    "strangeness": value,
                    "landmarks_by": result.observation.landmarks_by,
                    "landmarks_licence_class": LANDMARK_LICENCE[result.observation.landmarks_by],
                    "landmark_error_of_outer_eye_distance": result.landmark_error,
                    "photometric_rms": result.photometric_rms,
                }
                for index, (name, result, value) in enumerate(
                    zip(folder_names(joint), joint.results, strange, strict=True)
                )
            ],
            "left_out": [{"file": path.name, "reason": reason} for path, reason in joint.skipped],
            "strangeness_means": "squared distance of the photograph's own shape from the others', over what "
            "independent errors would give: above 1 it may be somebody else",
        },
        "scale": {"metric": False, "unit": "mm", "statement": SCALE_STATEMENT},
        "timings_s": {**joint.timings},
        "versions": first["versions"],
    }
