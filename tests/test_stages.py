from __future__ import annotations

import pytest

from facefit.fitting.stages import FAST, STANDARD, Stage
from facefit.models.scene import BLOCKS


@pytest.mark.parametrize("recipe", [FAST, STANDARD], ids=["fast", "standard"])
def test_a_recipe_frees_known_blocks_under_names_of_their_own(recipe: tuple[Stage, ...]) -> None:
    assert all(stage.free and set(stage.free) <= set(BLOCKS) for stage in recipe)
    assert len({stage.name for stage in recipe}) == len(recipe)


@pytest.mark.parametrize("recipe", [FAST, STANDARD], ids=["fast", "standard"])
def test_every_stage_has_evidence_and_may_move(recipe: tuple[Stage, ...]) -> None:
    for stage in recipe:
        assert stage.landmarks or stage.contour or stage.photometric_px
        assert (stage.photometric_px > 0) == (stage.samples > 0)
        assert stage.solver.steps > 0


@pytest.mark.parametrize("recipe", [FAST, STANDARD], ids=["fast", "standard"])
def test_colour_is_free_only_where_the_photograph_is_read(recipe: tuple[Stage, ...]) -> None:
    for stage in recipe:
        if {"albedo", "lighting"} & set(stage.free):
            assert stage.photometric_px


def test_the_photograph_is_read_from_coarse_to_fine() -> None:
    sizes = [stage.photometric_px for stage in STANDARD if stage.photometric_px]
    assert sizes == sorted(sizes) and len(set(sizes)) > 1


def test_the_standard_begins_with_the_fast() -> None:
    assert STANDARD[: len(FAST)] == FAST and not any(stage.photometric_px for stage in FAST)
