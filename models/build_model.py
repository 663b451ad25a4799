"""A morphable model of one's own from registered meshes: Procrustes alignment, then principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from facefit.errors import ModelFileError
from facefit.models.albedo_prior import with_albedo_prior
from facefit.models.face_model import LicenceClass, LinearFaceModel, ModelSource, Topology

ALIGNMENTS = 10
# Alignment has settled when the mean moves by less than this, root mean square.
SETTLED_MM = 1e-3


def build(
    meshes: Sequence[Float[np.ndarray, "vertices 3"]],
    topology: Topology,
    *,
    colours: Sequence[Float[np.ndarray, "vertices 3"]] = (),
    expressions: LinearFaceModel | None = None,
    variance: float = 0.98,
    name: str = "own",
    licence: str = "unknown",
    licence_class: LicenceClass = "academic",
) -> LinearFaceModel:
    """A model whose identity modes are the principal components of these people, N(0, 1), in mm.

    `meshes` are neutral faces with the same vertices in millimetres; `topology` is theirs, for example that
    of the model they were registered with. They are aligned without scaling, because size is part of a
    person. `colours` are linear RGB per vertex; without them the albedo prior is used. Expressions are taken
    over from another model of the same topology. As many modes are kept as explain `variance`.
    """
    people = _stack(meshes, "meshes")
    if len(people) < 2:
        raise ModelFileError(f"{name}: a model needs at least 2 meshes, {len(people)} given")
    if not 0.0 < variance <= 1.0:
        raise ValueError(f"variance {variance}: give the share to explain, above 0 and at most 1")
    aligned = aligned_rigidly(people)
    mean, identity = principal_modes(aligned, variance)
    vertices = len(mean)
    if expressions is not None and expressions.n_vertices != vertices:
        raise ModelFileError(
            f"{name}: the meshes have {vertices} vertices, the expressions of {expressions.name} "
            f"{expressions.n_vertices}"
        )
    model = LinearFaceModel(
        source=ModelSource(name, licence, licence_class),
        topology=topology,
        mean=_tensor(mean),
        identity_basis=_tensor(identity),
        expression_basis=torch.zeros(0, vertices, 3) if expressions is None else expressions.expression_basis,
        albedo_mean=torch.full((vertices, 3), 0.5),
        albedo_basis=torch.zeros(0, vertices, 3),
        expression_names=() if expressions is None else expressions.expression_names,
        expression_unit=torch.zeros(0) if expressions is None else expressions.expression_unit,
    )
    if not len(colours):
        return with_albedo_prior(model)
    painted = _stack(colours, "colours")
    if painted.shape[1] != vertices:
        raise ModelFileError(f"{name}: {painted.shape[1]} colours per face, {vertices} vertices")
    albedo_mean, albedo = principal_modes(painted, variance)
    from dataclasses import replace

    return replace(model, albedo_mean=_tensor(albedo_mean), albedo_basis=_tensor(albedo))


def aligned_rigidly(
    people: Float[np.ndarray, "people vertices 3"],
) -> Float[np.ndarray, "people vertices 3"]:
    """Generalised Procrustes analysis without scale (Gower 1975): all turned and shifted onto their mean.

    The frame is that of the first mesh, which must lie in the model frame (y up, z out of the nose).
    """
    anchor = people[0]
    aligned = np.stack([rigidly_onto(mesh, anchor) for mesh in people])
    mean = aligned.mean(axis=0)
    for _ in range(ALIGNMENTS):
        aligned = np.stack([rigidly_onto(mesh, mean) for mesh in aligned])
        # Without this the frame would drift: the mean is held on the first mesh.
        new_mean = rigidly_onto(aligned.mean(axis=0), anchor)
        moved = float(np.sqrt(((new_mean - mean) ** 2).sum(axis=1).mean()))
        mean = new_mean
        if moved < SETTLED_MM:
            break
    return np.stack([rigidly_onto(mesh, mean) for mesh in aligned])


def rigidly_onto(
    mesh: Float[np.ndarray, "vertices 3"], target: Float[np.ndarray, "vertices 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """The mesh turned and shifted onto the target in the least-squares sense (Kabsch 1976)."""
    centre, goal = mesh.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((target - goal).T @ (mesh - centre))
    turn = u * [1.0, 1.0, np.sign(np.linalg.det(u @ vt))] @ vt
    return np.asarray((mesh - centre) @ turn.T + goal)


def principal_modes(
    samples: Float[np.ndarray, "people vertices 3"], variance: float
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """The mean and the principal components times their standard deviations."""
    from sklearn.decomposition import PCA

    # Fewer people than coordinates: the full decomposition of the small side is exact and quick.
    pca = PCA(svd_solver="full").fit(samples.reshape(len(samples), -1))
    explained = np.cumsum(pca.explained_variance_ratio_)
    kept = min(int(np.searchsorted(explained, variance - 1e-9)) + 1, len(samples) - 1)
    modes = pca.components_[:kept] * np.sqrt(pca.explained_variance_[:kept])[:, None]
    return pca.mean_.reshape(-1, 3), modes.reshape(kept, -1, 3)


def _stack(arrays: Sequence[Float[np.ndarray, "vertices 3"]], what: str) -> Float[np.ndarray, "n vertices 3"]:
    shapes = {np.shape(array) for array in arrays}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[1] != 3:
        raise ModelFileError(
            f"the {what} must all have the same shape (vertices, 3), found {sorted(shapes) or shape}; "
            "register them to one topology first"
        )
    stacked = np.asarray(arrays, np.float64)
    if not np.isfinite(stacked).all():
        raise ModelFileError(f"the {what} hold NaN or infinite numbers")
    return stacked


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
