"""Identity modes: sampled anthropometry plus smooth individual variation, reduced by principal components.

A person is drawn as sex, age, ancestry mix, size and weight, then some forty dimensions around the group's
mean, then free-form smooth variation of several wavelengths. Each dimension acts on the mean head as a
displacement field (per millimetre of the dimension). The whole is linear in the drawn numbers, so that
principal components of the drawn heads are exact in the space of the fields.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from facefit.models.builtin.fields import Field, dimension_fields, free_form_fields
from facefit.models.builtin.halfmesh import WholeMesh
from facefit.models.builtin.parts import EYE_CENTRE, EYE_RADIUS
from facefit.models.builtin.plane import Array, Names
from facefit.models.builtin.population import draw_people

SAMPLES = 20_000


@dataclass(frozen=True)
class IdentityModes:
    """Modes over the half mesh, in standard deviations, by falling variance; odd ones change sign across the
    midline.
    """

    modes: Array
    is_odd: NDArray[np.bool_]
    share: float
    """Part of the face's drawn variance that the modes hold."""


def identity_modes(mesh: WholeMesh, count: int, seed: int = 11) -> IdentityModes:
    half = mesh.points[: mesh.half_count]
    parts = mesh.parts[: mesh.half_count]
    weight = np.sqrt(importance(half, parts) * vertex_areas(mesh)[: mesh.half_count])
    random = np.random.default_rng(seed)
    named = dimension_fields(half, parts)
    drawn = draw_people(SAMPLES, random)
    even = _columns([f for f in named if not f.odd], drawn, half, parts)
    odd = _columns([f for f in named if f.odd], drawn, half, parts)
    even_free, odd_free = free_form_fields(half, parts)
    found: list[tuple[float, Array, bool]] = []
    total = 0.0
    for (fields, scores), free, is_odd in ((even, even_free, False), (odd, odd_free, True)):
        fields = np.concatenate([fields, free])
        fields = remove_rigid(fields, half, weight, is_odd)
        fields = follow_eyeball(fields, half, parts)
        scores = np.concatenate([scores, random.standard_normal((len(scores), len(free)))], axis=1)
        flat = (fields * weight[:, None]).reshape(len(fields), -1)
        coordinates, back = compact(flat)
        pca = PCA(svd_solver="covariance_eigh").fit(scores @ coordinates)
        kept = min(count, len(pca.components_))
        deviation = np.sqrt(np.maximum(pca.explained_variance_[:kept], 0.0))
        modes = np.tensordot(deviation[:, None] * (pca.components_[:kept] @ back), fields, axes=1)
        found += [(float(v), m, is_odd) for v, m in zip(pca.explained_variance_, modes, strict=False)]
        total += float(pca.explained_variance_.sum())
    found.sort(key=lambda item: -item[0])
    found = found[:count]
    modes = np.stack([m for _, m, _ in found])
    # A mode's sign is free: its largest displacement is made positive, so that every machine agrees.
    peak = np.abs(modes.reshape(len(modes), -1)).argmax(axis=1)
    modes *= np.sign(modes.reshape(len(modes), -1)[np.arange(len(modes)), peak])[:, None, None]
    return IdentityModes(modes, np.array([o for _, _, o in found]), sum(v for v, _, _ in found) / total)


def compact(flat: Array) -> tuple[Array, Array]:
    """Rows of `flat` in few orthonormal coordinates: (coordinates, back), flat = coordinates @ basis, basis =
    back @ flat.

    From the small Gram matrix of the rows, not from the tall matrix itself: seconds instead of minutes.
    """
    size, turn = np.linalg.eigh(flat @ flat.T)
    kept = size > 1e-10 * size[-1]
    scale = np.sqrt(size[kept])
    return turn[:, kept] * scale, (turn[:, kept] / scale).T


def _columns(fields: list[Field], drawn: dict[str, Array], half: Array, parts: Names) -> tuple[Array, Array]:
    scores = np.stack([drawn[f.name] - drawn[f.name].mean() for f in fields], axis=1)
    return np.stack([f.displacement for f in fields]), scores


def importance(points: Array, parts: Names) -> Array:
    """Weight of a vertex in the principal components: the face counts fully, hair cap, neck and hidden parts
    little.
    """
    front = 1.0 / (1.0 + np.exp(-(points[:, 2] - 20.0) / 10.0))
    low = 1.0 / (1.0 + np.exp(-(points[:, 1] + 122.0) / 6.0))
    high = 1.0 / (1.0 + np.exp((points[:, 1] - 85.0) / 8.0))
    weight = 0.06 + 0.94 * front * low * high
    weight[parts == "ear"] = 0.12
    weight[
        np.isin(parts, ["mouth", "tongue", "upper_teeth", "lower_teeth", "nostril", "lid_lining", "eyeball"])
    ] = 0.03
    return np.asarray(weight)


def vertex_areas(mesh: WholeMesh) -> Array:
    corner = mesh.points[mesh.triangles]
    area = 0.5 * np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    total = np.zeros(len(mesh.points))
    for k in range(3):
        np.add.at(total, mesh.triangles[:, k], area / 3.0)
    return total


def remove_rigid(fields: Array, points: Array, weight: Array, odd: bool) -> Array:
    """Take out the rigid motion of the face that a field holds: pose is the camera's, not the person's."""
    zero, one = np.zeros(len(points)), np.ones(len(points))
    x, y, z = points.T
    columns = (
        [(one, zero, zero), (zero, z, -y), (-y, x, zero), (z, zero, -x)]
        if odd
        else [(zero, one, zero), (zero, zero, one), (zero, -z, y)]
    )
    motions = np.stack([np.stack(c, axis=1) for c in columns])
    if odd:
        motions = motions[[0, 2, 3]]
    flat = (motions * weight[:, None]).reshape(len(motions), -1)
    values = (fields * weight[:, None]).reshape(len(fields), -1)
    amount = np.linalg.lstsq(flat.T, values.T, rcond=None)[0].T
    return np.asarray(fields - np.tensordot(amount, motions, axes=1))


def follow_eyeball(fields: Array, points: Array, parts: Names) -> Array:
    """Eyeballs move as rigid spheres, and lids keep their distance to them (to first order)."""
    ray = points - EYE_CENTRE
    distance = np.linalg.norm(ray, axis=1)
    ray = ray / distance[:, None]
    eyeball = parts == "eyeball"
    near = np.exp(-0.5 * (np.maximum(distance - EYE_RADIUS - 1.5, 0.0) / 2.2) ** 2)
    near[~np.isin(parts, ["skin", "lid_lining"])] = 0.0
    near[parts == "lid_lining"] = 1.0
    moved = fields.copy()
    centre_motion = fields[:, eyeball].mean(axis=1)
    close = np.flatnonzero(near > 1e-3)
    relative = fields[:, close] - centre_motion[:, None]
    radial = (relative * ray[close]).sum(axis=2)
    moved[:, close] -= (near[close] * radial)[..., None] * ray[close]
    moved[:, eyeball] = centre_motion[:, None]
    return moved
