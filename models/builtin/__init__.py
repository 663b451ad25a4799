"""The built-in face model: a morphable human head generated from published facts by the code in this package.

`load()` reads the shipped file; `python -m facefit.models.builtin` makes it anew. Frame: millimetres, x to
the subject's left, y up, z out of the nose; the origin lies midway between the ears at the height of the
eyeball centres.

Where to look: `figures` (measured figures of the mean head), `surface` (the skin through them), `layout` (its
mesh), `parts` (eyes, mouth, teeth, ears) and `clearance`, `population` and `fields` (who varies how), `identity`,
`expression` with `action_units`, `albedo`, `landmarks`, `store` (the file).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefit.models.builtin.store import PATH

if TYPE_CHECKING:
    from facefit.models.face_model import LinearFaceModel

__all__ = ["load"]

# A usual activation: the deviation that one unit of an expression coefficient stands for.
EXPRESSION_UNIT = 0.3
# Few people put their tongue out, and no sample of a fit lies on it: with the usual deviation a smile did, by a sixth.
SELDOM = {"tongueOut": 0.08}


def load() -> LinearFaceModel:
    """The built-in model from its shipped file."""
    import torch

    from facefit.models.builtin.store import read
    from facefit.models.cache import sha256_of
    from facefit.models.face_model import Landmarks, LinearFaceModel, ModelSource, Topology

    a = read()
    regions = {name.removeprefix("region_"): array for name, array in a.items() if name.startswith("region_")}
    topology = Topology(
        triangles=a["triangles"].astype("int64"),
        landmarks=Landmarks(
            numbers=a["landmark_triangles"] * 0 + range(68),
            triangles=a["landmark_triangles"],
            barycentric=a["landmark_barycentric"],
        ),
        uv=a["uv"],
        uv_triangles=a["uv_triangles"].astype("int64"),
        mirror=a["mirror"].astype("int64"),
        regions=regions,
    )
    names = tuple(str(name) for name in a["expression_names"])
    unit = torch.tensor([SELDOM.get(name, EXPRESSION_UNIT) for name in names])
    return LinearFaceModel(
        source=ModelSource(
            name="builtin",
            licence="Apache-2.0",
            licence_class="free",
            citation="facefit built-in model, generated from published anthropometry",
            sha256=sha256_of(PATH),
        ),
        topology=topology,
        mean=torch.from_numpy(a["mean"]),
        identity_basis=torch.from_numpy(a["identity"]),
        expression_basis=torch.from_numpy(a["expression"]) * unit[:, None, None],
        albedo_mean=torch.from_numpy(a["albedo_mean"]),
        albedo_basis=torch.from_numpy(a["albedo"]),
        expression_names=names,
        expression_unit=unit,
    )
