"""A model cut down to some of its vertices: the fit of a face needs no teeth, the export may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int

from facefit.models.face_model import Landmarks, LinearFaceModel, Topology


def restrict(model: LinearFaceModel, vertices: Int[np.ndarray, "kept"]) -> LinearFaceModel:
    """The same model on the given vertices; triangles that lose a corner go, with their landmarks."""
    keep = torch.from_numpy(np.asarray(vertices, np.int64)).to(model.mean.device)
    return replace(
        model,
        topology=restrict_topology(model.topology, vertices, model.n_vertices),
        mean=model.mean[keep],
        albedo_mean=model.albedo_mean[keep],
        identity_basis=model.identity_basis[:, keep].contiguous(),
        expression_basis=model.expression_basis[:, keep].contiguous(),
        albedo_basis=model.albedo_basis[:, keep].contiguous(),
    )


def restrict_topology(topology: Topology, vertices: Int[np.ndarray, "kept"], n_vertices: int) -> Topology:
    new_index = np.full(n_vertices, -1, np.int64)
    new_index[vertices] = np.arange(len(vertices))
    renumbered = new_index[topology.triangles]
    kept = (renumbered >= 0).all(axis=1)
    new_triangle = np.where(kept, np.cumsum(kept) - 1, -1)
    uv, uv_triangles = topology.uv, topology.uv_triangles
    if uv is not None and uv_triangles is not None:
        used, flat = np.unique(uv_triangles[kept], return_inverse=True)
        uv, uv_triangles = uv[used], flat.reshape(-1, 3)
    mirror = None
    if topology.mirror is not None:
        partner = new_index[topology.mirror[vertices]]
        mirror = np.where(partner >= 0, partner, np.arange(len(vertices)))
    regions = {name: new_index[members] for name, members in topology.regions.items()}
    regions = {name: members[members >= 0] for name, members in regions.items()}
    marks = topology.landmarks
    there = kept[marks.triangles]
    return Topology(
        triangles=renumbered[kept],
        landmarks=Landmarks(
            marks.numbers[there], new_triangle[marks.triangles[there]], marks.barycentric[there]
        ),
        uv=uv,
        uv_triangles=uv_triangles,
        mirror=mirror,
        regions={name: members for name, members in regions.items() if len(members)},
    )
