"""`facefit bench recovery`: faces fitted to their own renderings, where nothing stands between photograph and model.

Three lines. STANDARD on a noisy picture in an unknown light, with an unknown lens: it believes the samples no more than
photographs deserve. The same with each sample believed, as a picture that the model can explain deserves. And least
squares without any prior on a picture without noise: what image derivatives, normals and samples are worth by
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from facefit.benchmarks.estimate import model_facts, model_label, model_named
from facefit.benchmarks.growth import drawn
from facefit.benchmarks.metrics import correspondence_error
from facefit.benchmarks.pictures import SIZE_PX
from facefit.benchmarks.recipes import recipe
from facefit.benchmarks.report import Report
from facefit.benchmarks.run import Arrays, Row, Run, run_items
from facefit.benchmarks.synthetic import true_pixels

NOISE = 0.01
# Behind the head.
GREY = 0.5
# From coarse to fine: at 256 pixels alone some fits creep along a valley of light and shape.
BELIEVED_SAMPLES, BELIEVED_PX, BELIEVED_STEPS = 8000, (128, 256), 20
# Least squares: first a blurred picture from afar, then every pixel.
FIRST_PX, FIRST_SAMPLES, SAMPLES, STEPS = 256, 8000, 32000, 40
FIRST_SIGMA, SIGMA = 0.002, 0.0001
# So many that the landmarks, exact though they are, do not count.
INDEPENDENT = 2e5
EXACT_UNKNOWNS = ("rotation", "translation", "identity", "expression", "albedo", "lighting")

CASES = {
    "standard": f"noise {NOISE}; light, albedo, focal length unknown: STANDARD",
    "believed": "the same, each sample believed",
    "exact": "no noise, focal length known, no prior: least squares",
}


@dataclass(frozen=True)
class RecoveryWork:
    """Face number N (the key) of the model's own priors, from one picture."""

    model: str

    def __call__(self, key: str) -> tuple[Row, Arrays]:
        import facefit as ff

        model = model_named(self.model)
        truth = drawn(model, int(key))
        color, landmarks = rendering(truth, model), true_pixels(truth, model)
        # A jaw point of the mesh is not where the silhouette is.
        landmarks[:17] = np.nan
        noise = np.random.default_rng(int(key)).normal(size=color.shape) * NOISE
        noisy = ff.Observation(
            eight_bits(color + noise), ff.Camera.from_field_of_view(SIZE_PX, SIZE_PX), landmarks
        )
        clean = ff.Observation(eight_bits(color), truth.camera, landmarks, focal_sigma=0.0)
        with torch.no_grad():
            scenes = {
                "standard": ff.fit(noisy, model).scene,
                "believed": ff.fit(noisy, model, stages=believing()).scene,
                "exact": least_squares(ff.fit(clean, model).scene, clean, color, model),
            }
        inside = np.zeros(model.n_vertices, dtype=bool)
        inside[np.asarray(model.topology.region("face"), np.int64)] = True

        def error(shape: torch.Tensor) -> Float[np.ndarray, "face"]:
            wanted = truth.neutral_shape(model).double().numpy()
            return correspondence_error(shape.double().numpy(), wanted, inside)

        row: Row = {"yaw": truth.pose.yaw_pitch_roll_deg()[0], "mean face mm": median(error(model.mean))}
        row |= {f"{case} mm": median(error(scene.neutral_shape(model))) for case, scene in scenes.items()}
        return row, {}


def rendering(scene: Any, model: Any) -> Float[np.ndarray, "height width 3"]:
    """The scene before grey in sRGB, four samples a pixel, not rounded to eight bits."""
    import facefit as ff

    width, height = scene.camera.width, scene.camera.height
    with torch.no_grad():
        picture = ff.render(scene, model, 2 * width, 2 * height)
    color = torch.where(picture.covered[..., None], picture.color, torch.full_like(picture.color, GREY))
    mean: Float[np.ndarray, "height width 3"] = color.reshape(height, 2, width, 2, 3).mean((1, 3)).numpy()
    return mean


def eight_bits(color: Float[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    return (255 * color.clip(0, 1) + 0.5).astype(np.uint8)


def believing() -> tuple[Any, ...]:
    """STANDARD whose samples all count when the shape is fitted."""
    from facefit.fitting.gauss_newton import GaussNewton

    found: list[Any] = []
    for stage in recipe("standard"):
        if not (stage.photometric_px and "identity" in stage.free):
            found.append(stage)
            continue
        found += [
            replace(
                stage,
                name=f"{stage.name} {size}",
                photometric_px=size,
                samples=BELIEVED_SAMPLES,
                # Its three channels, too.
                independent=3.0 * BELIEVED_SAMPLES,
                solver=GaussNewton(steps=BELIEVED_STEPS, tolerance=1e-4),
            )
            for size in BELIEVED_PX
        ]
    return tuple(found)


def least_squares(
    scene: Any, observation: Any, color: Float[np.ndarray, "height width 3"], model: Any
) -> Any:
    """From a fit of the eight-bit `observation` to the minimum over pixels that were never rounded (`color`)."""
    from facefit.fitting.gauss_newton import GaussNewton
    from facefit.fitting.pyramid import face_pyramid
    from facefit.fitting.residuals.landmarks import landmark_residual
    from facefit.fitting.residuals.photometric import PhotometricResidual
    from facefit.fitting.surface_samples import surface_samples

    first, finest = face_pyramid(observation, [FIRST_PX, SIZE_PX])
    left, top = finest.origin.astype(int)
    rows, columns = finest.usable.shape
    image = finest.image.copy()
    shown = color[top : top + rows, left : left + columns]
    # Where the square goes beyond the photograph it is filled, and not used.
    image[finest.usable] = np.pad(shown, [(0, rows - len(shown)), (0, columns - shown.shape[1]), (0, 0)])[
        finest.usable
    ]
    finest = replace(finest, image=interpolating(image))
    solver = GaussNewton(steps=STEPS, tolerance=1e-6, refusals=10)
    for level, samples, sigma in ((first, FIRST_SAMPLES, FIRST_SIGMA), (finest, SAMPLES, SIGMA)):
        term = PhotometricResidual(
            model, surface_samples(model, samples), level, INDEPENDENT, sigma_floor=sigma
        )
        terms = [t for t in (landmark_residual(observation, model), term) if t is not None]
        scene, _ = solver.solve(terms, scene, EXACT_UNKNOWNS)
    return scene


def interpolating(image: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
    """The coefficients of the cubic spline through the pixels: as these, an image is read without being smoothed."""
    from scipy.ndimage import spline_filter

    channels = [spline_filter(image[..., k].astype(np.float64), 3, mode="mirror") for k in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def median(error: Float[np.ndarray, "n"]) -> float:
    return float(np.median(error))


COLUMNS = {
    "case": "own renderings", "faces": "n", "true mm": "true mm", "worst mm": "worst face",
    "mean face mm": "mean face", "share": "share of the mean face's error",
}  # fmt: skip


def evaluate_recovery(out: Path, *, model: str, count: int = 12, jobs: int = 1) -> Report:
    settings = {"benchmark": "recovery", **model_facts(model)}
    keys = [f"{seed:05d}" for seed in range(count)]
    rows = run_items(Run(out, settings), keys, RecoveryWork(model), jobs=jobs, label="own renderings")
    good = [row for row in rows if row["error"] is None]
    headline = f"Own renderings of {model_label(model)}: median over faces of the true error's median, mm."
    report = Report(headline, settings, rows, [line(case, good) for case in CASES], COLUMNS)
    report.write(out)
    return report


def line(case: str, rows: Sequence[Row]) -> Row:
    found: Row = {"case": CASES[case], "faces": len(rows)}
    if rows:
        errors = np.array([row[f"{case} mm"] for row in rows])
        mean = np.array([row["mean face mm"] for row in rows])
        found |= {"true mm": float(np.median(errors)), "worst mm": float(errors.max())}
        found |= {"mean face mm": float(np.median(mean)), "share": float(np.median(errors / mean))}
    return found
