"""The Basel Face Model of 2009, `01_MorphableModel.mat`, with the expressions of Guo et al. where they lie
beside it.

Facts that are easy to get wrong: the unit is the micrometre; `shapeEV` and `texEV` are standard deviations in
spite of their name; triangles count from 1 and are wound inwards; texture is sRGB in 0-255.

Sources: P. Paysan et al., "A 3D Face Model for Pose and Illumination Invariant Face Recognition", AVSS 2009;
expressions (`Exp_Pca.bin`, `std_exp.txt`): Y. Guo et al., "CNN-based Real-time Dense Face Reconstruction",
PAMI 2018.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from facefit.errors import ModelFileError
from facefit.models.assemble import Parts, assemble, linearised_albedo, modes
from facefit.models.byte_reader import ByteReader
from facefit.models.cache import sha256_of
from facefit.models.face_model import LinearFaceModel, ModelSource
from facefit.models.landmark_map import landmarks_from_table, packaged
from facefit.models.mat5 import indices, numbers, read_mat
from facefit.models.restrict import restrict

VARIABLES = frozenset(("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"))
MM_PER_UNIT = 1e-3
EXPRESSION_FILES = ("Exp_Pca.bin", "std_exp.txt", "BFM_exp_idx.mat")
MAX_EXPRESSION_BYTES = 1 << 28
MAX_TEXT_BYTES = 1 << 16


def looks_like(variables: frozenset[str]) -> bool:
    return {"shapeMU", "shapePC", "tl"} <= variables


def load(path: Path) -> LinearFaceModel:
    variables = read_mat(path, VARIABLES)
    mean = numbers(path, variables, "shapeMU", (None, 1)).astype(np.float64)
    size = len(mean)
    if size % 3 or not size:
        raise ModelFileError(f"{path}: 'shapeMU' has {size} numbers, expected three per vertex")
    sigma = numbers(path, variables, "shapeEV", (None, 1))[:, 0]
    basis = numbers(path, variables, "shapePC", (size, len(sigma)))
    texture_sigma = numbers(path, variables, "texEV", (None, 1))[:, 0]
    texture_basis = numbers(path, variables, "texPC", (size, len(texture_sigma)))
    texture = numbers(path, variables, "texMU", (size, 1)).reshape(-1, 3)
    albedo_mean, albedo = linearised_albedo(
        texture / 255.0, modes(texture_basis, texture_sigma) / np.float32(255.0)
    )
    triangles = indices(path, variables, "tl", (None, 3))[:, [0, 2, 1]]
    vertices = size // 3
    facts = packaged("bfm09.toml")
    marks = (
        {k: v for k, v in facts["landmarks"].items() if v < vertices} if vertices == facts["vertices"] else {}
    )
    expressions = _expressions(path, vertices)
    parts = Parts(
        mean=mean.reshape(-1, 3) * MM_PER_UNIT,
        triangles=triangles,
        identity=modes(basis, sigma) * np.float32(MM_PER_UNIT),
        albedo_mean=albedo_mean,
        albedo=albedo,
        landmarks=landmarks_from_table(marks, triangles, vertices, "bfm09.toml"),
    )
    source = ModelSource(
        "bfm09",
        "University of Basel, academic use only, by registration",
        "academic",
        "Paysan et al., A 3D Face Model for Pose and Illumination Invariant Face Recognition, AVSS 2009",
        sha256_of(path),
    )
    if expressions is None:
        return assemble(path, source, parts)
    members, basis_mm = expressions
    on_all = np.zeros((len(basis_mm), vertices, 3), np.float32)
    on_all[:, members] = basis_mm
    return restrict(assemble(path, source, replace(parts, expression=on_all)), members)


def _expressions(
    path: Path, vertices: int
) -> tuple[Int[np.ndarray, "kept"], Float[np.ndarray, "modes kept 3"]] | None:
    """Vertices that have expressions and their modes in mm; None unless all three files lie beside the model.

    The file's mean expression is left out: with it, the neutral face would not be neutral. The published
    reconstruction code leaves it out too.
    """
    binary, deviations, index = (path.with_name(name) for name in EXPRESSION_FILES)
    if not (binary.is_file() and deviations.is_file() and index.is_file()):
        return None
    members = indices(index, read_mat(index, frozenset(("trimIndex",))), "trimIndex", (None, 1))[:, 0]
    if members.max() >= vertices or len(np.unique(members)) < len(members):
        raise ModelFileError(f"{index}: 'trimIndex' must name different vertices from 1 to {vertices}")
    reader = ByteReader(binary, MAX_EXPRESSION_BYTES)
    count = reader.signed(4)
    reader.array("<f4", (len(members), 3), "the mean expression")
    basis = reader.array("<f4", (count, len(members), 3), f"{count} expressions")
    reader.finish()
    sigma = _deviations(deviations, count)
    return members, basis * (sigma * MM_PER_UNIT).astype(np.float32)[:, None, None]


def _deviations(path: Path, count: int) -> Float[np.ndarray, "modes"]:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelFileError(f"{path}: a list of {count} numbers is at most {MAX_TEXT_BYTES} bytes")
        sigma = np.array(path.read_text(encoding="ascii").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a list of numbers ({error})") from error
    if len(sigma) != count or not (np.isfinite(sigma) & (sigma >= 0)).all():
        raise ModelFileError(
            f"{path}: holds {len(sigma)} standard deviations, the basis has {count} expressions"
        )
    return sigma
