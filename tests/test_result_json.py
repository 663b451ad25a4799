"""result.json and params.npz: strict, complete, and enough to put the face back on the photograph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_toy import toy_result
from test_recipe import TRUTH, observe
from toy import toy_model

from facefit.fitting.recipe import fit
from facefit.fitting.result import FitResult
from facefit.result_json import encode_json, parameter_arrays, result_dict


@pytest.fixture(scope="module")
def result() -> FitResult:
    return toy_result()


def strict(text: str) -> Any:
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_figures_that_do_not_apply_are_null(result: FitResult) -> None:
    nothing = replace(
        result, landmark_error=float("nan"), photometric_rms=float("inf"), landmarks_fitted=None
    )
    landmarks = result.observation.landmarks
    assert landmarks is not None
    hidden = np.where(np.arange(68)[:, None] < 5, np.nan, landmarks)
    nothing = replace(nothing, observation=replace(result.observation, landmarks=hidden))
    data = strict(encode_json(result_dict(nothing)))
    assert data["landmarks"]["mean_error_of_outer_eye_distance"] is None
    assert data["fit"]["photometric_rms"] is None
    assert data["landmarks"]["found"][0] == [None, None]
    assert data["landmarks"]["fitted"] is None


def test_the_written_camera_and_vertices_give_the_fitted_landmarks(result: FitResult) -> None:
    camera = strict(encode_json(result_dict(result)))["camera"]
    assert camera["convention"] == "opencv"
    arrays = parameter_arrays(result)
    landmarks = result.model.topology.landmarks
    corners = arrays["vertices_mm"][arrays["triangles"][landmarks.triangles]]
    points = (landmarks.barycentric[:, :, None] * corners).sum(1)
    image = (points @ np.array(camera["R"]).T + camera["t_mm"]) @ np.array(camera["K"]).T
    np.testing.assert_allclose(image[:, :2] / image[:, 2:], result.landmarks_fitted, atol=1e-2)


def test_an_expression_is_named_and_its_activation_is_coefficient_times_unit(result: FitResult) -> None:
    entries = result_dict(result)["parameters"]["expression"]["value"]
    assert [e["name"] for e in entries] == list(result.model.expression_names)
    units = result.model.expression_unit.tolist()
    for entry, unit in zip(entries, units, strict=True):
        assert entry["activation"] == pytest.approx(entry["coefficient"] * unit)


def test_model_licence_status_scale_and_warnings_are_there(result: FitResult) -> None:
    data = result_dict(result)
    assert data["model"]["licence_class"] == "free" and data["model"]["sha256"] == "0" * 64
    assert data["status"]["sentence"] == "The fit converged."
    assert data["scale"]["metric"] is False and "prior" in data["scale"]["statement"]
    assert data["warnings"] == ["scale is a prior"]
    assert data["photo"] == {"file": "toy.jpg", "width": 200, "height": 240}
    assert {"python", "numpy", "torch"} <= set(data["versions"])


def test_figures_of_the_fit_are_the_results_own(result: FitResult) -> None:
    told = result_dict(result)["fit"]
    for name in ("photometric_rms_start", "photometric_rms", "pixels_used"):
        assert told[name] == getattr(result, name)
    assert [stage["cost_after"] for stage in told["stages"]] == [dict(s.cost_after) for s in result.stages]


def test_every_parameter_names_its_unit(result: FitResult) -> None:
    assert all("unit" in entry for entry in result_dict(result)["parameters"].values())


def test_no_folder_of_this_machine_is_written(result: FitResult) -> None:
    assert "somewhere" not in encode_json(result_dict(result))


def test_a_file_name_that_is_no_text_still_gives_utf8(result: FitResult) -> None:
    odd = replace(result, observation=replace(result.observation, path=Path("a\udcff.jpg")))
    encode_json(result_dict(odd)).encode("utf-8")


def test_arrays_are_numeric_and_load_without_pickles(result: FitResult, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **parameter_arrays(result))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as loaded:
        assert {"identity", "expression", "lighting", "K", "R", "translation_mm"} <= set(loaded.files)
        assert all(loaded[name].dtype.kind in "fiu" for name in loaded.files)


def test_every_fitted_number_has_its_doubt() -> None:
    fitted = fit(observe(TRUTH), toy_model())
    data, arrays = strict(encode_json(result_dict(fitted))), parameter_arrays(fitted)
    parameters, doubt = data["parameters"], data["uncertainty"]
    for block in ("identity", "albedo", "lighting"):
        value, sigma = np.array(parameters[block]["value"]), np.array(parameters[block]["sigma"])
        assert value.shape == sigma.shape == arrays[f"{block}_sigma"].shape and (sigma > 0).all()
    assert all(entry["coefficient_sigma"] > 0 for entry in parameters["expression"]["value"])
    assert len(doubt["pose_sigma"]["rotation_rad"]) == len(doubt["pose_sigma"]["translation_mm"]) == 3
    assert doubt["inflation"]["factor"] >= 1 and all(v > 0 for v in doubt["parts_mm"]["value"].values())
    assert arrays["vertex_sigma_mm"].shape == arrays["neutral_vertices_mm"].shape
    assert data["verdict"]["grade"] in ("good", "usable", "poor") and data["verdict"]["sentence"]


def test_what_was_not_fitted_has_no_doubt(result: FitResult) -> None:
    data = result_dict(result)
    assert data["uncertainty"] is None and data["parameters"]["identity"]["sigma"] is None
    assert "vertex_sigma_mm" not in parameter_arrays(result)
