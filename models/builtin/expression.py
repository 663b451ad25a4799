"""The ARKit expression shapes, each an action of skin over bone, eyeballs and teeth.

Skin moves by handles: some fifty named points a side, whose displacements spread over the face by biharmonic
weights (the bounded smooth surface of Botsch and Kobbelt, "An Intuitive Framework for Real-Time Freeform
Modeling", SIGGRAPH 2004), computed once. The slit between the lips is a cut of the mesh, so lips part. Jaw
shapes turn the lower handles about the condyles; lids slide on the eyeball; gaze turns the eyeball. What each
action pulls where follows Ekman and Friesen, "Facial Action Coding System" (1978), and Apple's descriptions
of ARFaceAnchor.BlendShapeLocation; amounts are millimetres at full activation.
"""

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from facefit.models.builtin.action_units import ACTIONS, HANDLES, JAW_SHARE, MOUTH_TO_LEFT, Move
from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.layout import EYE_SPOKES
from facefit.models.builtin.parts import EYE_CENTRE, EYE_RADIUS
from facefit.models.builtin.plane import Array

# Condyle axis: just before the ear canal, at its height (the tragion lies about 25 mm under the eyes'
# height).
CONDYLE = np.array([0.0, -20.0, 8.0])
JAW_OPEN_DEGREES = 22.0
LIPS_TOUCH_MM = 0.08
GAZE_DEGREES = {"Up": 25.0, "Down": 28.0, "In": 30.0, "Out": 30.0}
# How much of the lips' motion each ring of the mouth's lining makes, and the jaw's share in it on the floor
# of the mouth.
LINING_FOLLOW = (1.0, 0.98, 0.85, 0.5, 0.2, 0.05)
LINING_FLOOR_SHARE = (1.0, 1.0, 1.0, 0.95, 0.85, 0.55)
# How much of the lid's travel each loop around the opening makes, from the margin outwards.
LID_FOLLOW = np.array([1.0, 0.96, 0.86, 0.68, 0.42, 0.14])


class Rig:
    """Spreads handle displacements over the head."""

    def __init__(self, mesh: WholeMesh, eye_loops: list[Ints], contact: Ints) -> None:
        self.mesh, self.eye_loops, self.contact = mesh, eye_loops, contact
        self.skin = np.flatnonzero(mesh.parts == "skin")
        self.names = list(HANDLES)
        half_lining = np.flatnonzero(
            (mesh.parts == "mouth") & (np.arange(len(mesh.points)) < mesh.half_count)
        )
        self.lining = half_lining[: len(LINING_FOLLOW) * len(contact)].reshape(
            len(LINING_FOLLOW), len(contact)
        )
        self._spread = self._handle_weights()

    def _handle_weights(self) -> Array:
        """Weights (vertices, sides, handles): the biharmonic influence of each handle on the skin."""
        mesh, local = self.mesh, np.full(len(self.mesh.points), -1)
        local[self.skin] = np.arange(len(self.skin))
        triangles = local[mesh.triangles]
        triangles = triangles[(triangles >= 0).all(axis=1)]
        points = mesh.points[self.skin]
        stiffness, mass = _cotangent_laplacian(points, triangles)
        bending = stiffness @ sparse.diags(1.0 / mass) @ stiffness
        rows: list[Ints] = []
        for name in self.names:
            target = np.array(HANDLES[name])
            for side in (1.0, -1.0):
                where = points - target * np.array([side, 1.0, 1.0])
                rows.append(np.argsort((where**2).sum(axis=1))[:2])
        fixed = np.flatnonzero((points[:, 2] < 6.0) | (points[:, 1] > 78.0) | (points[:, 1] < -146.0))
        held = [self.eye_loops[k] for k in (0, 1, 2)]
        held_all = np.unique(np.concatenate([np.concatenate(held), self.mesh.mirror[np.concatenate(held)]]))
        stiff = np.zeros(len(points))
        stiff[fixed] = 1e2
        stiff[local[held_all]] = 1e2
        right = np.zeros((len(points), len(rows)))
        for k, row in enumerate(rows):
            stiff[row] += 1e2
            right[row, k] = 1e2
        # The handles' own rows may meet on the midline, where both sides' handles are one.
        solved = splu((bending + sparse.diags(stiff) + 1e-6 * sparse.diags(mass)).tocsc()).solve(right)
        weights = np.zeros((len(mesh.points), len(rows)))
        weights[self.skin] = solved
        weights = self._carry_parts(weights)
        return weights.reshape(len(mesh.points), len(self.names), 2).transpose(0, 2, 1)

    def _carry_parts(self, weights: Array) -> Array:
        """Mouth lining follows the lips, fading inwards; nostrils follow their rim; ears and eyes stay."""
        mesh = self.mesh
        for ring, fade in zip(self.lining, LINING_FOLLOW, strict=True):
            weights[ring] = fade * weights[self.contact]
            weights[mesh.mirror[ring]] = fade * weights[mesh.mirror[self.contact]]
        inner = np.flatnonzero(mesh.parts == "nostril")
        rim = np.intersect1d(mesh.triangles[np.isin(mesh.triangles, inner).any(axis=1)], self.skin)
        distance = np.linalg.norm(mesh.points[inner, None] - mesh.points[rim], axis=2)
        soft = np.exp(-(((distance - distance.min(axis=1, keepdims=True)) / 2.0) ** 2))
        fade_in = np.exp(-((distance.min(axis=1, keepdims=True) / 6.0) ** 2))
        weights[inner] = fade_in * (soft / soft.sum(axis=1, keepdims=True) @ weights[rim])
        return weights

    def moved(self, moves: dict[str, Move], sides: str) -> Array:
        """Displacement (vertices, 3) for handle moves on "left", "right" or "both" sides."""
        total = np.zeros_like(self.mesh.points)
        for name, move in moves.items():
            k = self.names.index(name)
            for side, sign in ((0, 1.0), (1, -1.0)):
                if sides in (("left", "both"), ("right", "both"))[side]:
                    total += self._spread[:, side, k, None] * (np.array(move) * np.array([sign, 1.0, 1.0]))
        return total

    def mouth_to_left(self) -> Array:
        total = np.zeros_like(self.mesh.points)
        for name, pair in MOUTH_TO_LEFT.items():
            for side in (0, 1):
                total += self._spread[:, side, self.names.index(name), None] * np.array(pair[side])
        return total

    def jaw_weight(self) -> Array:
        """Share of the jaw's motion that each vertex makes: 1 on chin, lower lip and lower teeth."""
        weight = np.zeros(len(self.mesh.points))
        for name, share in JAW_SHARE.items():
            k = self.names.index(name)
            weight += share * self._spread[:, :, k].sum(axis=1)
        weight = np.clip(weight, 0.0, 1.0)
        weight[np.isin(self.mesh.parts, ["lower_teeth", "tongue"])] = 1.0
        low = np.clip((np.arange(len(self.contact)) - len(self.contact) // 2) / 5.0, 0.0, 1.0)
        for ring, fade, floor in zip(self.lining, LINING_FOLLOW, LINING_FLOOR_SHARE, strict=True):
            lip = weight[self.contact]
            carried = fade * lip * (1.0 - low) + np.minimum(lip, floor) * low
            weight[ring] = weight[self.mesh.mirror[ring]] = carried
        return weight


def expression_shapes(mesh: WholeMesh, eye_loops: list[Ints], mouth_loops: list[Ints]) -> dict[str, Array]:
    """Displacement at full activation, by ARKit name (Left and Right are the subject's)."""
    rig = Rig(mesh, eye_loops, mouth_loops[0])
    shapes: dict[str, Array] = {}
    for name, (moves, sided) in ACTIONS.items():
        if sided:
            shapes[name + "Left"] = rig.moved(moves, "left")
        else:
            shapes[name] = rig.moved(moves, "both")
    jaw = rig.jaw_weight()
    shapes["jawOpen"] = _turned(mesh.points, jaw, JAW_OPEN_DEGREES) + np.array([0.0, 0.0, 2.0]) * jaw[:, None]
    shapes["jawForward"] = jaw[:, None] * np.array([0.0, -0.5, 6.0])
    shapes["jawLeft"] = jaw[:, None] * np.array([7.0, 0.0, 0.0])
    shapes["tongueOut"] = tongue_out(mesh)
    closed = shapes["jawOpen"] + _mouth_close(rig, shapes["jawOpen"])
    shapes["mouthClose"] = with_lips_apart(mesh, closed, mouth_loops) - shapes["jawOpen"]
    shapes["mouthLeft"] = rig.mouth_to_left()
    for name, upper, lower in (
        ("eyeBlinkLeft", 0.93, 0.065),
        ("eyeSquintLeft", 0.10, 0.26),
        ("eyeWideLeft", -0.24, -0.06),
    ):
        shapes[name] = shapes.get(name, 0.0) + lid_motion(mesh, eye_loops, upper, lower)
    for way, degrees in GAZE_DEGREES.items():
        lids = {"Up": (-0.20, -0.05), "Down": (0.42, -0.10), "In": (0.0, 0.0), "Out": (0.0, 0.0)}[way]
        shapes[f"eyeLook{way}Left"] = gaze(mesh, way, degrees) + lid_motion(mesh, eye_loops, *lids)
    for name, shape in shapes.items():
        if name != "mouthClose":
            shapes[name] = with_lips_apart(mesh, shape, mouth_loops)
    for name in [n for n in shapes if n.endswith("Left")]:
        mirrored = name.removesuffix("Left") + "Right"
        shapes[mirrored] = shapes[name][mesh.mirror] * np.array([-1.0, 1.0, 1.0])
    return {name: shapes[name] for name in sorted(shapes, key=str.lower)}


def _turned(points: Array, weight: Array, degrees: float) -> Array:
    """Displacement when each point turns about the condyle axis by its share of an angle, opening
    downwards.
    """
    angle = np.radians(degrees) * weight
    y, z = (points - CONDYLE)[:, 1], (points - CONDYLE)[:, 2]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.zeros_like(y), cos * y - sin * z - y, sin * y + cos * z - z], axis=1)


def with_lips_apart(mesh: WholeMesh, shape: Array, loops: list[Ints]) -> Array:
    """The shape with lips that would cross moved apart until they just touch, each by half; rows further out
    by less.
    """
    half = len(loops[0]) // 2
    lining = np.flatnonzero((mesh.parts == "mouth") & (np.arange(len(mesh.points)) < mesh.half_count))
    inner = list(lining[: 2 * len(loops[0])].reshape(2, -1))
    shape = shape.copy()
    for side in (np.arange(len(mesh.points)), mesh.mirror):
        moved = mesh.points + shape
        upper, lower = side[loops[0][:half]], side[loops[0][:half:-1]]
        deficit = np.maximum(LIPS_TOUCH_MM - (moved[upper, 1] - moved[lower, 1]), 0.0)
        for loop, share in [
            *zip(loops, (1.0, 0.9, 0.7, 0.45, 0.2), strict=False),
            (inner[0], 1.0),
            (inner[1], 1.0),
        ]:
            # On the midline both passes meet the same vertices; after the first nothing is left to do there.
            shape[side[loop[:half]], 1] += 0.5 * share * deficit
            shape[side[loop[:half:-1]], 1] -= 0.5 * share * deficit
    return shape


def tongue_out(mesh: WholeMesh) -> Array:
    """The tongue slides forwards over the lower teeth and sinks at the tip; meant to be used with jawOpen."""
    share = np.where(mesh.parts == "tongue", np.clip((mesh.points[:, 2] - 52.0) / 40.0, 0.0, 1.0), 0.0)
    return np.stack([-0.12 * share * mesh.points[:, 0], 5.0 * share - 11.0 * share**4, 34.0 * share], axis=1)


def _mouth_close(rig: Rig, jaw_open: Array) -> Array:
    """Brings the lips together when added to jawOpen: the lower lip up by most of the way, the upper lip
    down by the rest.
    """
    contact = rig.contact
    half = len(contact) // 2
    drop = jaw_open[contact[-1]] - jaw_open[contact[0]]
    lower = {
        "lower_lip_mid": 0.72,
        "lower_lip_quarter": 0.70,
        "lower_lip_near_corner": 0.42,
        "below_lip_mid": 0.38,
        "below_lip_side": 0.36,
    }
    upper = {
        "upper_lip_mid": 0.28,
        "upper_lip_quarter": 0.26,
        "upper_lip_near_corner": 0.14,
        "philtrum": 0.10,
        "upper_lip_side": 0.08,
    }
    moves: dict[str, Move] = {n: (0.0, float(-drop[1] * s), float(-drop[2] * s)) for n, s in lower.items()}
    moves |= {n: (0.0, float(drop[1] * s), float(drop[2] * s)) for n, s in upper.items()}
    closed = rig.moved(moves, "both")
    # Then exactly: what gap remains at each pair of contact vertices is shared by the two lips' rows around
    # it.
    total = jaw_open + closed
    remaining = np.zeros_like(closed)
    for i in range(half):
        top, bottom = contact[i], contact[len(contact) - 1 - i]
        gap = (rig.mesh.points[top] + total[top]) - (rig.mesh.points[bottom] + total[bottom])
        for v, sign in ((top, -0.3), (bottom, 0.7)):
            remaining[v] = sign * gap
    lips = np.concatenate([contact, rig.mesh.mirror[contact]])
    remaining[rig.mesh.mirror[contact]] = remaining[contact] * np.array([-1.0, 1.0, 1.0])
    distance = np.linalg.norm(rig.mesh.points[:, None] - rig.mesh.points[lips], axis=2)
    upper_side = np.concatenate([np.arange(len(contact)) < half] * 2)
    across, line = np.abs(rig.mesh.points[contact[:half], 0]), rig.mesh.points[contact[:half], 1]
    skin_upper = rig.mesh.points[:, 1] > np.interp(np.abs(rig.mesh.points[:, 0]), across, line)
    for is_upper in (True, False):
        chosen = skin_upper == is_upper
        soft = np.exp(-((distance[chosen][:, upper_side == is_upper] / 3.0) ** 2)) + 1e-12
        near = np.exp(-((distance[chosen][:, upper_side == is_upper].min(axis=1) / 8.0) ** 2))
        spread = soft / soft.sum(axis=1, keepdims=True) @ remaining[lips[upper_side == is_upper]]
        movable = np.isin(rig.mesh.parts[chosen], ["skin", "mouth"])
        closed[chosen] += spread * (near * movable)[:, None]
    return closed


def lid_motion(mesh: WholeMesh, loops: list[Ints], upper: float, lower: float) -> Array:
    """Left lids sliding on the eyeball: 1 carries the upper margin onto the lower; `lower` raises the lower
    margin likewise.
    """
    moved = np.zeros_like(mesh.points)
    half = EYE_SPOKES // 2
    top = np.arange(1, half)
    bottom = (EYE_SPOKES - top) % EYE_SPOKES
    aim = _aim(mesh.points[loops[0]])
    for spokes, across, amount in ((top, bottom, upper), (bottom, top, lower)):
        travel = np.zeros((EYE_SPOKES, 3))
        travel[spokes] = (aim[across] - aim[spokes]) * amount
        for loop, follow in zip(loops, LID_FOLLOW, strict=True):
            _slide(mesh.points, moved, loop[spokes], travel[spokes] * follow)
        for ring, follow in zip(_lining(mesh), (1.0, 1.0, 1.0), strict=True):
            _slide(mesh.points, moved, ring[spokes], travel[spokes] * follow)
    return moved


def _lining(mesh: WholeMesh) -> list[Ints]:
    lining = np.flatnonzero((mesh.parts == "lid_lining") & (np.arange(len(mesh.points)) < mesh.half_count))
    return list(lining.reshape(3, EYE_SPOKES))


def _aim(points: Array) -> Array:
    ray = points - EYE_CENTRE
    return np.asarray(ray / np.linalg.norm(ray, axis=1, keepdims=True))


def _slide(points: Array, moved: Array, vertices: Ints, travel: Array) -> None:
    """Turn points about the eyeball's centre by a change of direction, never nearer to it than before or
    than a lid's thickness.
    """
    ray = points[vertices] - EYE_CENTRE
    radius = np.linalg.norm(ray, axis=1, keepdims=True)
    aim = ray / radius + travel
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    share = np.clip(np.linalg.norm(travel, axis=1, keepdims=True) / 0.5, 0.0, 1.0)
    settled = np.minimum(radius, EYE_RADIUS + 1.9)
    radius = radius + share * (settled - radius)
    moved[vertices] += EYE_CENTRE + radius * aim - points[vertices]


def gaze(mesh: WholeMesh, way: str, degrees: float) -> Array:
    """Left eyeball turned about its centre."""
    turn = np.radians(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    vertical = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    sideways = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    rotation = {"Up": vertical, "Down": vertical.T, "Out": sideways, "In": sideways.T}[way]
    moved = np.zeros_like(mesh.points)
    eye = (mesh.parts == "eyeball") & (mesh.points[:, 0] > 0)
    ray = mesh.points[eye] - EYE_CENTRE
    moved[eye] = ray @ rotation.T - ray
    return moved


def _cotangent_laplacian(points: Array, triangles: Ints) -> tuple[sparse.csr_matrix, Array]:
    """Positive semi-definite stiffness matrix and lumped mass."""
    count = len(points)
    matrix = sparse.csr_matrix((count, count))
    mass = np.zeros(count)
    for k in range(3):
        i, j, o = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = points[i] - points[o], points[j] - points[o]
        doubled_area = np.linalg.norm(np.cross(a, b), axis=1)
        weight = np.clip(0.5 * (a * b).sum(axis=1) / np.maximum(doubled_area, 1e-9), 0.02, 5.0)
        matrix = (
            matrix
            + sparse.csr_matrix((-weight, (i, j)), (count, count))
            + sparse.csr_matrix((-weight, (j, i)), (count, count))
        )
        np.add.at(mass, o, doubled_area / 6.0)
    return matrix - sparse.diags(np.asarray(matrix.sum(axis=1)).ravel()), mass
