from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from toy import toy_model, toy_scene

from facefit.benchmarks.growth import in_turns, subdivided
from facefit.benchmarks.peers import filling


def test_a_subdivided_face_is_the_same_surface() -> None:
    """Old vertices first and unmoved, landmarks where they were, the same area in four times the triangles."""
    model, scene = toy_model(), toy_scene(4)
    fine = subdivided(model)
    shape, dense = scene.shape(model), scene.shape(fine)
    assert len(fine.triangles) == 4 * len(model.triangles) and fine.n_vertices > 3 * model.n_vertices
    torch.testing.assert_close(dense[: model.n_vertices], shape)
    torch.testing.assert_close(fine.landmark_points(dense), model.landmark_points(shape), atol=1e-3, rtol=0)

    def area(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
        a, b, c = vertices[triangles].unbind(1)
        return torch.linalg.cross(b - a, c - a)

    quarters = area(dense, fine.triangles).reshape(-1, 4, 3)
    # Each quarter is turned as the whole was and has a quarter of its area.
    whole = area(shape, model.triangles)[:, None]
    torch.testing.assert_close(4 * quarters, whole.expand_as(quarters), atol=1e-2, rtol=1e-3)


def test_regions_grow_with_the_mesh() -> None:
    model = toy_model()
    fine = subdivided(model)
    for name, members in model.topology.regions.items():
        grown = fine.topology.regions[name]
        assert np.isin(members, grown).all() and len(grown) >= len(members)
        assert len(np.unique(grown)) == len(grown)


def test_calls_take_turns_and_the_first_turn_is_not_counted() -> None:
    said: list[str] = []
    least = in_turns({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, 2)
    assert said == ["a", "b"] * 3
    assert set(least) == {"a", "b"} and all(0 <= ms < np.inf for ms in least.values())


def test_the_face_to_rasterise_is_as_large_as_the_picture() -> None:
    pixels, depth = filling(toy_model(), 100)
    extent = pixels.amax(0) - pixels.amin(0)
    assert abs(float(extent.max()) - 100) < 1e-2 and float(extent.min()) > 30
    assert bool((depth > 500).all())


@pytest.mark.slow
def test_memory_that_a_call_keeps_or_needed_at_its_highest_is_counted() -> None:
    """In a process of its own: what other tests' leftovers give back meanwhile would be taken off the figure."""
    program = """
import numpy as np
from facefit.benchmarks.growth import memory_added_mb
kept = []
print(memory_added_mb(lambda: kept.append(np.ones(8 * 2**20))))
print(memory_added_mb(lambda: np.ones(64 * 2**20).sum()))
print(memory_added_mb(lambda: None))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    if "None" in told:
        pytest.skip("only Linux tells what a process holds")
    grown, passing, nothing = (float(line) for line in told.split())
    assert 63 < grown < 80
    # Gone again afterwards, but the highest the process ever had.
    assert passing > 400
    assert nothing == pytest.approx(0, abs=8)
