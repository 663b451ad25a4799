"""The Liverpool-York Head Model, MATLAB structs `shp`, `tex` and `tri`: a whole head with colour, no
expressions.

Bases are orthonormal with variances beside them; triangles count from 1 and are wound inwards; colour is sRGB
in 0-1. No list of landmarks is published: run `facefit models annotate`.

Source: H. Dai et al., "Statistical Modeling of Craniofacial Shape and Texture", IJCV 2019.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from facefit.errors import ModelFileError
from facefit.models.assemble import Parts, assemble, linearised_albedo, modes
from facefit.models.cache import sha256_of
from facefit.models.face_model import LinearFaceModel, ModelSource
from facefit.models.mat5 import Value, indices, numbers, read_mat

VARIABLES = frozenset(("shp", "tex", "tri"))


def looks_like(variables: frozenset[str]) -> bool:
    return {"shp", "tri"} <= variables


def load(path: Path) -> LinearFaceModel:
    variables = read_mat(path, VARIABLES)
    mean, identity = _pca(path, variables, "shp")
    triangles = indices(path, _fields(path, variables, "tri"), "faces", (None, 3))[:, [0, 2, 1]]
    albedo_mean = albedo = None
    if variables.get("tex") is not None:
        colour, colour_modes = _pca(path, variables, "tex")
        if colour.shape != mean.shape:
            raise ModelFileError(f"{path}: its colour has {len(colour)} vertices, its shape {len(mean)}")
        albedo_mean, albedo = linearised_albedo(colour, colour_modes)
    return assemble(
        path,
        ModelSource(
            "lyhm",
            "Universities of York and Liverpool, academic use only, by request",
            "academic",
            "Dai et al., Statistical Modeling of Craniofacial Shape and Texture, IJCV 2019",
            sha256_of(path),
        ),
        Parts(
            mean=mean,
            triangles=triangles,
            identity=identity,
            albedo_mean=albedo_mean,
            albedo=albedo,
        ),
    )


def _pca(
    path: Path, variables: dict[str, Value], name: str
) -> tuple[Float[np.ndarray, "vertices 3"], Float[np.ndarray, "modes vertices 3"]]:
    fields = _fields(path, variables, name)
    mean = numbers(path, fields, "mu", (1, None)).reshape(-1).astype(np.float64)
    basis = numbers(path, fields, "eigVec", (len(mean), None))
    variance = numbers(path, fields, "eigVal", (None, None)).reshape(-1)
    if len(mean) % 3 or not len(mean) or len(variance) != basis.shape[1] or not (variance >= 0).all():
        raise ModelFileError(
            f"{path}: '{name}' has a mean of {len(mean)}, {basis.shape[1]} modes "
            f"and {len(variance)} variances"
        )
    return mean.reshape(-1, 3), modes(basis, np.sqrt(variance))


def _fields(path: Path, variables: dict[str, Value], name: str) -> dict[str, Value]:
    fields = variables.get(name)
    if not isinstance(fields, dict):
        raise ModelFileError(f"{path}: the struct {name!r} is missing")
    return fields
