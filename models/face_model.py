"""A linear morphable face: mean + identity + expression for shape, mean + modes for albedo; its topology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.errors import ModelFileError

LicenceClass = Literal["free", "non-commercial", "academic"]

# Outer eye corners of an adult lie about 90 mm apart in every population (Farkas 1994: 88-92 mm with SD 4).
# A mean face outside this range is in the wrong unit.
BIOCULAR_RANGE_MM = (75.0, 105.0)


@dataclass(frozen=True)
class Landmarks:
    """iBUG landmarks as points on the mesh: number (0-67) -> triangle and barycentric weights.

    0-16 jaw from the subject's right ear, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 mouth.
    """

    numbers: Int[np.ndarray, "landmarks"]
    triangles: Int[np.ndarray, "landmarks"]
    barycentric: Float[np.ndarray, "landmarks 3"]


@dataclass(frozen=True)
class Topology:
    """What all shapes of a model share: connectivity, texture coordinates, symmetry, names of parts.

    `triangles` are counter-clockwise from outside. `uv` has its origin bottom-left, v up, and its own index
    `uv_triangles`. `mirror[i]` is the vertex across the mid-plane. `regions` are vertex lists; the fit uses
    "face" (skin seen by the photometric term), "jaw_contour" (may form the silhouette) and "rigid".
    """

    triangles: Int[np.ndarray, "triangles 3"]
    landmarks: Landmarks
    uv: Float[np.ndarray, "uvs 2"] | None = None
    uv_triangles: Int[np.ndarray, "triangles 3"] | None = None
    mirror: Int[np.ndarray, "vertices"] | None = None
    regions: Mapping[str, Int[np.ndarray, "n"]] = field(default_factory=dict)

    def region(self, name: str) -> Int[np.ndarray, "n"]:
        if name not in self.regions:
            raise KeyError(f"this model has no region {name!r}; it has {', '.join(sorted(self.regions))}")
        return self.regions[name]


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and what one may do with it; written into every result."""

    name: str
    licence: str
    licence_class: LicenceClass
    citation: str = ""
    sha256: str = ""


# Compared and hashed as the one object it is: comparing 50 MB of numbers is never what is meant.
@dataclass(frozen=True, eq=False)
class LinearFaceModel:
    """shape = mean + identity . identity_basis + expression . expression_basis, in millimetres, model frame.

    Every coefficient is in standard deviations: its prior is N(0, 1). `expression_unit[k]` says what one such
    unit is on the model's own scale (for ARKit-like shapes: the activation, about 0.3), so that
    coefficient * unit is the published weight. Bases are stored mode by mode, (modes, vertices, 3): a product
    from the left then streams memory in order, four times faster than vertex by vertex.
    Albedo is linear RGB.
    """

    source: ModelSource
    topology: Topology
    mean: Float[Tensor, "vertices 3"]
    identity_basis: Float[Tensor, "identity vertices 3"]
    expression_basis: Float[Tensor, "expression vertices 3"]
    albedo_mean: Float[Tensor, "vertices 3"]
    albedo_basis: Float[Tensor, "albedo vertices 3"]
    expression_names: tuple[str, ...]
    expression_unit: Float[Tensor, "expression"]

    def __post_init__(self) -> None:
        vertices = len(self.mean)
        for name in ("mean", "identity_basis", "expression_basis", "albedo_mean", "albedo_basis"):
            array = getattr(self, name)
            if tuple(array.shape[-2:]) != (vertices, 3):
                raise ModelFileError(
                    f"{self.source.name}: {name} has shape {tuple(array.shape)}, "
                    f"expected (..., {vertices}, 3)"
                )
            # The extremes of an array with NaN are NaN; one pass, where isfinite() costs half a load of ICT.
            if array.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(array))).all()):
                raise ModelFileError(f"{self.source.name}: {name} holds NaN or infinite numbers")
        if not len(self.expression_names) == len(self.expression_basis) == len(self.expression_unit):
            raise ModelFileError(f"{self.source.name}: expression names, units and modes differ in number")
        self._check_topology()
        self._check_unit()

    def __repr__(self) -> str:
        modes = f"{self.n_identity} identity, {self.n_expression} expression, {self.n_albedo} albedo modes"
        terms = f"{self.source.licence}, {self.source.licence_class}"
        return f"<LinearFaceModel {self.source.name} ({terms}): {self.n_vertices} vertices; {modes}>"

    def _check_topology(self) -> None:
        vertices, topology = len(self.mean), self.topology
        if len(topology.triangles) == 0 or not _indexes(topology.triangles, vertices):
            raise ModelFileError(f"{self.source.name}: triangles must index the {vertices} vertices from 0")
        for name, members in topology.regions.items():
            if not _indexes(members, vertices):
                raise ModelFileError(f"{self.source.name}: region {name!r} names vertices beyond {vertices}")
        if topology.mirror is not None and not (
            len(topology.mirror) == vertices and _indexes(topology.mirror, vertices)
        ):
            raise ModelFileError(
                f"{self.source.name}: mirror must name a partner for each of {vertices} vertices"
            )
        marks = topology.landmarks
        if not (
            len(marks.numbers) == len(marks.triangles) == len(marks.barycentric)
            and _indexes(marks.numbers, 68)
            and _indexes(marks.triangles, len(topology.triangles))
            and np.allclose(marks.barycentric.sum(1), 1, atol=1e-3)
        ):
            raise ModelFileError(
                f"{self.source.name}: a landmark needs a number from 0 to 67, one of the "
                f"{len(topology.triangles)} triangles, and three weights that add up to 1"
            )

    def _check_unit(self) -> None:
        corners = {36, 45}
        if not corners <= set(self.topology.landmarks.numbers.tolist()):
            return
        points = self.landmark_points(self.mean)
        at = {int(n): i for i, n in enumerate(self.topology.landmarks.numbers)}
        biocular = float((points[at[36]] - points[at[45]]).norm())
        low, high = BIOCULAR_RANGE_MM
        if not low <= biocular <= high:
            raise ModelFileError(
                f"{self.source.name}: the mean face's outer eye corners are {biocular:.4g} mm apart, "
                f"an adult's are {low:.0f}-{high:.0f}: the file is in another unit, or the landmark map is "
                "another model's"
            )

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    @property
    def n_identity(self) -> int:
        return len(self.identity_basis)

    @property
    def n_expression(self) -> int:
        return len(self.expression_basis)

    @property
    def n_albedo(self) -> int:
        return len(self.albedo_basis)

    @cached_property
    def triangles(self) -> Int[Tensor, "triangles 3"]:
        return torch.from_numpy(np.ascontiguousarray(self.topology.triangles, dtype=np.int64)).to(
            self.mean.device
        )

    def vertices(
        self, identity: Float[Tensor, "identity"], expression: Float[Tensor, "expression"]
    ) -> Float[Tensor, "vertices 3"]:
        """The surface in the model frame, mm; modes beyond the coefficients given count as zero."""
        shape = self.mean.reshape(-1)
        if len(identity):
            shape = shape + identity @ self.identity_basis[: len(identity)].flatten(1)
        if len(expression):
            shape = shape + expression @ self.expression_basis[: len(expression)].flatten(1)
        return shape.reshape(-1, 3)

    def albedo(self, coefficients: Float[Tensor, "albedo"]) -> Float[Tensor, "vertices 3"]:
        """Diffuse reflectance per vertex in linear RGB; not clamped, so that it stays linear."""
        if not len(coefficients):
            return self.albedo_mean
        return self.albedo_mean + (coefficients @ self.albedo_basis[: len(coefficients)].flatten(1)).reshape(
            -1, 3
        )

    def landmark_points(self, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, "landmarks 3"]:
        """Where the landmarks lie on a surface of the model, in the order of `topology.landmarks.numbers` (iBUG 68)."""
        corners = vertices[
            self.triangles[torch.from_numpy(self.topology.landmarks.triangles.astype(np.int64))]
        ]
        weights = torch.from_numpy(self.topology.landmarks.barycentric).to(vertices)
        return (weights[:, :, None] * corners).sum(1)

    def truncated(self, identity: int, expression: int | None = None) -> LinearFaceModel:
        """The same model with fewer modes."""
        expressions = self.n_expression if expression is None else expression
        return replace(
            self,
            identity_basis=self.identity_basis[:identity].contiguous(),
            expression_basis=self.expression_basis[:expressions].contiguous(),
            expression_names=self.expression_names[:expressions],
            expression_unit=self.expression_unit[:expressions],
        )

    def to(self, device: torch.device | str) -> LinearFaceModel:
        moved = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)  # type: ignore[arg-type]


def _indexes(numbers: Int[np.ndarray, "*shape"], count: int) -> bool:
    """Whether all are whole numbers in 0 ... count - 1."""
    if not np.issubdtype(numbers.dtype, np.integer):
        return False
    return numbers.size == 0 or bool(numbers.min() >= 0 and numbers.max() < count)
