"""What a notebook calls by mistake is answered with the way out, not with a missing attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import observe, toy_model, toy_scene

import facefit as ff


@pytest.mark.parametrize(
    ("observation", "model", "stages", "way_out"),
    [
        ("photo.jpg", toy_model(), ff.FAST, "'photo.jpg' is no Observation: .*Observation.from_file"),
        (["a.jpg", "b.jpg"], toy_model(), ff.FAST, "'a.jpg' is no Observation: .*Observation.from_file"),
        (observe(toy_scene()), "builtin", ff.FAST, "'builtin' is no LinearFaceModel: .*load_model"),
        (observe(toy_scene()), toy_model(), "detailed", "is no Stage: .*facefit.DETAILED"),
    ],
)
def test_a_name_in_place_of_a_thing_is_told_how_to_get_the_thing(
    observation: Any, model: Any, stages: Any, way_out: str
) -> None:
    with pytest.raises(TypeError, match=way_out):
        ff.fit(observation, model, stages=stages)


@pytest.mark.parametrize("write", [ff.export, ff.report])
def test_a_file_is_about_one_photograph(write: Any, tmp_path: Path) -> None:
    person = ff.fit([observe(toy_scene(seed)) for seed in (1, 2)], toy_model(), stages=ff.FAST)
    with pytest.raises(TypeError, match="one of its `results`"):
        write(person, tmp_path / "person.html")
    assert list(tmp_path.iterdir()) == []


def test_the_recipes_are_public_and_named_by_their_stages_in_the_help_of_fit() -> None:
    assert len(ff.FAST) < len(ff.STANDARD) < len(ff.DETAILED)
    assert repr(ff.FAST) == "(<Stage pose>, <Stage landmarks>, <Stage expression>)"
