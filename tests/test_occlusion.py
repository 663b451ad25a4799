"""What hides a face is found, and nothing else: neither dark skin nor lips nor brows."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from facefit.benchmarks.pictures import draw_lighting
from facefit.fitting.inliers import HIDDEN_SIGMA, SkinMask
from facefit.fitting.occlusion import skin_mask
from facefit.fitting.pyramid import PyramidLevel, face_pyramid
from facefit.fitting.recipe import fit
from facefit.models import load_model
from facefit.models.camera import Camera, Pose
from facefit.models.face_model import LinearFaceModel
from facefit.models.scene import Scene
from facefit.observation import Observation
from facefit.picture import render

SIZE = 256
# Mean reflectance of the face, linear: about the Fitzpatrick types VI, IV and I.
TONES = {"dark": 0.06, "medium": 0.22, "light": 0.5}


@lru_cache(maxsize=1)
def model() -> LinearFaceModel:
    return load_model("builtin")


@lru_cache(maxsize=8)
def portrait(tone: str, seed: int = 0) -> tuple[Observation, Scene]:
    """A person with skin of a tone in a light from somewhere before them, in front of grey."""
    head, random = model(), np.random.default_rng(seed)
    face = torch.from_numpy(np.asarray(head.topology.region("face"), np.int64))
    # The albedo modes' shortest way to the tone.
    effect = head.albedo_basis[:, face].mean((1, 2))
    missing = TONES[tone] - float(head.albedo_mean[face].mean())
    albedo = effect * missing / float(effect @ effect)
    camera = Camera.from_field_of_view(SIZE, SIZE, 25.0)
    pose = Pose.from_camera_from_model(Pose.frontal().camera_from_model, torch.tensor([0.0, 0.0, 750.0]))
    scene = Scene(
        torch.from_numpy(random.normal(size=head.n_identity)).float(),
        torch.zeros(head.n_expression),
        albedo,
        pose,
        camera,
        draw_lighting(random),
    )
    with torch.no_grad():
        picture = render(scene, head)
        bright = float(picture.color[picture.covered].mean())
        light = replace(scene.lighting, coefficients=scene.lighting.coefficients * (0.45 / bright) ** 2.2)
        scene = scene.with_lighting(light)
        picture = render(scene, head)
        pixels = scene.camera.project(scene.pose.apply(head.landmark_points(scene.shape(head)))).numpy()
    color = torch.where(picture.covered[..., None], picture.color, torch.tensor([0.55, 0.57, 0.6]))
    image = (color.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
    return Observation(image, camera).with_landmarks(pixels), scene


def mask_of(observation: Observation, scene: Scene) -> tuple[SkinMask, PyramidLevel]:
    level = face_pyramid(observation, [64])[0]
    with torch.no_grad():
        return skin_mask(observation, scene, model(), level), level


def painted(observation: Observation, color: tuple[int, int, int]) -> tuple[Observation, np.ndarray]:
    """A cloth over mouth and chin that reaches beyond the face."""
    assert observation.landmarks is not None
    hidden = np.zeros(observation.image.shape[:2], bool)
    hidden[int(observation.landmarks[33, 1]) + 4 :] = True
    image = observation.image.copy()
    grain = np.random.default_rng(0).integers(-12, 13, (*hidden.shape, 1))
    image[hidden] = (np.array(color) + grain).clip(0, 255)[hidden]
    return replace(observation, image=image), hidden


def in_half_shadow(observation: Observation) -> Observation:
    """A lamp's shadow falls over one half of the face: three tenths of the light are left there."""
    assert observation.landmarks is not None
    column = np.arange(SIZE) - observation.landmarks[30, 0]
    left = 1 - 0.7 / (1 + np.exp(-column / 6.0))
    image = 255 * ((observation.image / 255.0) ** 2.2 * left[None, :, None]) ** (1 / 2.2)
    return replace(observation, image=image.round().astype(np.uint8))


def in_sunglasses(observation: Observation, color: tuple[int, int, int]) -> tuple[Observation, np.ndarray]:
    """Lenses as large as orbits, of a plain colour."""
    marks = observation.landmarks
    assert marks is not None
    radius = 0.3 * np.linalg.norm(marks[36] - marks[45])
    row, column = np.mgrid[:SIZE, :SIZE]
    hidden = np.zeros((SIZE, SIZE), bool)
    for inner, outer in ((39, 36), (42, 45)):
        x, y = (marks[inner] + marks[outer]) / 2
        hidden |= ((column - x) / radius) ** 2 + ((row - y) / (0.75 * radius)) ** 2 < 1
    image = observation.image.copy()
    image[hidden] = color
    return replace(observation, image=image), hidden


@pytest.mark.parametrize("tone", TONES)
def test_an_open_face_is_seen_whatever_its_skin(tone: str) -> None:
    observation, scene = portrait(tone)
    mask, _ = mask_of(observation, scene)
    assert mask.share > 0.95
    seen = mask.at_photo(SIZE, SIZE)
    assert observation.landmarks is not None
    for name, numbers in (("brows", range(17, 27)), ("lips", range(48, 68))):
        column, row = observation.landmarks[list(numbers)].astype(int).T
        assert seen[row, column].mean() > 0.9, name


def test_brows_that_a_detector_sees_above_the_models_are_face_and_other_bars_are_not() -> None:
    observation, scene = portrait("light")
    assert observation.landmarks is not None
    raised, picture = observation.landmarks.copy(), Image.fromarray(observation.image)
    raised[17:27, 1] -= 0.14 * observation.interocular_px
    for brow in (raised[17:22], raised[22:27]):
        ImageDraw.Draw(picture).line([tuple(point) for point in brow], fill=(60, 40, 30), width=7)
    drawn = replace(observation, image=np.asarray(picture))
    column, row = raised[17:27].astype(int).T
    for marks, seen in ((raised, True), (observation.landmarks, False)):
        mask, _ = mask_of(drawn.with_landmarks(marks), scene)
        assert (mask.at_photo(SIZE, SIZE)[row, column].mean() > 0.8) == seen


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("color", [(40, 90, 160), (170, 40, 50), (25, 25, 28)])
def test_a_cloth_over_the_mouth_is_found(tone: str, color: tuple[int, int, int]) -> None:
    observation, scene = portrait(tone)
    covered, hidden = painted(observation, color)
    mask, _ = mask_of(covered, scene)
    seen = mask.at_photo(SIZE, SIZE)
    face = replace(mask, shown=np.where(mask.face, 0.0, 1.0)).at_photo(SIZE, SIZE) == 0
    assert seen[face & hidden].mean() < 0.2
    assert seen[face & ~hidden].mean() > 0.85


@pytest.mark.parametrize("tone", TONES)
def test_dark_lenses_are_found_among_shadows(tone: str) -> None:
    """No darker than the shadow beside them, but cooler; a shadow keeps the hue of skin."""
    observation = in_half_shadow(portrait(tone)[0])
    covered, hidden = in_sunglasses(observation, (63, 70, 77))
    scene = portrait(tone)[1]
    mask, _ = mask_of(covered, scene)
    seen = mask.at_photo(SIZE, SIZE)
    face = replace(mask, shown=np.where(mask.face, 0.0, 1.0)).at_photo(SIZE, SIZE) == 0
    assert seen[face & hidden].mean() < 0.13
    assert seen[face & ~hidden].mean() > 0.95
    assert mask_of(observation, scene)[0].share > 0.95


def test_hidden_landmarks_are_believed_less_and_others_as_before() -> None:
    observation, scene = portrait("medium")
    covered, _ = painted(observation, (40, 90, 160))
    mask, _ = mask_of(covered, scene)
    before, after = covered.landmark_covariance, mask.believed(covered).landmark_covariance
    assert before is not None and after is not None
    gain = np.sqrt(after[:, 0, 0] / before[:, 0, 0])
    assert gain[48:68] == pytest.approx(HIDDEN_SIGMA, rel=0.1) and gain[36:48] == pytest.approx(1, rel=0.1)


def test_the_users_mask_is_taken_at_its_word() -> None:
    observation, scene = portrait("medium")
    allowed = np.ones((SIZE, SIZE), bool)
    allowed[:, : SIZE // 2] = False
    given = replace(observation, mask=allowed, mask_given=True)
    mask, level = mask_of(given, scene)
    np.testing.assert_array_equal(mask.shown[mask.face] > 0.5, level.usable[mask.face])
    # A photograph's own transparency is no such word: what is left of it is still looked at.
    covered, hidden = painted(replace(given, mask_given=False), (40, 90, 160))
    seen = mask_of(covered, scene)[0].at_photo(SIZE, SIZE)
    assert not seen[hidden & allowed & ~mask.at_photo(SIZE, SIZE)].any()


def test_levels_and_photograph_lose_the_same_places() -> None:
    observation, scene = portrait("light")
    covered, _ = painted(observation, (40, 90, 160))
    mask, _ = mask_of(covered, scene)
    seen, level = mask.at_photo(SIZE, SIZE), face_pyramid(covered, [128])[0]
    usable = mask.on(level).usable
    row, column = np.nonzero(level.usable)
    x = ((column + 0.5) / level.scale + level.origin[0]).astype(int)
    y = ((row + 0.5) / level.scale + level.origin[1]).astype(int)
    assert (usable[row, column] == seen[y, x]).mean() > 0.98


@pytest.mark.parametrize("flat", [True, False])
def test_a_face_hidden_altogether_is_said_to_be(flat: bool) -> None:
    """By the user's mask, or by something of one colour: a finite face from landmarks, called poor."""
    observation, _ = portrait("medium")
    if flat:
        image = np.zeros_like(observation.image)
        image[:] = (30, 200, 40)
        hidden = replace(observation, image=image)
    else:
        nothing = np.zeros((SIZE, SIZE), bool)
        nothing[0, 0] = True
        hidden = replace(observation, mask=nothing, mask_given=True)
    result = fit(hidden, model())
    assert bool(torch.isfinite(result.scene.shape(model())).all())
    if not flat:
        assert result.verdict.grade == "poor" and "mask leaves only 0 %" in result.verdict.sentence
    assert "nan" not in result.verdict.sentence


def test_a_small_patch_beyond_what_hides_the_face_is_not_believed() -> None:
    """Hair of skin's colour above a masked fringe; but what shows through a lens, cut off as well, is."""
    face = np.zeros((40, 40), dtype=bool)
    face[4:36, 8:32] = True
    shown = face.astype(float)
    shown[6:14] = 0.0  # a fringe, two rows of hair above it
    shown[18:26, 12:20] = 0.0  # a frame
    shown[20:24, 14:18] = 1.0  # and its lens
    seen = SkinMask(face, np.where(face, shown, 1.0), 1.0, np.zeros(2)).at_photo(40, 40)
    assert not seen[4:14, 8:32].any()
    assert seen[20:24, 14:18].all() and seen[28:36, 8:32].all()
    # A larger piece is a forehead.
    shown[6:12] = 1.0
    forehead = SkinMask(face, np.where(face, shown, 1.0), 1.0, np.zeros(2)).at_photo(40, 40)
    assert forehead[4:12, 8:32].all()
