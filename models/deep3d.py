"""`BFM_model_front.mat` of Deep3DFaceReconstruction: the Basel Face Model of 2009 cut to the face, with
expressions.

The unit is the decimetre and every basis is already multiplied by its standard deviations; texture is sRGB in
0-255; triangles and the 68 key-points count from 1.

Source: Y. Deng et al., "Accurate 3D Face Reconstruction with Weakly-Supervised Learning", CVPR Workshops
2019.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facefit.errors import ModelFileError
from facefit.models.assemble import Parts, assemble, linearised_albedo, modes, wound_outwards
from facefit.models.cache import sha256_of
from facefit.models.face_model import LinearFaceModel, ModelSource
from facefit.models.landmark_map import landmarks_from_table
from facefit.models.mat5 import indices, numbers, read_mat

VARIABLES = frozenset(("meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "keypoints"))
MM_PER_UNIT = 100.0


def looks_like(variables: frozenset[str]) -> bool:
    return {"meanshape", "idBase", "exBase"} <= variables


def load(path: Path) -> LinearFaceModel:
    variables = read_mat(path, VARIABLES)
    mean = numbers(path, variables, "meanshape", (1, None)).reshape(-1).astype(np.float64)
    size = len(mean)
    if size % 3 or not size:
        raise ModelFileError(f"{path}: 'meanshape' has {size} numbers, expected three per vertex")
    texture = numbers(path, variables, "meantex", (1, size)).reshape(-1, 3) / 255.0
    bases = {
        name: modes(numbers(path, variables, name, (size, None))) for name in ("idBase", "exBase", "texBase")
    }
    albedo_mean, albedo = linearised_albedo(texture, bases["texBase"] / np.float32(255.0))
    vertices = mean.reshape(-1, 3) * MM_PER_UNIT
    # The winding of the published file is not documented, so it is looked at.
    triangles = wound_outwards(vertices, indices(path, variables, "tri", (None, 3)))
    points = indices(path, variables, "keypoints", (1, 68))[0]
    table = {str(number): int(vertex) for number, vertex in enumerate(points)}
    return assemble(
        path,
        ModelSource(
            "deep3d",
            "University of Basel (BFM 2009), academic use only; expressions of Guo et al.",
            "academic",
            "Deng et al., Accurate 3D Face Reconstruction with Weakly-Supervised Learning, CVPRW 2019",
            sha256_of(path),
        ),
        Parts(
            mean=vertices,
            triangles=triangles,
            identity=bases["idBase"] * np.float32(MM_PER_UNIT),
            expression=bases["exBase"] * np.float32(MM_PER_UNIT),
            albedo_mean=albedo_mean,
            albedo=albedo,
            landmarks=landmarks_from_table(table, triangles, len(vertices), str(path)),
        ),
    )
