"""FLAME's pose: jaw, neck and eyes turn by linear blend skinning, with corrective shapes; and its linear
shadow.

The exact model is `Flame.vertices`. A fit wants a model that is linear in its unknowns, because the dense
photometric term gathers position and tangents of its samples once (see `fitting`). So `Flame.linear_modes`
adds the jaw and the eyes to the expressions as chords of their rotations: the displacement at a typical
angle, divided by that angle. At an opening of 0.2 rad, where the chord is taken, it is exact; at 0.35 rad (a
wide-open mouth) the chin is 4 mm off, which the other expression modes absorb. The neck is left out of the
fit: it moves the face as a whole, which is the pose's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facefit.models.camera import rotation_matrix

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
# Name, joint, axis, chord angle and standard deviation, both in radians. FLAME's x turns the jaw open and the
# eyes down, y to the subject's left. A mouth opens to about 0.35 rad, eyes turn by about 0.5. The deviations
# are ours.
TURNS = (
    ("jaw_open", 2, 0, 0.2, 0.12),
    ("jaw_left", 2, 1, 0.05, 0.04),
    ("jaw_roll", 2, 2, 0.05, 0.03),
    ("left_eye_down", 3, 0, 0.2, 0.15),
    ("left_eye_left", 3, 1, 0.2, 0.2),
    ("right_eye_down", 4, 0, 0.2, 0.15),
    ("right_eye_left", 4, 1, 0.2, 0.2),
)


@dataclass(frozen=True)
class Flame:
    """The exact model, millimetres. `shape_basis` holds identity and expression one after the other."""

    template: Float[Tensor, "vertices 3"]
    shape_basis: Float[Tensor, "shapes vertices 3"]
    pose_basis: Float[Tensor, "36 vertices 3"]
    joint_regressor: Float[Tensor, "5 vertices"]
    weights: Float[Tensor, "vertices 5"]
    parents: tuple[int, ...]
    triangles: Int[Tensor, "triangles 3"]

    def vertices(
        self, shape: Float[Tensor, "shapes"], pose: Float[Tensor, "5 3"]
    ) -> Float[Tensor, "vertices 3"]:
        """Positions for coefficients of `shape_basis` and one axis-angle (radians) per joint of `JOINTS`.

        Source: T. Li et al., "Learning a model of facial shape and expression from 4D scans", 2017, equations
        1-5.
        """
        rest = self.template + torch.tensordot(shape, self.shape_basis[: len(shape)], dims=1)
        joints = self.joint_regressor @ rest
        rotations = torch.stack([rotation_matrix(turn) for turn in pose])
        bent = (rotations[1:] - torch.eye(3).to(rest)).reshape(-1)
        posed = rest + torch.tensordot(bent, self.pose_basis, dims=1)
        turn, shift = self._chain(rotations, joints)
        blended_turn = torch.einsum("vj,jab->vab", self.weights, turn)
        skinned: Tensor = (blended_turn @ posed[:, :, None])[:, :, 0] + self.weights @ shift
        return skinned

    def _chain(
        self, rotations: Float[Tensor, "5 3 3"], joints: Float[Tensor, "5 3"]
    ) -> tuple[Float[Tensor, "5 3 3"], Float[Tensor, "5 3"]]:
        """Per joint the rotation and shift of what hangs on it: x -> turn x + shift, parents first."""
        turns, shifts = [rotations[0]], [joints[0] - rotations[0] @ joints[0]]
        for joint in range(1, len(joints)):
            parent = self.parents[joint]
            turn = turns[parent] @ rotations[joint]
            at = turns[parent] @ joints[joint] + shifts[parent]
            turns.append(turn)
            shifts.append(at - turn @ joints[joint])
        return torch.stack(turns), torch.stack(shifts)

    def linear_modes(
        self,
    ) -> tuple[Float[Tensor, "turns vertices 3"], tuple[str, ...], Float[Tensor, "turns"]]:
        """Jaw and eyes as expression modes: displacement per standard deviation, names, radians per
        deviation.
        """
        none = self.template.new_zeros(0)
        modes = []
        for _, joint, axis, chord, sigma in TURNS:
            pose = self.template.new_zeros(len(JOINTS), 3)
            pose[joint, axis] = chord
            modes.append((self.vertices(none, pose) - self.template) * (sigma / chord))
        return torch.stack(modes), tuple(turn[0] for turn in TURNS), torch.tensor([turn[4] for turn in TURNS])

    def pose_of(
        self, names: tuple[str, ...], expression: Float[Tensor, "expression"]
    ) -> Float[Tensor, "5 3"]:
        """The joints' axis-angles that a fit of the linear model has found."""
        pose = self.template.new_zeros(len(JOINTS), 3)
        for name, joint, axis, _, sigma in TURNS:
            if name in names:
                pose[joint, axis] = sigma * expression[names.index(name)]
        return pose
