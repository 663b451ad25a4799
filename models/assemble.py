"""From the arrays of any format to a `LinearFaceModel`: what is missing is filled in, what is wrong is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.mesh import vertex_normals
from facefit.models.albedo_prior import with_albedo_prior
from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource, Topology
from facefit.models.landmark_map import NO_LANDMARKS, landmarks_beside
from facefit.models.landmark_transfer import completed
from facefit.models.regions import plan, standard_regions
from facefit.models.symmetry import mirror_pairs

# A mean face whose colour varies by less than this, linear RGB, has no brows and lips.
PLAIN = 0.02


@dataclass(frozen=True)
class Parts:
    """What a loader found, in our conventions: millimetres, 0-based, counter-clockwise, bases times sigma.

    `albedo_mean` None: the model has no colour and gets the prior. `uv` None: no texture coordinates.
    """

    mean: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]
    identity: Float[np.ndarray, "identity vertices 3"]
    expression: Float[np.ndarray, "expression vertices 3"] | None = None
    expression_names: tuple[str, ...] = ()
    expression_unit: Float[np.ndarray, "expression"] | None = None
    albedo_mean: Float[np.ndarray, "vertices 3"] | None = None
    albedo: Float[np.ndarray, "albedo vertices 3"] | None = None
    landmarks: Landmarks = NO_LANDMARKS
    uv: Float[np.ndarray, "uvs 2"] | None = None
    uv_triangles: Int[np.ndarray, "triangles 3"] | None = None
    regions: dict[str, Int[np.ndarray, "n"]] = field(default_factory=dict)


def assemble(path: Path, source: ModelSource, parts: Parts) -> LinearFaceModel:
    """The model, with all 68 landmarks where some are known, regions, symmetry and an albedo."""
    vertices = len(parts.mean)
    _check_finite(path, parts)
    _check_triangles(path, parts.triangles, vertices, "triangles")
    mean = np.asarray(parts.mean, np.float64)
    expression = np.zeros((0, vertices, 3)) if parts.expression is None else parts.expression
    unit = np.ones(len(expression)) if parts.expression_unit is None else parts.expression_unit
    names = parts.expression_names or tuple(f"expression{k:03d}" for k in range(len(expression)))
    own = landmarks_beside(path, parts.triangles, vertices)
    landmarks = completed(own if len(own.numbers) else parts.landmarks, mean, parts.triangles)
    view = plan(mean, parts.triangles, landmarks)
    regions = {} if view is None else standard_regions(view, expression, parts.regions.get("face"))
    _check_outward(path, mean, parts.triangles)
    coloured = parts.albedo_mean is not None
    model = LinearFaceModel(
        source=source,
        topology=Topology(
            triangles=parts.triangles.astype(np.int64),
            landmarks=landmarks,
            uv=None if parts.uv is None else parts.uv.astype(np.float32),
            uv_triangles=parts.uv_triangles,
            mirror=mirror_pairs(mean),
            regions=regions | parts.regions,
        ),
        mean=_tensor(mean),
        identity_basis=_tensor(parts.identity),
        expression_basis=_tensor(expression),
        albedo_mean=_tensor(parts.albedo_mean if coloured else np.full_like(mean, 0.5)),
        albedo_basis=_tensor(parts.albedo if coloured else np.zeros((0, vertices, 3))),
        expression_names=names,
        expression_unit=_tensor(unit),
    )
    return model if coloured else with_albedo_prior(model)


def with_landmarks(model: LinearFaceModel, landmarks: Landmarks) -> LinearFaceModel:
    """The model with other landmarks, and with what follows from all 68 where it lacked it: regions and paint."""
    topology = replace(model.topology, landmarks=landmarks)
    mean = model.mean.double().numpy()
    view = plan(mean, topology.triangles, landmarks)
    if view is not None:
        found = standard_regions(view, model.expression_basis.double().numpy(), topology.regions.get("face"))
        topology = replace(topology, regions=found | dict(topology.regions))
    marked = replace(model, topology=topology)
    plain = float(model.albedo_mean.std(dim=0).max()) < PLAIN
    return with_albedo_prior(marked) if plain and view is not None else marked


def modes(
    basis: Float[np.ndarray, "coordinates modes"], sigma: Float[np.ndarray, "modes"] | None = None
) -> Float[np.ndarray, "modes vertices 3"]:
    """A basis of one column per mode, as every format stores it, to (modes, vertices, 3) times sigma."""
    scaled = np.asarray(basis, np.float32) if sigma is None else basis * np.asarray(sigma, np.float32)
    return np.ascontiguousarray(scaled.T).reshape(scaled.shape[1], -1, 3)


def linear_from_srgb(colour: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """IEC 61966-2-1, for values in 0-1; continued as an odd function below 0."""
    size = np.abs(colour)
    curve = np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.sign(colour) * curve)


def linearised_albedo(
    mean_srgb: Float[np.ndarray, "vertices 3"], basis_srgb: Float[np.ndarray, "modes vertices 3"]
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """A model of gamma-encoded colour as a model of linear RGB: the mean exactly, the modes to first order.

    A model that is linear in sRGB cannot be linear in linear RGB too. Second order, the error of one standard
    deviation (0.05 to 0.1 in sRGB for BFM's first modes) is about 0.01.
    """
    size = np.clip(mean_srgb, 0.0, 1.0)
    slope = np.where(size <= 0.04045, 1 / 12.92, 2.4 / 1.055 * ((size + 0.055) / 1.055) ** 1.4)
    return linear_from_srgb(mean_srgb), basis_srgb * slope.astype(basis_srgb.dtype)


def _tensor(array: np.ndarray | None) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _check_finite(path: Path, parts: Parts) -> None:
    for name in ("mean", "identity", "expression", "albedo_mean", "albedo", "uv"):
        array = getattr(parts, name)
        # Beyond 1e6 (a kilometre, in mm) lies no face, and float32 arithmetic on it would overflow later.
        if array is not None and array.size and not float(np.abs(array).max()) < 1e6:
            raise ModelFileError(f"{path}: its {name} holds NaN, infinite or absurdly large numbers")


def _check_triangles(path: Path, triangles: Int[np.ndarray, "triangles 3"], vertices: int, what: str) -> None:
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ModelFileError(f"{path}: its {what} have shape {triangles.shape}, expected (n, 3)")
    if triangles.min() < 0 or triangles.max() >= vertices:
        raise ModelFileError(
            f"{path}: its {what} name vertices {triangles.min()} to {triangles.max()}, there are 0 to "
            f"{vertices - 1}; is the file of another index base?"
        )


def _check_outward(
    path: Path, mean: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> None:
    if not faces_outward(mean, triangles):
        raise ModelFileError(
            f"{path}: the triangles at the front of the face look inwards; the winding or the axes of this "
            "file are not those of its format"
        )


def wound_outwards(
    mean: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]
) -> Int[np.ndarray, "triangles 3"]:
    """The triangles, all turned round if they look inwards. For files whose winding is not documented."""
    in_range = triangles.size and triangles.min() >= 0 and triangles.max() < len(mean)
    return triangles[:, [0, 2, 1]] if in_range and not faces_outward(mean, triangles) else triangles


def faces_outward(mean: Float[np.ndarray, "vertices 3"], triangles: Int[np.ndarray, "triangles 3"]) -> bool:
    """Does the most protruding part of the face, the nose, look forward?"""
    normals = vertex_normals(torch.from_numpy(mean), torch.from_numpy(triangles.astype(np.int64))).numpy()
    used = np.unique(triangles)
    foremost = used[np.argsort(mean[used, 2])[-max(1, len(used) // 100) :]]
    return bool(normals[foremost, 2].sum() >= 0)
