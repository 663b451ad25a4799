from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy import observe, toy_model, toy_scene

from facefit.fitting.recipe import fit
from facefit.fitting.stages import FAST, STANDARD, Stage
from facefit.models.scene import BLOCKS, Scene


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


def test_the_standard_begins_with_the_fast_in_fewer_steps() -> None:
    for fast, standard in zip(FAST, STANDARD, strict=False):
        assert standard.solver.steps <= fast.solver.steps
        assert replace(standard, solver=fast.solver) == fast
    assert not any(stage.photometric_px for stage in FAST)


@pytest.mark.parametrize("recipe", [FAST, STANDARD], ids=["fast", "standard"])
def test_a_smile_is_wide_and_says_nothing_of_who_smiles(recipe: tuple[Stage, ...]) -> None:
    """The stages of expression follow the landmarks' expression further and leave identity, albedo and light alone."""
    model, truth = toy_model(), toy_scene(1)
    smiling = replace(truth, expression=2 * truth.expression)
    photo = observe(smiling)
    grey = replace(photo, image=np.full_like(photo.image, 128))
    settled = tuple(stage for stage in recipe if "expression" not in stage.name)
    before, after = (fit(grey, model, stages=stages).scene for stages in (settled, recipe))
    wanted = smiling.expression

    def missed(scene: Scene) -> float:
        return float((scene.expression - wanted).norm())

    assert missed(after) < 0.8 * missed(before)
    if recipe is FAST:
        assert bool((after.identity == before.identity).all())
