"""The same jobs done by others: visibility by Embree, derivatives by autodiff, landmarks by scipy."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facefit.benchmarks.metrics import open3d
from facefit.benchmarks.run import Row
from facefit.benchmarks.timing import timed

VISIBILITY_PX = 512
PHOTOMETRIC_PX, SAMPLES = 128, 1000


def comparators(photo: Path, model: Any) -> list[Row]:
    import facefit as ff

    observation = ff.Observation.from_file(photo)
    scene = ff.initialize(observation, model)
    return [
        *visibility(scene, model),
        *derivatives(observation, scene, model),
        *landmark_problem(observation, scene, model),
    ]


def with_times(ours: Row, *others: Row) -> list[Row]:
    return [ours, *({**other, "times": other["ms"] / ours["ms"]} for other in others)]


def visibility(scene: Any, model: Any) -> list[Row]:
    """Which triangle each of 512 x 512 pixels sees: our z-buffer against Embree's rays."""
    from facefit.rendering.rasterize import rasterize

    n = VISIBILITY_PX
    in_camera = scene.pose.apply(scene.shape(model))
    scale = torch.tensor([n / scene.camera.width, n / scene.camera.height])
    pixels, depth = scene.camera.project(in_camera) * scale, in_camera[:, 2]
    ours = timed(lambda: rasterize(pixels, depth, model.triangles, n, n))
    seen = rasterize(pixels, depth, model.triangles, n, n).triangle.numpy()
    core, geometry = open3d().core, open3d().t.geometry
    vertices = np.ascontiguousarray(in_camera.numpy(), np.float32)
    triangles = np.ascontiguousarray(model.triangles.numpy(), np.uint32)
    rows, columns = np.mgrid[:n, :n] + 0.5
    camera = scene.camera
    x = (columns / float(scale[0]) - float(camera.principal_point[0])) / float(camera.focal_px)
    y = (rows / float(scale[1]) - float(camera.principal_point[1])) / float(camera.focal_px)
    rays = np.concatenate([np.zeros((n, n, 3)), np.stack([x, y, np.ones_like(x)], -1)], -1)
    sent = core.Tensor(rays.astype(np.float32))

    def scene_of_triangles() -> Any:
        built = geometry.RaycastingScene()
        built.add_triangles(core.Tensor(vertices), core.Tensor(triangles))
        return built

    built = scene_of_triangles()
    hit = built.cast_rays(sent)["primitive_ids"].numpy().astype(np.int64)
    hit[hit == np.iinfo(np.uint32).max] = -1
    both = (seen >= 0) & (hit >= 0)
    agree = 100 * float((seen == hit)[both].mean())
    return with_times(
        {"what": f"visibility {n} x {n}: facefit", **ours},
        {"what": "... open3d (Embree), tree built before", **timed(lambda: built.cast_rays(sent))},
        {
            "what": "... open3d (Embree), tree built each time",
            **timed(lambda: scene_of_triangles().cast_rays(sent)),
            "note": f"same triangle in {agree:.1f} % of pixels",
        },
    )


def derivatives(observation: Any, scene: Any, model: Any) -> list[Row]:
    """Normal equations of the landmark and the photometric term: written by hand against torch.func."""
    from facefit.fitting.linear import with_ambient_level
    from facefit.fitting.pyramid import face_pyramid
    from facefit.fitting.residual import normal_equations
    from facefit.fitting.residuals.landmarks import landmark_residual
    from facefit.fitting.residuals.photometric import PhotometricResidual
    from facefit.fitting.stages import ALL
    from facefit.fitting.surface_samples import surface_samples

    (level,) = face_pyramid(observation, [PHOTOMETRIC_PX])
    scene = with_ambient_level(scene, 1.0)
    terms = (
        landmark_residual(observation, model),
        PhotometricResidual(model, surface_samples(model, SAMPLES), level),
    )
    by_autodiff = normal_equations.dispatch(object)
    rows: list[Row] = []
    for term in (term for term in terms if term is not None):
        frozen = term.freeze(scene)
        unknowns = len(scene.pack(ALL))
        fast = timed(partial(normal_equations, frozen, scene, ALL))
        slow = timed(partial(by_autodiff, frozen, scene, ALL), repeats=3, budget_s=8)
        rows += with_times(
            {"what": f"normal equations, {term.name}, {unknowns} unknowns: facefit", **fast},
            {"what": "... torch.func.jacfwd", **slow},
        )
    return rows


def landmark_problem(observation: Any, scene: Any, model: Any) -> list[Row]:
    """Pose, focal length, identity, expression from landmarks and priors: our solver against scipy's."""
    from scipy.optimize import least_squares

    from facefit.fitting.gauss_newton import GaussNewton
    from facefit.fitting.residuals.landmarks import landmark_residual
    from facefit.fitting.residuals.priors import CoefficientPrior, FocalPrior
    from facefit.fitting.stages import SHAPE as free

    focal = FocalPrior(math.log(float(observation.camera.focal_px)), 0.3)
    terms = (
        landmark_residual(observation, model),
        CoefficientPrior("identity"),
        CoefficientPrior("expression"),
        focal,
    )
    frozen = [term.freeze(scene) for term in terms if term is not None]
    solver = GaussNewton(steps=30, tolerance=1e-4)

    def value(x: np.ndarray) -> np.ndarray:
        candidate = scene.with_packed(free, torch.from_numpy(x).float())
        return np.concatenate([term(candidate).double().numpy() for term in frozen])

    def derivative(x: np.ndarray) -> np.ndarray:
        def rows(y: torch.Tensor) -> torch.Tensor:
            candidate = scene.with_packed(free, y)
            return torch.cat([term(candidate) for term in frozen])

        return np.asarray(torch.func.jacfwd(rows)(torch.from_numpy(x).float()).double().numpy())

    start = scene.pack(free).double().numpy()

    def with_scipy() -> Any:
        with torch.no_grad():
            return least_squares(value, start, derivative, x_scale="jac", ftol=1e-4, max_nfev=30)

    def with_ours() -> Any:
        with torch.no_grad():
            return solver.solve(frozen, scene, free)

    def apart(x: np.ndarray) -> str:
        """Mean distance of landmarks: both solved the same problem if it is the same (robust weights are
        renewed by ours, and held by scipy's)."""
        fitted = scene.with_packed(free, torch.from_numpy(x).float())
        points = fitted.camera.project(fitted.pose.apply(model.landmark_points(fitted.shape(model)))).numpy()
        seen = observation.landmarks[np.asarray(model.topology.landmarks.numbers)]
        return f"landmarks {float(np.nanmean(np.linalg.norm(points - seen, axis=1))):.2f} px apart"

    ours = {"what": f"landmark problem, {len(start)} unknowns: facefit", **timed(with_ours)}
    ours["note"] = apart(with_ours()[0].pack(free).double().numpy())
    scipy = {"what": "... scipy least_squares (trf), autodiff Jacobian"}
    scipy |= {**timed(with_scipy, repeats=3, budget_s=8), "note": apart(with_scipy().x)}
    return with_times(ours, scipy)
