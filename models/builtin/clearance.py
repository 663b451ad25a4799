"""Parts of the drawn head moved a little apart, so that at rest no triangle of it cuts another.

The parts are drawn as the figures say, and their triangles chosen on the drawing; this comes after, and so
leaves the mesh's triangles as they are.
"""

import numpy as np

from facefit.models.builtin.halfmesh import HalfMesh, Ints
from facefit.models.builtin.layout import EAR_SPOKES, EYE_SPOKES
from facefit.models.builtin.parts import EAR_CENTRE, EYE_CENTRE, EYE_RADIUS, ear_axes

# From the lid margin inwards: room for the cornea, wherever it turns.
LINING_GAP_MM = (0.55, 0.62, 0.62)
CORNEA_SHARE = 0.55
# The tongue lies behind the lower teeth, above the floor of the mouth.
TONGUE_TIP_MM, TONGUE_SCALE = np.array([0.0, -74.6, 85.8]), np.array([0.82, 0.78, 0.5])


def clear(mesh: HalfMesh, lid_margin: Ints) -> None:
    """Move lid linings, corneas, tongue and the front of the auricles of the half head."""
    parts, points = np.array(mesh.parts), mesh.points
    lining = np.flatnonzero(parts == "lid_lining").reshape(len(LINING_GAP_MM), EYE_SPOKES)
    for k, (ring, gap) in enumerate(zip(lining, LINING_GAP_MM, strict=True)):
        ray = points[lid_margin if k == 0 else ring] - EYE_CENTRE
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        points[ring] = EYE_CENTRE + (EYE_RADIUS + gap) * ray
    eyeball = parts == "eyeball"
    ray = points[eyeball] - EYE_CENTRE
    radius = np.linalg.norm(ray, axis=1, keepdims=True)
    points[eyeball] = EYE_CENTRE + ray / radius * (EYE_RADIUS + CORNEA_SHARE * (radius - EYE_RADIUS))
    tongue = parts == "tongue"
    drawn_tip = np.array([0.0, -74.8, 91.6])
    points[tongue] = TONGUE_TIP_MM + TONGUE_SCALE * (points[tongue] - drawn_tip)
    # The concha's hollow reaches under the cheek where the auricle begins: lifted there, its back less.
    ear = np.flatnonzero(parts == "ear")
    along, back, out = ear_axes()
    flat = points[ear] - EAR_CENTRE
    lift = 2.3 * np.exp(-0.5 * (((flat @ back + 12.0) / 4.0) ** 2 + ((flat @ along + 11.0) / 6.0) ** 2))
    lift[: 2 * EAR_SPOKES] *= np.repeat([0.4, 0.7], EAR_SPOKES)
    points[ear] += lift[:, None] * out
