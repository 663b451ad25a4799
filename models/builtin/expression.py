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

from facefit.models.builtin.action_units import ACTIONS, CLOSED_SHARE, HANDLES, JAW_SHARE, MOUTH_TO_LEFT, Move
from facefit.models.builtin.halfmesh import Ints, WholeMesh
from facefit.models.builtin.layout import EYE_SPOKES
from facefit.models.builtin.parts import EYE_CENTRE, EYE_RADIUS
from facefit.models.builtin.plane import Array

# Condyle axis: just before the ear canal, at its height (the tragion lies about 25 mm under the eyes'
# height).
CONDYLE = np.array([0.0, -20.0, 8.0])
JAW_OPEN_DEGREES = 22.0
TONGUE_JAW_DEGREES, TONGUE_LIFT_MM = 5.0, 6.0
# Lips that a shape would part by less than the first stay closed; by more than both, they part freely. What
# share of the lips' common motion their rows take: from the contact outwards, and inwards along the lining.
LIPS_TOUCH_MM, LIPS_PART_MM = 0.3, 1.5
LIPS_TOGETHER, LINING_TOGETHER = (1.0, 0.9, 0.7, 0.45, 0.2), (1.0, 1.0, 0.9, 0.5)
GAZE_DEGREES = {"Up": 25.0, "Down": 25.0, "In": 30.0, "Out": 30.0}
# How much of the lips' motion each ring of the mouth's lining makes, and the jaw's share in it on the floor
# of the mouth.
LINING_FOLLOW = (1.0, 0.98, 0.85, 0.5, 0.2, 0.05)
LINING_FLOOR_SHARE = (1.0, 1.0, 1.0, 1.0, 0.97, 0.85)
# How much of the lid's travel each loop around the opening makes, from the margin outwards.
LID_FOLLOW = np.array([1.0, 0.96, 0.86, 0.68, 0.42, 0.14])
LID_LINING_FOLLOW = np.array([1.0, 0.68, 0.36])
# Around the lid opening: inner corner 0, upper lid, outer corner, lower lid; pairs lie opposite each other.
UPPER_SPOKES = np.arange(1, EYE_SPOKES // 2)
LOWER_SPOKES = EYE_SPOKES - UPPER_SPOKES
# A blink: how far the upper margin travels towards the lower (1: onto it), how far above the lower margin
# the inside of the upper lid then lies, and how flat the lower lid's first loops lie under it.
BLINK, COVER_MM, LID_MM, TUCKED_MM = 1.02, 1.05, 0.9, (0.0, 0.05, 0.15, 0.4)


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
    shapes["jawForward"] = jaw[:, None] * np.array([0.0, 0.0, 6.0])
    shapes["jawLeft"] = jaw[:, None] * np.array([7.0, 0.0, 0.0])
    # The tongue needs an opening: a little of the jaw's, and lips that let it pass.
    shapes["tongueOut"] += _turned(mesh.points, jaw, TONGUE_JAW_DEGREES) + tongue_out(mesh)
    # After the lips of jawOpen itself have been seen to, so that the sum is what is closed here.
    shapes["jawOpen"] = with_lips_together(mesh, shapes["jawOpen"], mouth_loops)
    closed = shapes["jawOpen"] + _mouth_close(rig, shapes["jawOpen"])
    shapes["mouthClose"] = with_lips_together(mesh, closed, mouth_loops, parting=False) - shapes["jawOpen"]
    shapes["mouthLeft"] = rig.mouth_to_left()
    shapes["eyeBlinkLeft"] = blink(mesh, eye_loops)
    for name, upper, lower in (("eyeSquintLeft", 0.04, 0.16), ("eyeWideLeft", -0.24, -0.06)):
        shapes[name] += lid_motion(mesh, eye_loops, upper, lower)
    for way, degrees in GAZE_DEGREES.items():
        lids = {"Up": (-0.20, -0.05), "Down": (0.33, -0.20), "In": (0.0, 0.0), "Out": (0.0, 0.0)}[way]
        shapes[f"eyeLook{way}Left"] = gaze(mesh, way, degrees) + lid_motion(mesh, eye_loops, *lids)
    for name, shape in shapes.items():
        if name not in ("jawOpen", "mouthClose"):
            shapes[name] = with_lips_together(mesh, shape, mouth_loops)
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


def with_lips_together(mesh: WholeMesh, shape: Array, loops: list[Ints], parting: bool = True) -> Array:
    """The shape with lips that stay closed, or would cross, moved as one: each takes the mean of both motions.

    Opposite vertices of lips that touch then move equally in every shape, so any sum of shapes keeps them
    as far apart as they are; rows further out follow by less. Without `parting` all of the lips is closed.
    """
    half = len(loops[0]) // 2
    lining = np.flatnonzero((mesh.parts == "mouth") & (np.arange(len(mesh.points)) < mesh.half_count))
    rings = lining[: len(LINING_TOGETHER) * len(loops[0])].reshape(len(LINING_TOGETHER), -1)
    shape, given = shape.copy(), shape
    for side in (np.arange(len(mesh.points)), mesh.mirror):

        def apart(loop: Ints, side: Ints = side) -> Array:
            return np.asarray(given[side[loop[:half]]] - given[side[loop[:half:-1]]])

        opening = np.clip((apart(loops[0])[:, 1] - LIPS_TOUCH_MM) / LIPS_PART_MM, 0.0, 1.0)
        closed = (1.0 - parting * opening * opening * (3.0 - 2.0 * opening))[:, None]
        moves = [(loop, share, apart(loops[0])) for loop, share in zip(loops, LIPS_TOGETHER, strict=False)]
        moves += [(ring, share, apart(ring)) for ring, share in zip(rings, LINING_TOGETHER, strict=True)]
        for loop, share, way in moves:
            # The midline is met on both sides: set, not added, it comes out the same.
            shape[side[loop[:half]]] = given[side[loop[:half]]] - 0.5 * share * closed * way
            shape[side[loop[:half:-1]]] = given[side[loop[:half:-1]]] + 0.5 * share * closed * way
    return shape


def tongue_out(mesh: WholeMesh) -> Array:
    """The tongue, flattened, slides over the lower teeth and lip and sinks at the tip; the jaw's part is
    added to it.
    """
    on = mesh.parts == "tongue"
    share = np.where(on, np.clip((mesh.points[:, 2] - 66.0) / 20.0, 0.0, 1.0), 0.0)
    lift = TONGUE_LIFT_MM * np.clip(share / 0.45, 0.0, 1.0) - 2.5 * share**8
    height = mesh.points[:, 1] + 74.0
    return np.stack([-0.1 * share * mesh.points[:, 0], lift - 0.5 * share * height, 30.0 * share], axis=1)


def _mouth_close(rig: Rig, jaw_open: Array) -> Array:
    """Brings the lips nearly together when added to jawOpen: they meet where the upper lip, drawn down, and
    the lower one, drawn up, share the way about 3 to 7.
    """
    drop = jaw_open[rig.contact[-1]]
    moves: dict[str, Move] = {}
    for name, wanted in CLOSED_SHARE.items():
        share = wanted - JAW_SHARE.get(name, 0.0)
        moves[name] = (0.0, float(drop[1] * share), float(drop[2] * share))
    return rig.moved(moves, "both")


def lid_motion(mesh: WholeMesh, loops: list[Ints], upper: float, lower: float) -> Array:
    """Left lids sliding on the eyeball: 1 carries the upper margin onto the lower; `lower` raises the lower
    margin likewise.
    """
    moved = np.zeros_like(mesh.points)
    aim = _aim(mesh.points[loops[0]])
    for spokes, across, amount in ((UPPER_SPOKES, LOWER_SPOKES, upper), (LOWER_SPOKES, UPPER_SPOKES, lower)):
        gap = aim[across] - aim[spokes]
        travel = gap * amount * _openness(gap)[:, None] ** 4
        share = np.clip(np.linalg.norm(travel, axis=1) / 0.5, 0.0, 1.0)
        for loop, follow in zip([*loops, *_lining(mesh)], (*LID_FOLLOW, *LID_LINING_FOLLOW), strict=True):
            radius = _radius(mesh.points[loop[spokes]])
            settled = np.minimum(radius, EYE_RADIUS + 1.9)
            _slide(
                mesh.points,
                moved,
                loop[spokes],
                travel * follow,
                radius + follow * share * (settled - radius),
            )
    return moved


def blink(mesh: WholeMesh, loops: list[Ints]) -> Array:
    """The left eye closed: the upper lid comes down over the lower one's edge and lies in front of it.

    So a lower lid that squint raises further, or an upper one that a downward gaze lowers further, slides
    along the other lid instead of cutting it: the shapes are added, and an eye that just closes at each could
    not stay whole at their sum.
    """
    moved = np.zeros_like(mesh.points)
    points, lining = mesh.points, _lining(mesh)
    aim, radius = _aim(points[loops[0]]), _radius(points[loops[0]])
    gap = aim[LOWER_SPOKES] - aim[UPPER_SPOKES]
    open_there = _openness(gap)
    low = radius[LOWER_SPOKES]
    for k, loop in enumerate(loops[: len(TUCKED_MM)]):
        here = _radius(points[loop[LOWER_SPOKES]])
        tucked = np.minimum(here, low + TUCKED_MM[k])
        _slide(points, moved, loop[LOWER_SPOKES], np.zeros_like(gap), here + open_there * (tucked - here))
    # In the corners the lids' radii differ too much for a sphere: there the upper lid moves straight down, and
    # not quite to the lower one.
    closed = (BLINK - 0.55 * (1.0 - open_there))[:, None]
    travel = closed * gap
    straight = closed * (points[loops[0][LOWER_SPOKES]] - points[loops[0][UPPER_SPOKES]])
    for k, (loop, follow) in enumerate(
        zip([*loops, *lining], (*LID_FOLLOW, *LID_LINING_FOLLOW), strict=True)
    ):
        vertices = loop[UPPER_SPOKES]
        here = _radius(points[vertices])
        weight = open_there[:, None]
        # Outer loops hardly move beside a corner, which stays.
        share = follow * weight ** (0.5 * (k if k < len(loops) else 2 * (k - len(loops))))
        over = low + np.sqrt(open_there) * (COVER_MM + (LID_MM if k < 4 else 0.0))
        settled = np.maximum(np.minimum(here, EYE_RADIUS + 1.9) if k < len(loops) else here, over)
        _slide(points, moved, vertices, share * travel, here + share[:, 0] * (settled - here))
        moved[vertices] = weight * moved[vertices] + (1.0 - weight) * share * straight
    return moved


def _lining(mesh: WholeMesh) -> list[Ints]:
    lining = np.flatnonzero((mesh.parts == "lid_lining") & (np.arange(len(mesh.points)) < mesh.half_count))
    return list(lining.reshape(3, EYE_SPOKES))


def _openness(gap: Array) -> Array:
    """0 in the corners of the eye, where both lids are one, and 1 where it is open by 7 mm or more."""
    return np.asarray(np.clip(np.linalg.norm(gap, axis=1) / 0.55, 0.0, 1.0))


def _radius(points: Array) -> Array:
    return np.asarray(np.linalg.norm(points - EYE_CENTRE, axis=1))


def _aim(points: Array) -> Array:
    return np.asarray((points - EYE_CENTRE) / _radius(points)[:, None])


def _slide(points: Array, moved: Array, vertices: Ints, travel: Array, radius: Array) -> None:
    """Turn points about the eyeball's centre by a change of direction, to a distance from it."""
    aim = _aim(points[vertices]) + travel
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    moved[vertices] += EYE_CENTRE + radius[:, None] * aim - points[vertices]


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
