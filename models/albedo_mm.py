"""AlbedoMM: diffuse and specular albedo, linear RGB in 0-1, for the topologies of BFM 2017 (`.h5`).

The file holds no shape; a Basel Face Model of the same number of vertices must lie beside it.

    /diffuseAlbedo/model/{mean, pcaBasis, pcaVariance}, /specularAlbedo/model/{...}: orthonormal bases,
    variances

Source: W. Smith et al., "A Morphable Face Albedo Model", CVPR 2020; academic research only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.errors import ModelFileError
from facefit.models import bfm17, hdf5
from facefit.models.assemble import assemble
from facefit.models.cache import sha256_of
from facefit.models.face_model import LinearFaceModel, ModelSource


def looks_like(path: Path) -> bool:
    with hdf5.opened(path) as file:
        return hdf5.has(path, file, "diffuseAlbedo/model/mean")


def load(path: Path) -> LinearFaceModel:
    """Shape and expressions of the Basel model beside the file, diffuse albedo of the file."""
    mean, basis = diffuse(path)
    for beside in sorted(path.parent.glob("*.h5")):
        if beside != path and bfm17.looks_like(beside):
            parts = bfm17.read_parts(beside)
            if len(parts.mean) == len(mean):
                return assemble(path, _source(path), replace(parts, albedo_mean=mean, albedo=basis))
    raise ModelFileError(
        f"{path}: an albedo for {len(mean)} vertices without a shape; put the Basel Face Model of the same "
        "topology (model2017-1_bfm_nomouth.h5 or model2017-1_face12_nomouth.h5) into the same folder"
    )


def diffuse(path: Path) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """Mean and modes of the diffuse albedo, linear RGB."""
    with hdf5.opened(path) as file:
        return bfm17.read_pca(path, file, "diffuseAlbedo")


def specular(path: Path) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    """Mean and modes of the specular albedo; the fit is Lambertian and leaves it to renderers that have use
    for it.
    """
    with hdf5.opened(path) as file:
        return bfm17.read_pca(path, file, "specularAlbedo")


def _source(path: Path) -> ModelSource:
    return ModelSource(
        "albedomm",
        "University of York, academic research only; shape: University of Basel, academic use only",
        "academic",
        "Smith et al., A Morphable Face Albedo Model, CVPR 2020; Gerig et al., FG 2018",
        sha256_of(path),
    )
