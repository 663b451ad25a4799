"""Where eyes look and what colour they have, by what is seen between the lids."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float64, Int64

# A turn of the gaze (slope) small enough to be its derivative.
STEP = 1e-3


@numba.njit(cache=True, nogil=True, error_model="numpy")
def eyes_kernel(
    colours: Float64[np.ndarray, "rings channels_3"],
    slopes: Float64[np.ndarray, "rings channels_3"],
    ring: float,
    eye: Int64[np.ndarray, "n"],
    aim: Float64[np.ndarray, "n 3"],
    light: Float64[np.ndarray, "n 3"],
    height: Float64[np.ndarray, "n"],
    root: Float64[np.ndarray, "n 3"],
    weight: Float64[np.ndarray, "unknowns"],
    worth: float,
    sigma: float,
    tolerance: float,
    wide: float,
    darkest: float,
    turning: bool,
    rounds: int,
    unknown: Float64[np.ndarray, "starts unknowns"],
    cost: Float64[np.ndarray, "starts"],
    precision: Float64[np.ndarray, "starts unknowns unknowns"],
) -> None:
    """Robust Gauss-Newton from each start over how much of each mode, the lids' shadow, and, if `turning`, the gaze.

    An eyeball is round: `colours` (linear: the mean's, then what each mode adds, three to a channel) and `slopes` are
    by the distance from the axis of gaze, in steps of `ring` of its radius. `aim` are the unit vectors from the eyes'
    centres to what the texels show, in the head; `height` is how far up between the lids. The gaze is left and up per
    forward, then how much each eye (0 left, 1 right) turns inwards besides. `root` are roots of linear colours, each
    texel's strays by `sigma` and counts `worth`. A deviation beyond `tolerance` counts less, at first beyond 1 + `wide`
    times as much. `weight` is the precision of the unknowns' prior about 0. `unknown` ends at the answers.
    """
    width, rings = colours.shape[1], len(colours)
    modes = width // 3 - 1
    free = modes + 4 if turning else modes + 1
    gaze, place = np.empty((2, 3, 3)), np.empty((3, 2))
    shown, steep, row = np.empty(width), np.empty(width), np.empty(free)
    gradient, matrix = np.empty(free), np.empty((free, free))
    for start in range(len(unknown)):
        x = unknown[start]
        for number in range(rounds + 1):
            scale = tolerance * (1.0 + wide * max(0.0, 1.0 - number / max(rounds - 1.0, 1.0)))
            for which in range(2):
                for step in range(3):
                    left = x[modes + 1] + (x[modes + 3] if which == 1 else -x[modes + 3])
                    left, up = (
                        left + (STEP if step == 1 else 0.0),
                        x[modes + 2] + (STEP if step == 2 else 0.0),
                    )
                    forward = 1.0 / math.sqrt(1.0 + left * left + up * up)
                    gaze[which, step, 0], gaze[which, step, 1] = left * forward, up * forward
                    gaze[which, step, 2] = forward
            gradient[:], matrix[:], total = 0.0, 0.0, 0.0
            for k in range(len(eye)):
                which = eye[k]
                for step in range(3 if turning else 1):
                    # The smallest turn that takes the gaze to straight ahead.
                    g = gaze[which, step]
                    share = (g[0] * aim[k, 0] + g[1] * aim[k, 1] + (g[2] + 1.0) * aim[k, 2]) / (1.0 + g[2])
                    place[step, 0], place[step, 1] = aim[k, 0] - g[0] * share, aim[k, 1] - g[1] * share
                away = math.sqrt(place[0, 0] ** 2 + place[0, 1] ** 2)
                at = min(away / ring, rings - 1.001)
                inner = int(at)
                part = at - inner
                for f in range(width):
                    shown[f] = (1.0 - part) * colours[inner, f] + part * colours[inner + 1, f]
                if turning:
                    for f in range(width):
                        steep[f] = (1.0 - part) * slopes[inner, f] + part * slopes[inner + 1, f]
                shade, squared = max(1.0 + x[modes] * height[k], 0.1), 0.0
                for q in range(3):
                    bare = shown[q]
                    for c in range(modes):
                        bare += x[c] * shown[3 * c + 3 + q]
                    gap = (root[k, q] - math.sqrt(max(bare * shade * light[k, q], darkest))) / sigma
                    squared += gap * gap
                squared /= 3.0 * scale * scale
                total += squared / (1.0 + squared)
                counts = worth / (1.0 + squared) ** 2
                for q in range(3):
                    bare, change = shown[q], steep[q]
                    for c in range(modes):
                        bare += x[c] * shown[3 * c + 3 + q]
                        change += x[c] * steep[3 * c + 3 + q]
                    found = math.sqrt(max(bare * shade * light[k, q], darkest))
                    by_bare = 0.5 * shade * light[k, q] / (found * sigma)
                    for c in range(modes):
                        row[c] = by_bare * shown[3 * c + 3 + q]
                    row[modes] = by_bare * bare * height[k] / shade
                    if turning:
                        for step in range(1, 3):
                            outwards = (
                                place[0, 0] * (place[step, 0] - place[0, 0])
                                + place[0, 1] * (place[step, 1] - place[0, 1])
                            ) / (STEP * max(away, 1e-9))
                            row[modes + step] = by_bare * change * outwards
                        row[modes + 3] = row[modes + 1] if which == 1 else -row[modes + 1]
                    gap = counts * (root[k, q] - found) / sigma
                    for a in range(free):
                        gradient[a] += gap * row[a]
                        for b in range(a + 1):
                            matrix[a, b] += counts * row[a] * row[b]
            cost[start] = 1.5 * worth * tolerance * tolerance * total
            for a in range(len(x)):
                cost[start] += 0.5 * weight[a] * x[a] * x[a]
            for a in range(free):
                gradient[a] -= weight[a] * x[a]
                matrix[a, a] += weight[a]
                for b in range(a):
                    matrix[b, a] = matrix[a, b]
            if number < rounds:
                x[:free] += np.linalg.solve(matrix, gradient)
        precision[start] = np.diag(weight)
        precision[start, :free, :free] = matrix
