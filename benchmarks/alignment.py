"""Bringing a prediction onto a scan: least squares of point-to-surface distance, as NoW has it.

The unknowns are scale, rotation vector and translation of the prediction; the residuals are the unsigned
distances of scan points to its surface, nothing trimmed or weighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from facefit.benchmarks.metrics import Points, Similarity, Surface, lengths


@dataclass(frozen=True)
class Refinement:
    """The best similarity found, the distances before and there, the sum of squares after each step."""

    transform: Similarity
    before: Float[np.ndarray, "points"]
    distances: Float[np.ndarray, "points"]
    trace: tuple[float, ...]


def similarity_of(x: Float[np.ndarray, "n"]) -> Similarity:
    """(s, r, t) or, metrical, (r, t) with s = 1; r is a rotation vector about the origin."""
    scale = 1.0 if len(x) == 6 else float(x[0])
    return Similarity(scale, Rotation.from_rotvec(x[-6:-3]).as_matrix(), np.array(x[-3:]))


def distances_and_jacobian(
    surface: Surface, points: Points, x: Float[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points n"]]:
    """Distance of each point to the moved surface, and its derivative by the unknowns.

    The surface stays where it is and the points are moved back, so its search tree is built once. By the
    envelope theorem the derivative holds the closest point fixed in the material of the surface: d|q - p| =
    (q - p) / |q - p| . dq with q = s R q0 + t. It is taken as zero where the distance is zero.
    """
    transform = similarity_of(x)
    rest, _ = surface.closest(transform.inverse.apply(points))
    moved = transform.apply(rest)
    gap = moved - points
    distance = lengths(gap)
    unit = np.divide(gap, distance[:, None], out=np.zeros_like(gap), where=distance[:, None] > 0)
    turned = rest @ transform.rotation.T
    columns = [] if len(x) == 6 else [(unit * turned).sum(1)]
    for k in range(3):
        derivative = rotation_derivative(x[-6:-3], transform.rotation, k)
        columns.append(transform.scale * (unit * (rest @ derivative.T)).sum(1))
    return distance, np.column_stack([*columns, unit])


def rotation_derivative(
    vector: Float[np.ndarray, "3"], rotation: Float[np.ndarray, "3 3"], axis: int
) -> Float[np.ndarray, "3 3"]:
    """d exp([v]) / d v_axis.

    Source: Gallego and Yezzi, "A compact formula for the derivative of a 3-D rotation in exponential
    coordinates", JMIV 2015, result 2.
    """
    unit = np.eye(3)[axis]
    squared = float(vector @ vector)
    if squared < 1e-16:
        return cross_matrix(unit)
    turn = vector[axis] * vector + np.cross(vector, (np.eye(3) - rotation)[:, axis])
    return np.asarray(cross_matrix(turn / squared) @ rotation)


def cross_matrix(v: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def refine(
    surface: Surface,
    points: Points,
    *,
    scale: bool,
    tolerance: float = 1e-4,
    first_radius: float = 0.1,
    most_steps: int = 200,
) -> Refinement:
    """Powell's dogleg on the sum of squared distances, correspondences renewed at every evaluation.

    The radius mixes units (scale, radians, millimetres) because the protocol does. The iteration ends when an
    accepted step lowers the sum of squares by a smaller fraction than `tolerance`; running it to convergence
    instead moves a NoW median by at most 0.002 mm.

    Source: Powell 1970, in the form of Lourakis and Argyros, "Is Levenberg-Marquardt the most efficient
    optimization algorithm for implementing bundle adjustment?", ICCV 2005; constants of the NoW evaluation.
    """
    x = np.zeros(7 if scale else 6)
    if scale:
        x[0] = 1.0
    distance, jacobian = distances_and_jacobian(surface, points, x)
    before, cost, radius, trace = distance, float(distance @ distance), first_radius, list[float]()
    for _ in range(most_steps):
        gradient = -jacobian.T @ distance
        normal = jacobian.T @ jacobian
        step = dogleg_step(normal, gradient, radius)
        length = float(np.linalg.norm(step))
        if length <= 1e-15 * np.linalg.norm(x):
            break
        trial = x + step
        # The protocol keeps the scale positive by an extra residual; refusing the step does the same.
        feasible = not scale or trial[0] > 0
        new_distance, new_jacobian = distances_and_jacobian(surface, points, trial if feasible else x)
        new_cost = float(new_distance @ new_distance) if feasible else np.inf
        predicted = float(2 * gradient @ step - step @ normal @ step)
        gain = (cost - new_cost) / predicted if predicted > 0 else -1.0
        if gain > 0.9:
            radius = max(radius, 2.5 * length)
        elif gain < 0.05:
            radius /= 4
        if gain > 0:
            finished = (cost - new_cost) / cost < tolerance
            x, cost, distance, jacobian = trial, new_cost, new_distance, new_jacobian
            trace.append(cost)
            if finished:
                break
        elif radius <= 1e-15 * np.linalg.norm(x):
            break
    return Refinement(similarity_of(x), before, distance, tuple(trace))


def dogleg_step(
    normal: Float[np.ndarray, "n n"], gradient: Float[np.ndarray, "n"], radius: float
) -> Float[np.ndarray, "n"]:
    """Steepest descent as far as it goes, then towards the Gauss-Newton point, within the radius."""
    curvature = float(gradient @ normal @ gradient)
    if curvature <= 0:
        return np.zeros_like(gradient)
    descent = float(gradient @ gradient) / curvature * gradient
    descent_length = float(np.linalg.norm(descent))
    if descent_length >= radius:
        return np.asarray(radius / descent_length * descent)
    newton = np.asarray(np.linalg.lstsq(normal, gradient, rcond=None)[0])
    if np.linalg.norm(newton) <= radius:
        return newton
    # |descent + b (newton - descent)| = radius, the root in (0, 1].
    to_newton = newton - descent
    a, b = float(to_newton @ to_newton), float(descent @ to_newton)
    c = descent_length**2 - radius**2
    root = (-b + np.sqrt(b * b - a * c)) / a
    return np.asarray(descent + root * to_newton)
