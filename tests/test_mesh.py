"""Laws of plain mesh functions."""

from __future__ import annotations

import numpy as np
import torch
from export_toy import RADII_MM, toy_model

from facefit.mesh import split_seams, unique_edges, vertex_normals


def test_normals_of_an_ellipsoid_point_along_its_gradient() -> None:
    model = toy_model(rows=60, columns=100)
    normals = vertex_normals(model.mean, model.triangles)
    gradient = model.mean.numpy() / RADII_MM**2
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    inside = np.setdiff1d(
        np.arange(100, 5900), np.concatenate([np.arange(0, 6000, 100), np.arange(99, 6000, 100)])
    )
    cosine = (normals.numpy() * gradient).sum(1)[inside]
    assert cosine.min() > 0.99


def test_a_vertex_of_no_triangle_has_no_normal() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(normals, torch.tensor([[0.0, 0, 1]] * 3 + [[0.0, 0, 0]]))


def test_splitting_at_seams_keeps_every_corner() -> None:
    rng = np.random.default_rng(0)
    triangles, uv_triangles = rng.integers(0, 30, (50, 3)), rng.integers(0, 40, (50, 3))
    split = split_seams(triangles, uv_triangles)
    np.testing.assert_array_equal(split.vertex[split.triangles], triangles)
    np.testing.assert_array_equal(split.uv[split.triangles], uv_triangles)
    pairs = set(zip(split.vertex.tolist(), split.uv.tolist(), strict=True))
    assert len(pairs) == len(split.vertex)


def test_a_closed_surface_has_three_edges_for_every_two_triangles() -> None:
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    edges = unique_edges(tetrahedron)
    assert len(edges) == 6 and (edges[:, 0] < edges[:, 1]).all()
