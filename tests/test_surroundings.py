"""What surrounds a drawn head: planes of float32, laid over each other."""

from __future__ import annotations

import numpy as np
import pytest
from toy import landmarks_of, toy_scene

from facefit.learned_init.surroundings import (
    OCCLUDERS,
    Brush,
    Colors,
    background,
    behind_head,
    brows,
    grain,
    image_of,
    mouth,
    occlude,
    over,
    textured,
)
from facefit.learned_init.synthetic import finish

SIZE = 96
SKIN, HAIR = np.array([0.5, 0.3, 0.2]), np.array([0.05, 0.03, 0.02])


def marks() -> np.ndarray:
    """A face that fills the middle of the picture."""
    found = landmarks_of(toy_scene(2))
    low, high = found.min(0), found.max(0)
    return (found - low) / (high - low).max() * 0.6 * SIZE + 0.2 * SIZE


def grey() -> Colors:
    return np.full((3, SIZE, SIZE), 0.4, np.float32)


def test_over_shows_the_picture_at_0_the_colour_at_1_and_their_mixture_between() -> None:
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[10:20], alpha[20:30] = 1.0, 0.25
    for color in (SKIN, textured(SKIN, 0.0, alpha)):
        found = over(grey(), alpha, color)
        np.testing.assert_array_equal(found[:, :10], grey()[:, :10])
        np.testing.assert_allclose(found[:, 10:20], np.tile(SKIN[:, None, None], (10, SIZE)), rtol=1e-6)
        np.testing.assert_allclose(found[:, 25, 0], 0.75 * 0.4 + 0.25 * SKIN, rtol=1e-6)


def test_a_texture_keeps_the_colours_hue_and_geometric_mean() -> None:
    pattern = grain(SIZE, 2, np.random.default_rng(0))
    found = textured(SKIN, 0.3, pattern - pattern.mean())
    np.testing.assert_allclose(found[0] / found[1], SKIN[0] / SKIN[1], rtol=1e-5)
    np.testing.assert_allclose(np.exp(np.log(found).mean((1, 2))), SKIN, rtol=1e-4)
    assert np.log(found[0]).std() == pytest.approx(0.3 * pattern.std(), rel=1e-4)


def test_a_brush_covers_what_it_outlines() -> None:
    brush = Brush(SIZE)
    brush.polygon(np.array([[10.0, 20.0], [40.0, 20.0], [40.0, 60.0], [10.0, 60.0]]))
    alpha = brush.alpha
    # PIL draws the pixels on the outline, too: half a pixel of ours to the right and below.
    assert alpha.sum() == pytest.approx(30.5 * 40.5, rel=1e-3)
    rows, columns = np.nonzero(alpha)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 60, 10, 40)


def test_backgrounds_differ_and_stay_within_bytes() -> None:
    rng = np.random.default_rng(3)
    found = np.stack([background(SIZE, rng) for _ in range(40)])
    assert found.shape == (40, 3, SIZE, SIZE)
    assert found.min() >= 0 and found.max() <= 1
    assert found.mean((2, 3)).std(0).min() > 0.1
    uneven = found.std((2, 3)).max(1)
    assert (uneven < 0.1).any() and (uneven > 0.1).any()
    np.testing.assert_array_equal(
        np.asarray(image_of(found[0])), (255 * found[0]).astype(np.uint8).transpose(1, 2, 0)
    )


@pytest.mark.parametrize("kind", [kind for kind in OCCLUDERS if kind != "none"])
def test_an_occluder_hides_a_part_of_the_face(kind: str) -> None:
    (left, top), (right, bottom) = marks().min(0).astype(int), marks().max(0).astype(int)
    for seed in range(8):
        found = occlude(grey(), marks(), kind, SKIN, HAIR, np.random.default_rng(seed))
        hidden = (found != grey()).any(0)[top:bottom, left:right].mean()
        assert 0 < hidden < 0.9
    assert np.array_equal(occlude(grey(), marks(), "none", SKIN, HAIR, np.random.default_rng(0)), grey())


def test_open_mouths_show_teeth_tongue_or_the_dark() -> None:
    """Only inside the lips, and only where the model has nothing; over many mouths, whites, reds and black are seen."""
    open_wide = marks()
    middle = open_wide[60:68].mean(0)
    open_wide[60:68] = middle + (open_wide[60:68] - middle) * [1.0, 0.0] + [[0, d] for d in
                       (0, -14, -18, -14, 0, 14, 18, 14)]  # fmt: skip
    hole = np.zeros((SIZE, SIZE), np.float32)
    hole[:, : round(middle[0])] = 1
    row, column = round(middle[1]), round(middle[0]) - 4
    seen = []
    for seed in range(60):
        painted = mouth(grey(), open_wide, hole, np.random.default_rng(seed))
        changed = (painted != grey()).any(0)
        assert not changed[:, round(middle[0]) :].any()
        assert not changed[: row - 30].any() and not changed[row + 30 :].any()
        seen.append(painted[:, row - 25 : row + 25, column])
    inside = np.concatenate(seen, 1)
    red = inside[0] > 1.5 * inside[1]
    assert (inside.max(0) < 0.13).mean() > 0.1
    assert (red & (inside[0] > 0.2)).mean() > 0.05
    assert ((inside.min(0) > 0.2) & (inside[0] > 1.1 * inside[2])).mean() > 0.05


def test_everything_is_painted_in_single_precision() -> None:
    """One factor in double precision makes all that follows it twice as slow."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        picture = behind_head(background(SIZE, rng), marks(), HAIR, rng)
        assert picture.dtype == np.float32
        picture = mouth(picture, marks(), np.ones((SIZE, SIZE), np.float32), rng)
        assert picture.dtype == np.float32
        picture = brows(picture, marks(), HAIR, 40.0, rng)
        assert picture.dtype == np.float32
        for kind in OCCLUDERS:
            assert occlude(picture, marks(), kind, SKIN, HAIR, rng).dtype == np.float32


def test_a_camera_keeps_bright_and_dark_in_their_places() -> None:
    """Blur, noise and compression leave two halves of a picture, channel by channel, on their sides of the middle."""
    half = np.full((3, 128, 128), 0.05, np.float32)
    half[0, :64], half[1, :, :64], half[2, 64:] = 0.6, 0.6, 0.6
    found = [finish(half, np.random.default_rng(seed)) for seed in range(40)]
    assert all(picture.shape == (128, 128, 3) and picture.dtype == np.uint8 for picture in found)
    colored = [p.astype(float) for p in found if np.ptp(p, axis=2).max() > 30]
    assert len(colored) > 30
    for picture in colored:
        assert picture[:60, :, 0].mean() > picture[68:, :, 0].mean() + 40
        assert picture[:, :60, 1].mean() > picture[:, 68:, 1].mean() + 40
        assert picture[68:, :, 2].mean() > picture[:60, :, 2].mean() + 40
    noise = [p[10:50, 10:50, 0].std() for p in found]
    assert min(noise) < 2.5 and max(noise) > 6
