"""Albedo modes: drawn faces reduced by principal components, and smooth differences between the sides.

Linear RGB. Modes are straight and coefficients independent, so what is drawn keeps to straight lines where
leaving them would show (see `facefit.models.builtin.paint`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.identity import compact, importance, vertex_areas
from facefit.models.builtin.masks import Masks, masks
from facefit.models.builtin.paint import eye_modes, paint
from facefit.models.builtin.plane import Array

SAMPLES = 1000
ODD_MODES = 6


@dataclass(frozen=True)
class AlbedoModes:
    """Over the half mesh; `is_odd` modes change sign across the midline."""

    mean: Array
    modes: Array
    is_odd: NDArray[np.bool_]


def albedo_modes(mesh: WholeMesh, loops: dict[str, list[Ints]], count: int, seed: int = 23) -> AlbedoModes:
    random = np.random.default_rng(seed)
    mask = masks(mesh, loops)
    half = mesh.points[: mesh.half_count]
    parts = mesh.parts[: mesh.half_count]
    attention = importance(half, parts)
    # Eyes and mouth have colours of their own: nothing that is learnt from the skin may tint them.
    apart = np.isin(parts, ["eyeball", "mouth", "tongue", "upper_teeth", "lower_teeth"])
    attention[apart] = 0.0
    attention *= 1.0 - 0.95 * mask.hair
    attention += 1.0 * mask.brows + 0.5 * mask.lips + 0.5 * mask.folds
    weight = np.sqrt(attention * vertex_areas(mesh)[: mesh.half_count])
    drawn = np.stack([paint(mesh, mask, random) for _ in range(SAMPLES)]).astype(np.float32)
    mean = drawn.mean(axis=0)
    flat = ((drawn - mean) * weight[:, None]).reshape(SAMPLES, -1)
    coordinates, _ = compact(flat.astype(np.float64))
    eyes = eye_modes(mesh)
    pca = PCA(n_components=count - ODD_MODES - len(eyes), svd_solver="covariance_eigh")
    scores = pca.fit_transform(coordinates) / np.sqrt(pca.explained_variance_)
    modes = np.tensordot(scores.T.astype(np.float32), drawn - mean, axes=1) / (SAMPLES - 1)
    modes[:, apart] = 0.0
    modes = np.concatenate([modes, eyes, _odd_modes(mean, mask, weight)])
    peak = np.abs(modes.reshape(len(modes), -1)).argmax(axis=1)
    modes *= np.sign(modes.reshape(len(modes), -1)[np.arange(len(modes)), peak])[:, None, None]
    return AlbedoModes(mean, modes, np.arange(len(modes)) >= count - ODD_MODES)


def _odd_modes(mean: Array, mask: Masks, weight: Array) -> Array:
    """Smooth differences of brightness and redness between the sides: 3 % of the local albedo."""
    fields = []
    for colour, amount in ((np.array([1.0, 1.0, 1.0]), 0.024), (np.array([0.4, -0.9, -0.9]), 0.015)):
        for k in range(mask.odd_blotches.shape[1]):
            fields.append(amount * mask.odd_blotches[:, k, None] * mean * colour)
    fields_array = np.stack(fields)
    coordinates, back = compact((fields_array * weight[:, None]).reshape(len(fields), -1))
    # Eigenvalues rise: the last ones are the strongest; a row of `back` times its eigenvalue's root is one
    # deviation.
    size = np.sqrt((coordinates**2).sum(axis=0))[-ODD_MODES:][::-1]
    return np.tensordot(size[:, None] * back[-ODD_MODES:][::-1], fields_array, axes=1)
