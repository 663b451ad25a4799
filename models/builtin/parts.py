"""Parts that grow out of the skin's loops: inner lids, eyeballs, nostrils, inner mouth, teeth, ears."""

import numpy as np

from facefit.models.builtin import figures
from facefit.models.builtin.halfmesh import HalfMesh, Ints
from facefit.models.builtin.plane import Array

EAR_CENTRE = np.array([73.0, -22.0, -5.0])
EYE_CENTRE = np.array(figures.EYEBALL_CENTRE)
EYE_RADIUS = figures.EYEBALL_RADIUS
# Visible iris 11.71 mm across, deviation 0.42 (Ruefer et al., Cornea 24, 2005); pupil about 3.6 mm in daylight (ours).
IRIS_ANGLE = float(np.arcsin(5.9 / EYE_RADIUS))
PUPIL_ANGLE = float(np.arcsin(1.8 / EYE_RADIUS))
EYE_SEGMENTS = 28
TEETH_COLUMNS = 22  # three to a tooth: incisors to second molar


def ear_axes() -> tuple[Array, Array, Array]:
    """Unit vectors of the left ear: up along its long axis (leaning back 15 degrees), back, and out of the
    head.
    """
    lean = np.radians(15.0)
    along = np.array([0.0, np.cos(lean), -np.sin(lean)])
    back = np.array([0.0, -np.sin(lean), -np.cos(lean)])
    return along, back, np.array([1.0, 0.0, 0.0])


def add_inner_lids(mesh: HalfMesh, margin: Ints, plane_uv: Array) -> None:
    """Lid thickness and the lining that slides on the eyeball, inside the lid opening of the skin's texture
    chart.
    """
    front = mesh.points[margin]
    aim = front - EYE_CENTRE
    aim /= np.linalg.norm(aim, axis=1, keepdims=True)
    middle = aim.mean(axis=0)
    middle /= np.linalg.norm(middle)
    loops, charts = [margin], [plane_uv]
    centre_uv = plane_uv.mean(axis=0)
    for outward, gap, shrink in ((-0.035, 0.25, 0.85), (0.18, 0.35, 0.65), (0.55, 0.3, 0.45)):
        bent = aim + outward * (aim - middle) / np.maximum(
            np.linalg.norm(aim - middle, axis=1, keepdims=True), 1e-9
        )
        bent /= np.linalg.norm(bent, axis=1, keepdims=True)
        loops.append(mesh.add_vertices(EYE_CENTRE + (EYE_RADIUS + gap) * bent, "lid_lining"))
        charts.append(centre_uv + shrink * (plane_uv - centre_uv))
    mesh.tube(loops, True, charts)


def add_eyeball(mesh: HalfMesh, island: Array) -> None:
    """Sphere with a cornea, its pole looking straight ahead; `island` is (u, v, radius) of its texture
    disc.
    """
    angles = np.concatenate(
        [
            np.linspace(0.0, PUPIL_ANGLE, 3)[1:],
            np.linspace(PUPIL_ANGLE, IRIS_ANGLE, 5)[1:],
            np.radians([32.0, 37.0, 44.0, 53.0, 64.0, 78.0, 95.0, 120.0, 150.0]),
        ]
    )
    turn = 2.0 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    cornea = 0.7 * np.maximum(1.0 - (angles / IRIS_ANGLE) ** 2, 0.0)
    loops, charts = [], []
    for angle, bulge in zip(angles, cornea, strict=True):
        around = np.stack(
            [np.cos(turn) * np.sin(angle), np.sin(turn) * np.sin(angle), np.full_like(turn, np.cos(angle))],
            axis=1,
        )
        loops.append(mesh.add_vertices(EYE_CENTRE + (EYE_RADIUS + bulge) * around, "eyeball"))
        charts.append(
            island[:2] + island[2] * (angle / np.pi) ** 0.8 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        )
    pole = mesh.add_vertices(EYE_CENTRE + np.array([[0.0, 0.0, EYE_RADIUS + 0.7]]), "eyeball")
    i = np.arange(EYE_SEGMENTS)
    fan = np.stack([loops[0][i], loops[0][(i + 1) % EYE_SEGMENTS], np.full(EYE_SEGMENTS, pole[0])], axis=1)
    mesh.add_triangles(fan, np.concatenate([loops[0], pole]), np.concatenate([charts[0], island[None, :2]]))
    mesh.tube(loops, True, charts)


def add_nostril(mesh: HalfMesh, rim: Ints, plane_uv: Array) -> None:
    """A passage that narrows upwards and back."""
    start = mesh.points[rim]
    centre = start.mean(axis=0)
    centre_uv = plane_uv.mean(axis=0)
    way = np.array([-0.05, 0.86, -0.5])
    loops, charts = [rim], [plane_uv]
    for depth, scale, shrink in ((1.3, 0.97, 0.8), (3.8, 0.85, 0.6), (7.5, 0.6, 0.4)):
        loops.append(mesh.add_vertices(centre + scale * (start - centre) + depth * way, "nostril"))
        charts.append(centre_uv + shrink * (plane_uv - centre_uv))
    end = mesh.add_vertices(centre + 9.5 * way, "nostril")
    mesh.tube(loops, True, charts, int(end[0]), centre_uv)


def add_mouth(mesh: HalfMesh, contact: Ints, island: Array) -> None:
    """Inner lips and a pouch behind them, half of it; `island` is (u, v, radius) with the midline vertical
    at u.
    """
    start = mesh.points[contact]
    count = len(contact)
    turn = np.pi * np.arange(count) / (count - 1)  # midline above, corner, midline below
    upward = np.cos(turn)
    around = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    loops, charts = [contact], [island[:2] + island[2] * around]
    lift = np.sign(upward) * np.sqrt(np.abs(upward))
    # The first rings step down and up again, so that no straight line of sight passes between closed lips.
    for back, spread, drop, narrow, shrink in (
        (1.6, 0.0, 0.5, 1.0, 0.92),
        (3.2, 0.0, -0.1, 0.995, 0.84),
        (5.4, 3.0, 0.0, 0.98, 0.72),
        (7.5, 9.0, 0.0, 1.0, 0.6),
        (16.0, 14.0, 0.0, 1.1, 0.45),
        (38.0, 16.0, 0.0, 0.95, 0.3),
    ):
        ring = start.copy()
        ring[:, 0] *= narrow
        ring[:, 1] += spread * lift - drop * np.abs(np.cos(turn)) ** 0.25
        ring[:, 2] -= back
        loops.append(mesh.add_vertices(ring, "mouth"))
        charts.append(island[:2] + shrink * island[2] * around)
    end = mesh.add_vertices(np.array([[0.0, -72.0, 48.0]]), "mouth")
    mesh.tube(loops, False, charts, int(end[0]), island[:2])


def add_teeth(mesh: HalfMesh, island: Array, upper: bool) -> None:
    """One dental arch, half of it: gum, crowns, biting edge. Arch form: half an ellipse 54 mm wide
    (ours; measured arches are of five forms: Raberin et al., AJO-DO 104, 1993).
    """
    turn = np.linspace(0.0, np.radians(74.0), TEETH_COLUMNS)
    # Slightly parted, as jaws at rest are.
    edge, sign, inset = (-71.0, 1.0, 0.0) if upper else (-72.6, -1.0, 2.6)
    between = (np.arange(TEETH_COLUMNS) % 3 == 0).astype(float)
    rows = [(10.5, -3.0), (8.6, -0.5), (4.5, 0.5), (0.6, 0.2), (0.0, -0.6), (0.3, -2.6), (8.0, -5.5)]
    loops, charts = [], []
    for k, (rise, out) in enumerate(rows):
        width, depth = 27.0 - inset + out, 35.0 - inset + out
        # Gum between the teeth reaches lower; crowns are set back and shorter where they meet.
        reach = -1.2 if k == 1 else 0.5 if k in (3, 4) else 0.0
        # Lower crowns are the shorter ones.
        height = edge + sign * ((1.0 if upper else 0.81) * rise + reach * between)
        depth = depth - (0.5 * between if k in (2, 3) else 0.0)
        arch = np.stack(
            [width * np.sin(turn), np.broadcast_to(height, turn.shape), 62.0 + depth * np.cos(turn)], axis=1
        )
        arch[0, 0] = 0.0
        loops.append(mesh.add_vertices(arch, "upper_teeth" if upper else "lower_teeth"))
        charts.append(
            island[:2] + island[2] * np.stack([turn / turn[-1], np.full_like(turn, -0.6 * k / 6.0)], axis=1)
        )
    if upper:
        loops, charts = loops[::-1], charts[::-1]
    mesh.tube(loops, False, charts)


def add_tongue(mesh: HalfMesh, island: Array) -> None:
    """Half a tongue, lying behind the lower teeth: rings from the tip back, each from the midline above
    round to below.
    """
    turn = np.linspace(0.0, np.pi, 9)
    chart = np.stack([np.sin(turn), np.cos(turn)], axis=1)
    loops, charts = [], []
    stations = (
        (90.0, 4.5, 2.2, -74.6),
        (87.0, 9.5, 3.8, -74.4),
        (82.0, 13.5, 5.0, -74.0),
        (74.0, 16.5, 6.5, -73.6),
    )
    for k, (z, width, thickness, height) in enumerate(
        (*stations, (64.0, 18.0, 8.0, -74.0), (54.0, 17.0, 9.0, -77.0))
    ):
        groove = 0.8 * np.exp(-((np.sin(turn) / 0.25) ** 2)) * (np.cos(turn) > 0)
        ring = np.stack(
            [width * np.sin(turn), height + thickness * np.cos(turn) - groove, np.full(9, z)], axis=1
        )
        ring[[0, -1], 0] = 0.0
        loops.append(mesh.add_vertices(ring, "tongue"))
        charts.append(island[:2] + island[2] * (k + 1) / 6.0 * chart)
    tip = mesh.add_vertices(np.array([[0.0, -74.8, 91.6]]), "tongue")
    i = np.arange(8)
    fan = np.stack([loops[0][i], np.full(8, tip[0]), loops[0][i + 1]], axis=1)
    mesh.add_triangles(fan, np.concatenate([loops[0], tip]), np.concatenate([charts[0], island[None, :2]]))
    mesh.tube(loops, False, charts)


def add_ear(mesh: HalfMesh, base: Ints, island: Array) -> None:
    """Auricle as rings of a polar chart: back of the ear, then its outer face from the helix into the concha.

    Length 61 mm, breadth 34 mm, protrusion about 18 mm (ours). Measured: length at about 20 years 61 mm (deviation
    3.9) in women and 65 (4.0) in men, past 70 years 72 and 78 (Niemitz et al., Anthropol. Anz. 65, 2007, abstract).
    """
    along, back, out = ear_axes()
    turn = -2.0 * np.pi * np.arange(len(base)) / len(base)  # 0 points back, 90 degrees up
    outline = ear_outline(turn)
    heart = np.array([-3.0, -2.0])
    chart = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    # The side of the head under the ear, as a plane through the base.
    relative = mesh.points[base] - EAR_CENTRE
    under = np.stack([np.ones(len(base)), relative @ back, relative @ along], axis=1)
    slope = np.linalg.lstsq(under, relative @ out, rcond=None)[0]

    def placed(flat: Array, height: Array) -> Array:
        lateral = slope[0] + flat @ slope[1:] + height
        return np.asarray(EAR_CENTRE + flat[:, :1] * back + flat[:, 1:] * along + lateral[:, None] * out)

    rim = ear_height(outline)
    behind = [placed(heart + k * (outline - heart), f * rim) for k, f in ((0.84, 0.45), (0.96, 0.80))]
    scales = (1.0, 0.965, 0.92, 0.86, 0.79, 0.71, 0.62, 0.53, 0.44, 0.35, 0.26, 0.15)
    face = []
    for k in scales:
        flat = heart + k * (outline - heart)
        face.append(placed(flat, ear_height(flat) + ear_relief(flat, outline)))
    loops, charts = [base], [island[:2] + island[2] * chart]
    rows = behind + face
    for k, row in enumerate(rows):
        loops.append(mesh.add_vertices(row, "ear"))
        charts.append(island[:2] + island[2] * (1.0 - (k + 1) / (len(rows) + 1)) * chart)
    middle = heart[None]
    end = mesh.add_vertices(placed(middle, ear_height(middle) + ear_relief(middle, outline)), "ear")
    mesh.tube(loops, True, charts, int(end[0]), island[:2])


def ear_outline(turn: Array) -> Array:
    """Outer edge of the auricle, (back, up) in millimetres: broad above, the lobule narrow below."""
    c, s = np.cos(turn), np.sin(turn)
    lobule = np.exp(-(((np.degrees(np.arctan2(s, c)) + 90.0) / 34.0) ** 2))
    across = np.where(c > 0, 20.0 * np.abs(c) ** 0.92, -13.0 * np.abs(c) ** 0.85)
    return np.stack(
        [across + 2.5 * np.clip(s, 0, 1) - 3.0 * lobule, np.where(s > 0, 31.5 * s, 29.5 * s)], axis=1
    )


def ear_height(flat: Array) -> Array:
    """How far the auricle's plane stands off the head: nothing at the cheek, most at the back and above the
    middle.
    """
    t = np.clip((flat[:, 0] + 12.0) / 30.0, 0.0, 1.0)
    return (
        0.6
        + 15.5 * t**0.9 * (1.0 + 0.004 * flat[:, 1])
        - 2.5 * np.exp(-(((flat[:, 1] + 28.0) / 9.0) ** 2)) * t
    )


def ear_relief(flat: Array, outline: Array) -> Array:
    """Helix, scapha, antihelix with its two crura, concha, tragus and antitragus: height over the auricle's
    plane.
    """
    back, up = flat.T

    def hill(centre: tuple[float, float], reach: tuple[float, float]) -> Array:
        return np.asarray(
            np.exp(-0.5 * (((back - centre[0]) / reach[0]) ** 2 + ((up - centre[1]) / reach[1]) ** 2))
        )

    def ridge(path: list[tuple[float, float]], reach: float) -> Array:
        line = np.array(path, dtype=np.float64)
        start, step = line[:-1], np.diff(line, axis=0)
        relative = flat[:, None] - start
        share = np.clip((relative * step).sum(-1) / (step * step).sum(-1), 0.0, 1.0)
        distance = np.linalg.norm(relative - share[..., None] * step, axis=2).min(axis=1)
        return np.asarray(np.exp(-0.5 * (distance / reach) ** 2))

    edge = np.linalg.norm(flat[:, None] - outline[None], axis=2).min(axis=1)
    rolled = np.clip((up + 16.0) / 10.0, 0.0, 1.0) * np.clip((back + 9.0) / 6.0, 0.0, 1.0)
    helix = np.exp(-0.5 * ((edge - 1.8) / 1.7) ** 2) * rolled
    crus = ridge([(-12.0, 8.0), (-6.0, 4.0), (-1.0, 3.0)], 1.9)
    antihelix = ridge([(1.0, -15.0), (6.5, -10.0), (9.0, -2.0), (8.5, 6.0), (6.0, 12.0)], 2.5)
    crura = np.maximum(
        ridge([(6.0, 12.0), (6.0, 20.0)], 2.2), ridge([(6.0, 12.0), (-2.0, 14.5), (-8.0, 14.0)], 2.0)
    )
    concha = np.maximum(hill((-2.5, -5.0), (6.0, 6.5)), 0.75 * hill((-2.0, 7.5), (5.5, 3.5)))
    return np.asarray(
        3.2 * helix
        + 2.0 * crus
        + 3.4 * np.maximum(antihelix, 0.8 * crura)
        - 8.5 * concha
        + 5.0 * hill((-10.0, -4.5), (2.4, 4.0))
        + 2.6 * hill((-2.0, -15.5), (3.0, 2.6))
        - 1.6 * hill((14.0, 4.0), (2.6, 14.0))
    )
