"""Reading photographs: every kind gives the same upright sRGB pixels, and what cannot be read says so."""

from __future__ import annotations

import io
import math
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from facefit.detection import AbstractDetector, Face, landmark_covariance
from facefit.errors import NoFaceFound, UnreadableInput
from facefit.models import load_model
from facefit.observation import PIXEL_LIMIT, Observation, exif_focal_px, read_photograph

RNG = np.random.default_rng(5)
PIXELS = np.kron(RNG.integers(0, 256, (6, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 48 x 40, blocks of 8
POINTS = np.stack([RNG.uniform(5, 35, 68), RNG.uniform(5, 43, 68)], axis=1)
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_reads_upright(tmp_path: Path, orientation: int) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(PIXELS) if undo is None else Image.fromarray(PIXELS).transpose(undo)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(read_photograph(path).pixels, PIXELS)


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("name", "convert", "expected", "tolerance"),
    [
        ("a.png", lambda i: i, PIXELS, 0),
        ("a.tif", lambda i: i, PIXELS, 0),
        ("a.bmp", lambda i: i, PIXELS, 0),
        ("a.jpg", lambda i: i, PIXELS, 40),
        ("a.png", lambda i: i.convert("P", palette=Image.Palette.ADAPTIVE), PIXELS, 4),
        ("a.png", lambda i: i.convert("RGBA"), PIXELS, 0),
        ("a.png", lambda i: i.convert("L"), GREY[..., None], 0),
        ("a.jpg", lambda i: i.convert("L"), GREY[..., None], 20),
        ("a.png", sixteen_bit, GREY[..., None], 0),
        ("a.tif", sixteen_bit, GREY[..., None], 0),
        (
            "a.tif",
            lambda i: Image.fromarray(np.asarray(i.convert("L")) / np.float32(255)),
            GREY[..., None],
            0,
        ),
        ("a.tif", lambda i: i.convert("CMYK"), PIXELS, 2),
        ("a.jpg", lambda i: i.convert("CMYK"), PIXELS, 40),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_mode_reads_as_the_same_srgb(
    tmp_path: Path,
    name: str,
    convert: Callable[[Image.Image], Image.Image],
    expected: np.ndarray,
    tolerance: int,
) -> None:
    options = {"quality": 98, "subsampling": 0} if name == "a.jpg" else {}
    path = save(tmp_path / name, convert(Image.fromarray(PIXELS)), **options)
    photo = read_photograph(path)
    assert photo.pixels.dtype == np.uint8
    assert photo.usable is None
    assert np.abs(photo.pixels.astype(int) - expected).max() <= tolerance


def test_transparent_pixels_are_masked_and_their_colour_forgotten(tmp_path: Path) -> None:
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:, :20] = 0
    path = save(tmp_path / "a.png", Image.fromarray(np.dstack([PIXELS, alpha])))
    photo = read_photograph(path)
    assert photo.usable is not None
    np.testing.assert_array_equal(photo.usable, alpha > 0)
    np.testing.assert_array_equal(photo.pixels[:, 20:], PIXELS[:, 20:])
    assert np.ptp(photo.pixels[:, :20]) == 0


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """An RGB PNG that announces a size and holds these rows, be they enough or not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    return png(width, height, 8, b"\0" * 1000)


def jpeg(image: np.ndarray = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a photograph"),
        (b"just some text\n" * 50, "not a photograph"),
        (jpeg()[: len(jpeg()) // 2], "damaged or cut off"),
        (png_header(20_000, 20_000), "the limit is 128 million"),
        (png_header(12_000, 12_000), "the limit is 128 million"),
        (png_header(100, 100), "damaged or cut off"),
        (jpeg(np.zeros((1, 1, 3), np.uint8)), "1 x 1 pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photograph"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableInput, match=said) as caught:
        read_photograph(path)
    assert "photo.jpg" in str(caught.value)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no such file"):
        read_photograph(tmp_path / "none.jpg")
    with pytest.raises(UnreadableInput, match="is a folder"):
        read_photograph(tmp_path)


def test_an_enormous_picture_is_refused_without_decoding_it(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="peak memory is read from the resource module")
    (tmp_path / "a.png").write_bytes(png_header(20_000, 20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableInput, match="make a smaller copy"):
        read_photograph(tmp_path / "a.png")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 20e6
    assert PIXEL_LIMIT < 20_000 * 20_000


def test_no_damage_raises_or_warns_anything_but_unreadable(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    exif = exif_with(FocalLengthIn35mmFilm=26, ExifImageWidth=40, ExifImageHeight=48)
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "a.jpg"
    for kind, mode in (
        ("JPEG", "CMYK"),
        ("PNG", "RGBA"),
        ("TIFF", "RGB"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
        ("BMP", "L"),
    ):
        buffer = io.BytesIO()
        more = {} if kind in ("GIF", "BMP") else {"exif": exif, "icc_profile": foreign_profile()}
        Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **more)
        whole = buffer.getvalue()
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(0, min(len(damaged), rng.choice([200, len(damaged)])), 4):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)] if rng.random() < 0.3 else damaged)
            try:
                read_photograph(path)
            except UnreadableInput:
                pass


def foreign_profile() -> bytes:
    """sRGB's profile with red and blue exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
def test_colours_go_through_the_profile_that_comes_with_them(tmp_path: Path, kind: str) -> None:
    lossless: dict[str, object] = {"lossless": True} if kind == "webp" else {}
    path = save(tmp_path / f"a.{kind}", Image.fromarray(PIXELS), icc_profile=foreign_profile(), **lossless)
    assert np.abs(read_photograph(path).pixels.astype(int) - PIXELS[..., ::-1]).max() <= 2
    if kind != "tif":
        path = save(
            tmp_path / f"t.{kind}",
            Image.fromarray(PIXELS).convert("RGBA"),
            icc_profile=foreign_profile(),
            **lossless,
        )
        assert np.abs(read_photograph(path).pixels.astype(int) - PIXELS[..., ::-1]).max() <= 2
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / f"b.{kind}", Image.fromarray(PIXELS), icc_profile=plain, **lossless)
    np.testing.assert_array_equal(read_photograph(path).pixels, PIXELS)


def test_a_damaged_exif_block_does_not_lose_the_photograph(tmp_path: Path) -> None:
    exif = exif_with(FocalLengthIn35mmFilm=26)
    whole = save(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif).read_bytes()
    at = whole.index(b"Exif") + 14  # the number of entries of the first directory
    (tmp_path / "a.jpg").write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
    assert read_photograph(tmp_path / "a.jpg").pixels.shape == PIXELS.shape


def test_sixteen_bits_a_channel_are_read_to_a_grey_level(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (40, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    (tmp_path / "a.png").write_bytes(png(30, 40, 16, rows))
    assert np.abs(read_photograph(tmp_path / "a.png").pixels - deep / 257.0).max() < 1


def exif_with(**tags: float) -> Image.Exif:
    exif = Image.Exif()
    block = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        block[ExifTags.Base[name]] = value
    return exif


def test_the_35_mm_focal_length_follows_the_diagonal() -> None:
    # A 35 mm frame is 36 x 24 mm: 26 mm in 3:2 is 26 / 36 of the width.
    assert exif_focal_px(exif_with(FocalLengthIn35mmFilm=26), 3600, 2400) == pytest.approx(2600)
    # On 4:3 the diagonal, not the width, has the same angle.
    assert exif_focal_px(exif_with(FocalLengthIn35mmFilm=26), 4000, 3000) == pytest.approx(
        26 * 5000 / 43.267, rel=1e-4
    )


@pytest.mark.parametrize(("unit", "per_mm"), [(2, 1 / 25.4), (3, 0.1), (4, 1.0), (5, 1000.0)])
def test_the_focal_plane_resolution_gives_the_same(unit: int, per_mm: float) -> None:
    # 50 mm on a sensor 36 mm wide with 6000 pixels, in each of the units.
    resolution = 6000 / 36 / per_mm
    tags = {"FocalLength": 50.0, "FocalPlaneXResolution": resolution, "FocalPlaneResolutionUnit": unit}
    assert exif_focal_px(exif_with(**tags), 6000, 4000) == pytest.approx(6000 * 50 / 36)
    smaller = exif_with(**tags, ExifImageWidth=6000, ExifImageHeight=4000)
    assert exif_focal_px(smaller, 1500, 1000) == pytest.approx(1500 * 50 / 36)


@pytest.mark.parametrize("focal", [0, 3, 1500, 35_000, 65_535])
def test_an_impossible_focal_length_is_not_believed(focal: int) -> None:
    assert exif_focal_px(exif_with(FocalLengthIn35mmFilm=focal), 3600, 2400) is None


def test_a_cropped_picture_has_lost_its_focal_length() -> None:
    tags = {"FocalLengthIn35mmFilm": 50, "ExifImageWidth": 6000, "ExifImageHeight": 4000}
    assert exif_focal_px(exif_with(**tags), 3000, 3000) is None
    assert exif_focal_px(exif_with(**tags), 1200, 800) == pytest.approx(
        50 * math.hypot(1200, 800) / 43.267, rel=1e-4
    )
    assert exif_focal_px(exif_with(**tags), 800, 1200) == pytest.approx(
        50 * math.hypot(1200, 800) / 43.267, rel=1e-4
    )


def test_the_camera_comes_from_fov_else_exif_else_thirty_degrees(tmp_path: Path) -> None:
    exif = exif_with(FocalLengthIn35mmFilm=50)
    with_exif = save(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif)
    without = save(tmp_path / "b.jpg", Image.fromarray(PIXELS))
    given = Observation.from_file(with_exif, landmarks=POINTS, fov=40)
    assert (given.camera.focal_source, given.focal_sigma) == ("given", 0)
    assert given.camera.field_of_view_deg == pytest.approx(40)
    told = Observation.from_file(with_exif, landmarks=POINTS)
    assert told.camera.focal_source == "exif"
    assert float(told.camera.focal_px) == pytest.approx(50 * math.hypot(48, 40) / 43.267, rel=1e-4)
    default = Observation.from_file(without, landmarks=POINTS)
    assert default.camera.focal_source == "default"
    assert default.camera.field_of_view_deg == pytest.approx(30)
    assert told.focal_sigma < default.focal_sigma


def test_a_mask_is_read_and_joined_with_transparency(tmp_path: Path) -> None:
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    photo = save(tmp_path / "a.png", Image.fromarray(np.dstack([PIXELS, alpha])))
    white = np.zeros(PIXELS.shape[:2], np.uint8)
    white[:, 8:] = 255
    observation = Observation.from_file(photo, POINTS, mask=save(tmp_path / "m.png", Image.fromarray(white)))
    assert observation.mask is not None
    np.testing.assert_array_equal(observation.mask, (alpha > 0) & (white > 0))


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    photo = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    mask = save(tmp_path / "m.png", Image.new("L", (30, 20), 255))
    with pytest.raises(UnreadableInput, match="30 x 20 pixels, the photograph 40 x 48"):
        Observation.from_file(photo, POINTS, mask=mask)
    with pytest.raises(UnreadableInput, match="black everywhere"):
        Observation.from_file(photo, POINTS, mask=np.zeros((48, 40), bool))


def test_landmarks_beside_the_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="outside the photograph"):
        Observation.from_array(PIXELS, landmarks=POINTS + 1000)


class TwoFaces(AbstractDetector):
    def detect(self, image: np.ndarray, every: bool = False) -> list[Face]:
        faces = [POINTS, POINTS * 0.5]
        return [Face((0, 0, 40, 40), 1.0, points, landmark_covariance(points)) for points in faces]


def test_another_detector_is_one_class(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    both = Observation.all_from_file(path, detector=TwoFaces())
    assert len(both) == 2
    second = Observation.from_file(path, face=2, detector=TwoFaces())
    np.testing.assert_array_equal(second.landmarks, both[1].landmarks)
    np.testing.assert_array_equal(Observation.from_file(path, detector=TwoFaces()).landmarks, POINTS)
    with pytest.raises(NoFaceFound, match="face 3 was asked for, 2 found"):
        Observation.from_file(path, face=3, detector=TwoFaces())


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_an_observation_takes_only_8_bit_colour(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted uint8"):
        Observation.from_array(wrong, landmarks=POINTS)


@pytest.mark.parametrize("yaw", [0, 40, 60, 75, 90])
def test_the_yardstick_outlasts_a_turn_of_the_head(yaw: float) -> None:
    """The eyes' distance from the front, and still two thirds of it in profile."""
    model = load_model("builtin")
    marks = model.landmark_points(model.mean).double().numpy()
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turned = marks @ np.array([[c, 0, -s], [0, -1, 0], [s, 0, c]])
    blank = np.zeros((300, 300, 3), np.uint8)
    seen = Observation.from_array(blank, turned[:, :2] + 150)
    ratio = seen.interocular_px / np.linalg.norm(marks[36] - marks[45])
    assert 0.6 < ratio <= 1 + 1e-9
    assert yaw or ratio == pytest.approx(1, abs=0.01)


def test_an_unknown_eye_corner_leaves_no_yardstick() -> None:
    marks = np.random.default_rng(0).uniform(10, 90, (68, 2))
    marks[36] = np.nan
    assert np.isnan(Observation.from_array(np.zeros((99, 99, 3), np.uint8), marks).interocular_px)
