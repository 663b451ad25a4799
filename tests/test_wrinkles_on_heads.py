"""Detail of one person's photographs, on a path-traced head whose face under the expression is known."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import facefit as ff
from facefit.benchmarks.estimate import as_prediction
from facefit.benchmarks.heads_truth import manifest
from facefit.benchmarks.meshfiles import read_mesh
from facefit.benchmarks.now import IBUG_OF_NOW, Dataset, Image, Scan, measure
from facefit.fitting.detail.skin import bare_skin
from facefit.fitting.joint.animation import animatable, height_mm, plain
from facefit.fitting.joint.recipe import with_detail
from facefit.fitting.joint.wrinkles import swapped
from facefit.fitting.recipe import believed_pixels
from facefit.fitting.result import FitResult
from facefit.fitting.stages import DETAILED
from facefit.mesh import vertex_normals
from facefit.models import load_model
from facefit.models.scene import Scene
from facefit.rendering.shade import srgb_to_linear

pytestmark = pytest.mark.slow

# At rest, and with a broad grin, a wrinkled nose and raised brows; of another topology than any model here.
SUBJECT, LOOKS = "H08", ("multiview_neutral", "multiview_expressions")
# In pixels: what is longer than the second light and pigment explain, what is finer than the first is noise.
FINE_PX, LONG_PX = 1.5, 12.0
# What is darker or brighter by more (logarithm) is no relief.
MOST = 0.3


@dataclass(frozen=True)
class Head:
    """Photographs fitted as one person with detail; and the same scenes with each one's own displacements."""

    together: list[FitResult]
    own: list[FitResult]
    data: Path
    images: list[Image]

    def swapped(self, of: int, onto: int) -> Scene:
        """Photograph `onto`'s scene with the displacements of photograph `of`, its expression changed to that one's."""
        maps = np.stack([height_mm(result.scene, result.model) for result in self.own])
        looks = np.stack([result.scene.expression.double().numpy() for result in self.own])
        return self.displaced(swapped(animatable(self.own), maps, looks, of, onto), onto)

    def displaced(self, height: np.ndarray, index: int) -> Scene:
        scene, model = plain(self.own[index].scene), self.own[index].model
        normals = vertex_normals(scene.shape(model), model.triangles)
        return replace(scene, offsets=torch.from_numpy(height).to(normals)[:, None] * normals)


@pytest.fixture(scope="module")
def head() -> Head:
    data = Path(os.environ.get("FACEFIT_TEST_DATA", "")) / "bench"
    if not os.environ.get("FACEFIT_TEST_DATA") or not data.is_dir():
        pytest.skip("FACEFIT_TEST_DATA names no folder with bench/: this needs heads with ground truth")
    dataset, model = Dataset(data), load_model("builtin")
    images = [i for i in dataset.images() if i.subject == SUBJECT and i.challenge in LOOKS]
    together = list(
        ff.reconstruct_together([dataset.photograph(i) for i in images], model, stages=DETAILED).results
    )
    assert len(together) == 2
    smooth = [
        replace(result, model=model, scene=replace(plain(result.scene), albedo_offsets=None), detail=None)
        for result in together
    ]
    # A photograph alone keeps what it shows.
    own = [with_detail(DETAILED[-1], [result])[0] for result in smooth]
    return Head(together, own, data, images)


def unexplained(result: FitResult, scene: Scene) -> float:
    """Root mean square of what a rendering leaves of a photograph's relief.

    That is the log brightness of bare skin between `FINE_PX` and `LONG_PX`.
    """
    model = result.model
    with torch.no_grad():
        picture = ff.render(replace(scene, albedo_offsets=None), model)
        photo = srgb_to_linear(torch.from_numpy(result.observation.image.copy()).float() / 255)
        rendered = srgb_to_linear(picture.color)
    apart = (torch.log(photo + 0.01) - torch.log(rendered + 0.01))[..., :2].mean(2).double().numpy()
    corners = bare_skin(model)[np.asarray(model.topology.triangles)]
    where = np.append(corners.min(1) > 0.5, False)[picture.triangle.numpy()]
    believed = believed_pixels(result.observation, result.skin)
    assert believed is not None
    where &= believed
    left = (mean_around(apart, where, FINE_PX) - mean_around(apart, where, LONG_PX))[where]
    return float(np.sqrt((left[np.abs(left) < MOST] ** 2).mean()))


def mean_around(values: np.ndarray, where: np.ndarray, width_px: float) -> np.ndarray:
    weight = gaussian_filter(where.astype(float), width_px)
    mean: np.ndarray = gaussian_filter(np.where(where, values, 0.0), width_px) / np.maximum(weight, 1e-6)
    return mean


def posed_error_mm(scene: Scene, result: FitResult, head: Head, image: Image) -> float:
    """Mean distance of the true posed surface to a scene's, aligned as NoW has it."""
    mesh = read_mesh(head.data / "scans_posed" / SUBJECT / f"{image.name}.ply")
    truth = manifest(head.data)[image.key]
    in_camera = mesh.vertices @ np.array(truth["R"]).T + np.array(truth["t"])
    pixels = in_camera @ np.array(truth["K"]).T
    pixels = pixels[:, :2] / pixels[:, 2:]
    points = []
    for wanted in np.array(truth["landmarks68_px"])[list(IBUG_OF_NOW)]:
        distance = np.linalg.norm(pixels - wanted, axis=1)
        # Of the points in this direction the nearest is seen.
        ahead = np.flatnonzero(distance < distance.min() + 4)
        points.append(mesh.vertices[ahead[in_camera[ahead, 2].argmin()]])
    found = measure(
        as_prediction(result.model, scene.shape(result.model)), Scan(mesh, np.array(points)), threads=1
    )
    return float(found.distances.mean())


def test_animated_detail_explains_each_photograph_nearly_as_well_as_its_own(head: Head) -> None:
    """And better than what stays does alone."""
    stays = animatable(head.own).static_mm
    for index, (animated, own) in enumerate(zip(head.together, head.own, strict=True)):
        kept = unexplained(own, own.scene)
        assert kept < 0.88 * unexplained(own, plain(own.scene))
        assert unexplained(animated, animated.scene) < 1.1 * kept
        assert unexplained(animated, animated.scene) < 0.98 * unexplained(own, head.displaced(stays, index))


def test_detail_swapped_between_photographs_still_explains_both(head: Head) -> None:
    """Nearly as well as each one's own, and better than a copy, which takes the other expression's folds along."""
    maps = [height_mm(result.scene, result.model) for result in head.own]
    for of, onto in ((0, 1), (1, 0)):
        own = head.own[onto]
        nothing, kept = unexplained(own, plain(own.scene)), unexplained(own, own.scene)
        moved = unexplained(own, head.swapped(of, onto))
        assert moved < 1.1 * kept
        assert nothing - moved > 0.5 * (nothing - kept)
        assert moved < 0.98 * unexplained(own, head.displaced(maps[of], onto))


def test_animated_detail_does_not_bend_the_posed_face(head: Head) -> None:
    grin, image = head.together[1], head.images[1]
    smooth = plain(head.own[1].scene)
    assert float((grin.scene.shape(grin.model) - smooth.shape(head.own[1].model)).norm(dim=1).max()) > 0.3
    error = posed_error_mm(smooth, head.own[1], head, image)
    assert error < 2
    assert posed_error_mm(grin.scene, grin, head, image) < 1.01 * error


def test_telling_apart_adds_nothing_to_what_was_seen(head: Head) -> None:
    """What stays and what moves together are no larger than the photograph's own displacements."""
    detail, face = animatable(head.own), head.own[0].model.topology.region("face")
    for own in head.own:
        seen = height_mm(own.scene, own.model)[face]
        assert np.linalg.norm(detail.at(own.scene.expression.double().numpy())[face]) < np.linalg.norm(seen)


def test_without_expression_only_what_stays_is_left(head: Head) -> None:
    smooth = plain(head.own[0].scene).neutral_shape(head.own[0].model)
    normals = vertex_normals(smooth, head.own[0].model.triangles)
    stays = torch.from_numpy(animatable(head.own).static_mm).to(normals)[:, None] * normals
    for result in head.together:
        calm = replace(result.scene, expression=torch.zeros_like(result.scene.expression))
        torch.testing.assert_close(calm.shape(result.model) - smooth, stays, atol=1e-4, rtol=0)
    assert float(stays.norm(dim=1).max()) > 0.2
