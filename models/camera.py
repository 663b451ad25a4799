"""Where the head is and how the camera sees it: rigid pose and perspective projection.

Frames. Model: x to the subject's left, y up, z out of the nose, millimetres. Camera: OpenCV axes, x right,
y down, z forward. Pixels: (column, row) of the original photograph; pixel (i, j) covers [j, j+1) x [i, i+1),
so the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# An upright head that looks straight into the camera: the model's y and z axes point against the camera's.
FACING = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))

DEFAULT_FIELD_OF_VIEW_DEG = 30.0

FocalSource = Literal["default", "exif", "given", "optimised"]


def rotation_matrix(axis_angle: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """exp of a rotation vector in radians (Rodrigues), smooth through zero."""
    x, y, z = axis_angle.unbind()
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    # Written in the squared angle, so that value and derivative stay finite at zero.
    squared = axis_angle @ axis_angle
    safe = torch.where(squared > 1e-8, squared, torch.ones_like(squared))
    angle = safe.sqrt()
    first = torch.where(squared > 1e-8, torch.sin(angle) / angle, 1 - squared / 6)
    # (1 - cos a) / a^2 by the half angle: the difference would lose half the digits for small angles.
    half = torch.sin(angle / 2) / angle
    second = torch.where(squared > 1e-8, 2 * half * half, 0.5 - squared / 24)
    return (
        torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device) + first * skew + second * skew @ skew
    )


def axis_angle(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "3"]:
    """The rotation vector of a rotation matrix, its length in [0, pi]."""
    # The antisymmetric part is sin(angle) axis.
    vector = 0.5 * torch.stack(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine, cosine = vector.norm(), (rotation.trace() - 1) / 2
    # The arc cosine alone keeps half the digits near 0 and pi.
    angle = torch.atan2(sine, cosine)
    if cosine > 0:
        return vector * (angle / sine if sine > 1e-6 else 1.0)
    # Towards a half turn the antisymmetric part vanishes; the symmetric one, cos I + (1 - cos) axis axis^T,
    # gives the axis but for its sign.
    symmetric = 0.5 * (rotation + rotation.T) - cosine * torch.eye(
        3, dtype=rotation.dtype, device=rotation.device
    )
    axis = symmetric[:, int(symmetric.diagonal().argmax())]
    axis = axis / axis.norm()
    return angle * torch.where((axis @ vector) < 0, -axis, axis)


@dataclass(frozen=True)
class Pose:
    """Rigid motion of the head: X_camera = FACING exp(rotation) X_model + translation_mm.

    `rotation` is a rotation vector (radians) about the model's axes; zero is a frontal, upright head.
    """

    rotation: Float[Tensor, "3"]
    translation_mm: Float[Tensor, "3"]

    @staticmethod
    def frontal(distance_mm: float = 600.0) -> Pose:
        """Upright and facing the camera, the model's origin this far before it."""
        return Pose(torch.zeros(3), torch.tensor([0.0, 0.0, distance_mm]))

    @property
    def camera_from_model(self) -> Float[Tensor, "3 3"]:
        """The rotation from the model's axes to the camera's (x right, y down, z forward)."""
        facing = torch.tensor(FACING, dtype=self.rotation.dtype, device=self.rotation.device)
        return facing @ rotation_matrix(self.rotation)

    def apply(self, points_model: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Points of the model frame in camera axes, mm."""
        return points_model @ self.camera_from_model.T + self.translation_mm

    def yaw_pitch_roll_deg(self) -> tuple[float, float, float]:
        """Head turn in degrees: yaw > 0 to the subject's left, pitch > 0 up, roll > 0 to their left shoulder.

        Convention: exp(rotation) = R_y(yaw) R_x(-pitch) R_z(-roll) about the model's axes.
        """
        rotation = rotation_matrix(self.rotation.detach().double())
        yaw = math.atan2(float(rotation[0, 2]), float(rotation[2, 2]))
        pitch = math.asin(max(-1.0, min(1.0, float(rotation[1, 2]))))
        roll = math.atan2(float(rotation[1, 0]), float(rotation[1, 1]))
        return math.degrees(yaw), math.degrees(pitch), math.degrees(-roll)

    @staticmethod
    def from_camera_from_model(rotation: Float[Tensor, "3 3"], translation_mm: Float[Tensor, "3"]) -> Pose:
        """The inverse of `camera_from_model`."""
        facing = torch.tensor(FACING, dtype=rotation.dtype, device=rotation.device)
        return Pose(axis_angle(facing @ rotation), translation_mm)


@dataclass(frozen=True)
class Camera:
    """A pinhole with square pixels, no distortion; `focal_px`, `principal_point` in original pixels."""

    focal_px: Float[Tensor, ""]
    principal_point: Float[Tensor, "2"]
    width: int
    height: int
    focal_source: FocalSource = "default"

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"a camera of {self.width} x {self.height} pixels sees nothing: both must be >= 1"
            )

    @staticmethod
    def from_field_of_view(
        width: int,
        height: int,
        degrees: float = DEFAULT_FIELD_OF_VIEW_DEG,
        focal_source: FocalSource = "default",
    ) -> Camera:
        """The field of view spans the longer side of the photograph."""
        if not 0.5 <= degrees <= 150:
            raise ValueError(f"field of view {degrees} degrees: give a value between 0.5 and 150")
        focal = 0.5 * max(width, height) / math.tan(math.radians(degrees) / 2)
        centre = torch.tensor([width / 2, height / 2])
        return Camera(torch.tensor(float(focal)), centre, width, height, focal_source)

    @property
    def field_of_view_deg(self) -> float:
        """Over the longer side."""
        return math.degrees(2 * math.atan(0.5 * max(self.width, self.height) / float(self.focal_px)))

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """The 3 x 3 calibration matrix K."""
        zero, one = torch.zeros_like(self.focal_px), torch.ones_like(self.focal_px)
        cx, cy = self.principal_point.unbind()
        return torch.stack([self.focal_px, zero, cx, zero, self.focal_px, cy, zero, zero, one]).reshape(3, 3)

    def project(self, points_camera: Float[Tensor, "points 3"]) -> Float[Tensor, "points 2"]:
        """Pixels of points in camera axes. Points at or behind the camera give no meaningful pixel."""
        return self.focal_px * points_camera[:, :2] / points_camera[:, 2:3] + self.principal_point

    def with_focal(self, focal_px: Float[Tensor, ""], source: FocalSource = "optimised") -> Camera:
        """This camera with another focal length, and where that comes from."""
        return replace(self, focal_px=focal_px, focal_source=source)
