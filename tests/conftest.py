"""Photographs for the tests: made here, or scikit-image's public-domain portrait of an astronaut.

Photographs of other people are never part of the repository; tests that look at some take them from the
folder named by the environment variable FACEFIT_TEST_DATA and are skipped without it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A portrait of 512 x 512 pixels, 8-bit sRGB, one frontal face about 90 pixels wide."""
    data = pytest.importorskip(
        "skimage.data", reason="scikit-image holds the portrait: pip install scikit-image"
    )
    return np.asarray(data.astronaut())


@pytest.fixture(scope="session")
def astronaut_file(astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(astronaut).save(path)
    return path


@pytest.fixture(scope="session")
def landscape() -> np.ndarray:
    """Sky, hills and noise: nobody in it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:240, 0:320]
    hills = 150 + 20 * np.sin(columns / 40) + 8 * np.sin(columns / 11)
    sky = np.stack([120 + rows / 4, 160 + rows / 6, 230 - rows / 8], axis=2)
    picture = np.where((rows > hills)[..., None], np.array([60.0, 110.0, 50.0]), sky)
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of real photographs, where there is one."""
    folder = Path(os.environ.get("FACEFIT_TEST_DATA", "")) / "photos"
    if not os.environ.get("FACEFIT_TEST_DATA") or not folder.is_dir():
        pytest.skip("FACEFIT_TEST_DATA names no folder with photos/: tests on real photographs need one")
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of a toy model, of a photograph of it (its own rendering) and of the landmarks in that."""
    from export_toy import toy_result

    from facefit.models.pack import save_model

    folder = tmp_path_factory.mktemp("toy")
    result = toy_result()
    save_model(result.model, folder / "toy.safetensors")
    Image.fromarray(result.observation.image).save(folder / "toy.png")
    np.save(folder / "toy.npy", result.observation.landmarks)
    return {
        "photo": str(folder / "toy.png"),
        "model": str(folder / "toy.safetensors"),
        "landmarks": str(folder / "toy.npy"),
    }
