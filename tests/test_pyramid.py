from __future__ import annotations

import numpy as np
import pytest
import torch

from facefit.fitting.pyramid import face_box, face_pyramid
from facefit.models.camera import Camera
from facefit.observation import Observation


def photo(
    height: int = 120, width: int = 160, landmarks: np.ndarray | None = None, mask: np.ndarray | None = None
) -> Observation:
    """A ramp: red is the column, green the row, blue constant."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)[None]
    image[..., 1] = np.arange(height)[:, None]
    image[..., 2] = 77
    return Observation(image, Camera.from_field_of_view(width, height), landmarks, mask=mask)


def cloud(low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    points = np.random.default_rng(0).uniform(low, high, (68, 2))
    points[0], points[1] = low, high
    return points


def test_the_box_holds_the_landmarks_with_a_margin_and_more_above() -> None:
    left, top, right, bottom = face_box(photo(400, 400, cloud((150, 160), (250, 260))))
    assert 100 <= left < 150 and 250 < right <= 300
    assert 160 - top > bottom - 260 > 0


def test_without_landmarks_the_box_is_the_photograph() -> None:
    assert face_box(photo()) == (0, 0, 160, 120)
    assert face_box(photo(landmarks=np.full((68, 2), np.nan))) == (0, 0, 160, 120)


def test_a_point_half_known_is_unknown() -> None:
    half = np.full((68, 2), np.nan)
    half[:, 0] = 50.0
    assert face_box(photo(landmarks=half)) == (0, 0, 160, 120)
    assert len(face_pyramid(photo(landmarks=half), [32])) == 1


@pytest.mark.parametrize(
    "landmarks",
    [
        cloud((-900, -900), (-800, -700)),
        cloud((900, 900), (1000, 1100)),
        cloud((-50, 40), (80, 300)),
        cloud((-1e7, -1e7), (1e7, 1e7)),
        np.full((68, 2), 60.5),
        np.full((68, 2), 60.0),
    ],
)
def test_the_box_stays_inside_the_photograph_wherever_the_landmarks_are(landmarks: np.ndarray) -> None:
    left, top, right, bottom = face_box(photo(landmarks=landmarks))
    assert 0 <= left < right <= 160 and 0 <= top < bottom <= 120
    for level in face_pyramid(photo(landmarks=landmarks), [8, 64]):
        assert level.image.shape == (*level.usable.shape, 3) and np.isfinite(level.image).all()


@pytest.mark.parametrize("size", [24, 37, 64, 100])
def test_a_level_shows_the_photograph_where_it_says(size: int) -> None:
    """A ramp is the same ramp at every size, read at (texel + 0.5) / scale + origin."""
    for observation in (photo(), photo(landmarks=cloud((40.2, 50.1), (90.3, 96.9)))):
        (level,) = face_pyramid(observation, [size])
        rows, columns = level.usable.nonzero()
        pixel = (np.stack([columns, rows], 1) + 0.5) / level.scale + level.origin
        inner = (np.abs(pixel - [80, 60]) < np.array([80, 60]) - 3 / level.scale).all(1)
        # Keep clear of the crop's own rim, where the tent is cut off.
        inner &= (columns > 1) & (rows > 1) & (columns < columns.max() - 1) & (rows < rows.max() - 1)
        assert inner.sum() > 20
        read = 255 * level.image[rows, columns][inner]
        # The tent has few taps at ratios that are no whole numbers: right on average, each within 0.07 pixel.
        error = read[:, :2] - (pixel[inner] - 0.5)
        assert np.abs(error).max() < 0.07 and np.abs(error.mean(0)).max() < 0.005
        np.testing.assert_allclose(read[:, 2], 77, atol=1e-3)


def test_levels_are_square_and_never_enlarged() -> None:
    levels = face_pyramid(photo(), [16, 64, 1000])
    assert [level.image.shape for level in levels] == [(16, 16, 3), (64, 64, 3), (160, 160, 3)]
    assert levels[-1].scale == 1.0 and levels[0].scale == pytest.approx(0.1)


def test_the_filling_up_to_a_square_is_not_usable() -> None:
    (level,) = face_pyramid(photo(), [160])
    assert level.usable[:120].all() and not level.usable[120:].any()


def test_masked_pixels_are_not_usable_at_any_size() -> None:
    mask = np.ones((120, 160), dtype=bool)
    mask[32:61, 43:88] = False
    for level in face_pyramid(photo(mask=mask), [32, 160]):
        rows, columns = np.nonzero(level.usable)
        low = np.floor(np.stack([columns, rows], 1) / level.scale).astype(int)
        high = np.ceil(np.stack([columns + 1, rows + 1], 1) / level.scale).astype(int)
        for (x0, y0), (x1, y1) in zip(low, high, strict=True):
            assert mask[y0:y1, x0:x1].all()
        assert level.usable.sum() > 0.5 * (mask.sum() * level.scale**2)


@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (97, 97), (900, 1301)])
def test_a_mask_that_keeps_everything_changes_nothing(shape: tuple[int, int]) -> None:
    sizes = [16, 40, 64]
    kept = photo(*shape, mask=np.ones(shape, dtype=bool))
    for masked, bare in zip(face_pyramid(kept, sizes), face_pyramid(photo(*shape), sizes), strict=True):
        np.testing.assert_array_equal(masked.usable, bare.usable)
        np.testing.assert_array_equal(masked.image, bare.image)


def test_a_level_taken_from_another_shows_the_same() -> None:
    coarse = torch.from_numpy(np.random.default_rng(0).random((1, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, size=(300, 300), mode="bicubic")
    image = (255 * smooth[0].permute(1, 2, 0).clamp(0, 1).numpy()).astype(np.uint8)
    one = Observation(image, Camera.from_field_of_view(300, 300))
    alone, (beside, _) = face_pyramid(one, [40])[0], face_pyramid(one, [40, 90])
    assert alone.scale == beside.scale
    assert np.abs(alone.image - beside.image).max() < 0.01


def test_what_is_too_fine_for_a_level_averages_out() -> None:
    """No aliasing: white noise shrunk fourfold keeps a sixth of its deviation (a tent), not a half (no filter)."""
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    observation = Observation(image, Camera.from_field_of_view(128, 128))
    (level,) = face_pyramid(observation, [32])
    assert level.image.std() < 0.25 * (image / 255).std()
    assert level.image.mean() == pytest.approx((image / 255).mean(), abs=0.005)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (16, 16), (3, 2)])
def test_tiny_photographs_have_levels(shape: tuple[int, int]) -> None:
    for level in face_pyramid(photo(*shape), [64, 256]):
        assert level.image.shape[0] == max(shape) and level.scale == 1.0


def test_the_photograph_is_not_written_to() -> None:
    observation = photo()
    before = observation.image.copy()
    face_pyramid(observation, [160])[0].image[:] = 0
    assert np.array_equal(observation.image, before) and torch.is_tensor(observation.camera.focal_px)
