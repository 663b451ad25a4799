"""Laws of the built-in face model's shipped file."""

import numpy as np
import pytest

from facefit.models import load_model
from facefit.models.builtin import store
from facefit.models.builtin.generate import generate

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model() -> dict[str, np.ndarray]:
    return store.read()


def test_file_is_small_enough_to_ship() -> None:
    assert store.PATH.stat().st_size <= 6_000_000


def test_mean_is_symmetric(model: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(model["mean"][model["mirror"]] * FLIP, model["mean"], atol=1e-4)


def test_eyes_of_the_mean_are_63_mm_apart(model: dict[str, np.ndarray]) -> None:
    eyes = model["mean"][model["region_eyeballs"]]
    left, right = eyes[eyes[:, 0] > 0].mean(axis=0), eyes[eyes[:, 0] < 0].mean(axis=0)
    assert abs(left[0] - right[0]) == pytest.approx(63.0, abs=1.0)


def test_the_skin_is_open_at_the_neck_only(model: dict[str, np.ndarray]) -> None:
    edges, uses = _edges(model["triangles"])
    skin = np.concatenate([model["region_face"], model["region_scalp"], model["region_neck"], model["region_lips"]])
    open_skin = edges[(uses == 1) & np.isin(edges, skin).all(axis=1)]
    assert len(open_skin) > 0
    assert model["mean"][open_skin][..., 1].max() < -145.0


def test_no_edge_belongs_to_three_triangles(model: dict[str, np.ndarray]) -> None:
    assert _edges(model["triangles"])[1].max() <= 2


def test_surface_reaches_105_mm_around_the_nose(model: dict[str, np.ndarray]) -> None:
    nose_base = model["mean"][model["triangles"][model["landmark_triangles"][33]]].mean(axis=0)
    edges, uses = _edges(model["triangles"])
    border = model["mean"][edges[uses == 1]].reshape(-1, 3)
    rim = border[border[:, 1] < -140.0]
    assert np.linalg.norm(rim - nose_base, axis=1).min() > 105.0


def test_right_expressions_mirror_left_ones(model: dict[str, np.ndarray]) -> None:
    names = model["expression_names"].tolist()
    left, right = (model["expression"][names.index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    np.testing.assert_allclose(left[model["mirror"]] * FLIP, right, atol=1e-4)


@pytest.mark.slow
def test_the_file_is_what_the_generator_makes(model: dict[str, np.ndarray]) -> None:
    made = generate()
    assert made.keys() == model.keys()
    for name, array in made.items():
        if array.dtype.kind in "iU":
            np.testing.assert_array_equal(array, model[name], err_msg=name)
        else:
            np.testing.assert_allclose(array, model[name], atol=2e-3, err_msg=name)


def test_loads_as_a_face_model() -> None:
    model = load_model("builtin")
    assert model.n_identity >= 60
    assert model.n_expression >= 51
    assert {"face", "jaw_contour", "rigid"} <= set(model.topology.regions)


def _edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    return np.unique(pairs, axis=0, return_counts=True)
