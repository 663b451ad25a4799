"""Detail as maps and as a dense mesh: what is written decodes to what was solved."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from export_toy import toy_result
from PIL import Image
from toy import observe, toy_model, toy_scene

from facefit.displacement import detail_entry, detail_maps, detailed_surface, refined_layout
from facefit.export import encode_png, write_results
from facefit.fitting.detail.refinement import face_refinement
from facefit.fitting.detail.stage import Detail
from facefit.fitting.result import FitResult
from facefit.fitting.surface_samples import face_triangles
from facefit.glb import face_glb
from facefit.texture import bake_texture
from facefit.uv_layout import texture_layout

SIZE = 192


@lru_cache
def result(slope: float = 0.0) -> FitResult:
    """A fit whose displacement rises by `slope` per mm upwards, and half whose albedo offset is on its vertices."""
    model, scene = toy_model(), toy_scene(1)
    refinement = face_refinement(model, 1)
    height = refinement.carry(scene.shape(model).numpy())[:, 1] * slope
    color = np.full((refinement.n_vertices, 3), 0.05, np.float32)
    own = torch.full((model.n_vertices, 3), 0.05)
    detail = Detail(refinement, height.astype(np.float32), color)
    return FitResult(replace(scene, albedo_offsets=own), model, observe(scene), (), detail=detail)


def layout() -> tuple[np.ndarray, np.ndarray]:
    return texture_layout(toy_model().topology, toy_model().mean.numpy())


def test_a_layout_is_cut_as_its_mesh() -> None:
    """Position and texture coordinate of a corner stay those of one point of the coarse triangle."""
    model = toy_model()
    uv, uv_triangles = layout()
    chosen = face_triangles(model.topology, model.n_vertices)
    refinement = face_refinement(model, 2)
    # With coordinates that are the positions' own first two, both refinements must place all corners alike.
    flat = model.mean.numpy()[:, :2].astype(np.float64)
    fine, triangles = refined_layout(flat, model.topology.triangles[chosen], 2)
    np.testing.assert_allclose(fine[triangles], refinement.carry(flat)[refinement.triangles], atol=1e-9)
    assert len(refined_layout(uv, uv_triangles[chosen], 2)[1]) == len(refinement.triangles)


def test_no_displacement_is_the_middle_value_and_an_upright_normal() -> None:
    maps = detail_maps(result(), *layout(), SIZE)
    assert maps is not None
    assert (maps.displacement == 32768).all()
    assert np.abs(maps.normal.astype(int) - [128, 128, 255]).max() <= 1


def test_sixteen_bits_survive_the_file_and_decode_to_millimetres() -> None:
    fit = result(0.02)
    maps, entry = detail_maps(fit, *layout(), SIZE), detail_entry(fit)
    assert maps is not None and entry is not None and fit.detail is not None
    read = np.asarray(Image.open(BytesIO(encode_png(maps.displacement)))).astype(np.float64)
    np.testing.assert_array_equal(read, maps.displacement)
    decoded = (read - 32768) / 32767 * entry["displacement"]["scale_mm"]
    uv, uv_triangles = layout()
    # At a vertex well inside the face the map holds the vertex's displacement, to the size of a texel.
    corner = toy_model().topology.triangles[face_triangles(toy_model().topology, 961)][200, 0]
    at = uv[uv_triangles[(toy_model().topology.triangles == corner).any(1)][0]]
    which = toy_model().topology.triangles[(toy_model().topology.triangles == corner).any(1)][0] == corner
    column, row = (at[which][0] * [1, -1] + [0, 1]) * SIZE
    assert decoded[int(row), int(column)] == pytest.approx(fit.detail.displacement_mm[corner], abs=0.06)


def test_a_slope_tilts_the_normal_map_against_it() -> None:
    maps = detail_maps(result(0.02), *layout(), SIZE)
    level = detail_maps(result(), *layout(), SIZE)
    assert maps is not None and level is not None
    changed = (maps.normal.astype(int) - level.normal.astype(int))[SIZE // 2, SIZE // 2]
    # v runs up the face, the surface rises upwards by 0.02: the normal leans down by as much of 127.5.
    assert changed[1] == pytest.approx(-0.02 * 127.5, abs=1.5) and abs(changed[0]) <= 1


def test_texture_offsets_are_the_sum_of_both_parts() -> None:
    fit = result()
    maps, entry = detail_maps(fit, *layout(), SIZE), detail_entry(fit)
    assert maps is not None and entry is not None
    scale = entry["texture_offset"]["scale"]
    np.testing.assert_allclose(
        (maps.texture_offset[SIZE // 2, SIZE // 2] - 128.0) / 127 * scale, 0.1, atol=2e-3
    )


def test_the_dense_mesh_without_displacement_goes_through_the_coarse_vertices() -> None:
    fit = result()
    vertices, triangles, srgb = detailed_surface(fit)
    coarse = fit.scene.shape(fit.model).numpy()
    np.testing.assert_allclose(vertices[: len(coarse)], coarse, atol=1e-4)
    assert triangles.max() < len(vertices) == len(srgb)


def test_the_glb_shows_detail_as_the_normal_map_of_its_material() -> None:
    fit = result(0.02)
    for one, images in ((fit, 2), (replace(fit, detail=None), 1)):
        content = face_glb(one, bake_texture(one, 64), {})
        document = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
        assert len(document["images"]) == len(document["textures"]) == images
        assert ("normalTexture" in document["materials"][0]) == (images == 2)


def test_without_detail_there_are_no_maps() -> None:
    bare = replace(result(), detail=None)
    assert detail_maps(bare, *layout(), SIZE) is None and detail_entry(bare) is None
    with pytest.raises(ValueError, match="DETAILED"):
        detailed_surface(bare)


def test_the_folder_of_a_run_holds_the_maps_and_names_them(tmp_path: Path) -> None:
    plain = toy_result()
    refinement = face_refinement(plain.model, 1)
    fine = refinement.n_vertices
    detail = Detail(refinement, np.full(fine, 0.1, np.float32), np.zeros((fine, 3), np.float32))
    written = dict(write_results(replace(plain, detail=detail), tmp_path, 64))
    for name in ("displacement.png", "normal.png", "texture_offset.png", "detail.ply"):
        assert name in written and (tmp_path / name).stat().st_size > 0
    described = json.loads((tmp_path / "result.json").read_text())["detail"]
    assert described["displacement"]["file"] == "displacement.png"
    assert described["displacement"]["scale_mm"] == pytest.approx(0.1)
