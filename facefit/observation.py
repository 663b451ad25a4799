"""A photograph as the fit sees it: pixels, landmarks with their uncertainty, what to ignore, a camera prior.

All coordinates are pixels of the original photograph after its EXIF orientation is applied.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from facefit.dense_landmarks import DenseLandmarks
from facefit.detection import AbstractDetector, DlibDetector, Face, LandmarkSource, landmark_covariance
from facefit.errors import NoFaceFound, UnreadableInput
from facefit.landmark_files import as_landmarks, read_landmarks
from facefit.models.camera import Camera

if TYPE_CHECKING:
    Landmarks = str | Path | Float[np.ndarray, "n 2"]
    Mask = str | Path | Bool[np.ndarray, "height width"]

# Decoded, a pixel needs 4 bytes in Pillow and 3 here, more while it is turned: 128 million pixels (a phone's
# 108-megapixel mode) stay near one gigabyte. Beyond, only the header of a file is read.
PIXEL_LIMIT = 128_000_000
SMALLEST_SIDE = 16

# On heads seen from the front this many lengths of the nose, from bridge to base, are 0.7 outer-eye distances and never
# more than one (ICT's and the built-in model's draws: 0.56 to 0.9).
NOSE_TO_EYES = 1.25

DEFAULT_FOCAL_SIGMA = 0.3
# EXIF gives whole millimetres, and stabilisation and digital zoom crop a little.
EXIF_FOCAL_SIGMA = 0.05
# Focal lengths in 35 mm terms that a camera can have; some firmware writes 0 or 65535.
PLAUSIBLE_FOCAL_35MM = (8.0, 1200.0)
DIAGONAL_35MM = math.hypot(36, 24)

# What Pillow decodes without starting another program (its EPS reader runs Ghostscript).
_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA")


@dataclass(frozen=True)
class Observation:
    """One face in one photograph.

    `image` is 8-bit sRGB at the original size. `landmarks` are iBUG 68 positions (column, row) in pixels,
    edge-based (the centre of the first pixel is (0.5, 0.5)), NaN where a point is unknown;
    `landmark_covariance` is in px^2. `mask` is False where a pixel must not be used. `camera` is the prior:
    its focal is believed to a factor of exp(+-`focal_sigma`); 0 means known. `dense` is what a network saw,
    `landmarks_by` whose the 68 are.
    `mask_given` says that the mask is the user's word on what hides the face, so that nothing is estimated.
    """

    image: UInt8[np.ndarray, "height width 3"]
    camera: Camera
    landmarks: Float[np.ndarray, "68 2"] | None = None
    landmark_covariance: Float[np.ndarray, "68 2 2"] | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
    focal_sigma: float = DEFAULT_FOCAL_SIGMA
    path: Path | None = None
    dense: DenseLandmarks | None = None
    landmarks_by: LandmarkSource = "given"
    mask_given: bool = False

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(
                f"an image of {self.image.dtype} {self.image.shape}: wanted uint8 (height, width, 3)"
            )
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            raise ValueError(f"a mask of {self.mask.shape} on an image of {self.image.shape[:2]}")

    def __repr__(self) -> str:
        name = "" if self.path is None else f" {self.path.name}"
        points = "no landmarks" if self.landmarks is None else f"landmarks by {self.landmarks_by}"
        return f"<Observation{name}: {self.width} x {self.height} px, {points}>"

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def interocular_px(self) -> float:
        """Distance of the outer eye corners, the yardstick of landmark errors.

        Where they draw together because the head is turned, the length of the nose stands for it: about two thirds of
        the distance from the front.
        """
        assert self.landmarks is not None
        eyes, nose = (
            float(np.linalg.norm(self.landmarks[a] - self.landmarks[b])) for a, b in ((36, 45), (27, 33))
        )
        # NaN, for an unknown eye corner, stays: no comparison with it holds.
        return NOSE_TO_EYES * nose if NOSE_TO_EYES * nose > eyes else eyes

    @staticmethod
    def from_file(
        path: str | Path,
        landmarks: Landmarks | None = None,
        face: Literal["largest"] | int = "largest",
        fov: float | None = None,
        mask: Mask | None = None,
        detector: AbstractDetector | None = None,
    ) -> Observation:
        """Read a photograph and find one face in it: the most prominent, or number `face`, counted from 1.

        With `landmarks` (an array or a .pts/.npy file) nothing is detected. `fov` is the field of view of the
        longer side in degrees, else EXIF's focal length is taken, else 30. `mask` is white (True) where
        pixels may be used.
        """
        photo = _with_mask(read_photograph(path), mask)
        blank = photo.observation(fov, Path(path))
        if landmarks is not None:
            return blank.with_landmarks(landmarks)
        faces = _named(path, detector or DlibDetector(), blank.image, every=face != "largest")
        number = 1 if face == "largest" else face
        if not 1 <= number <= len(faces):
            raise NoFaceFound(
                f"{path}: face {number} was asked for, {len(faces)} found; --face 1 is the largest"
            )
        return blank.with_face(faces[number - 1])

    @staticmethod
    def all_from_file(
        path: str | Path,
        fov: float | None = None,
        mask: Mask | None = None,
        detector: AbstractDetector | None = None,
    ) -> list[Observation]:
        """Every face of a photograph, the most prominent first."""
        blank = _with_mask(read_photograph(path), mask).observation(fov, Path(path))
        faces = _named(path, detector or DlibDetector(), blank.image, every=True)
        return [blank.with_face(face) for face in faces]

    @staticmethod
    def from_array(
        image: UInt8[np.ndarray, "height width 3"],
        landmarks: Landmarks | None = None,
        fov: float | None = None,
        mask: Bool[np.ndarray, "height width"] | None = None,
        detector: AbstractDetector | None = None,
    ) -> Observation:
        """The same for 8-bit sRGB pixels in memory; the most prominent face when no landmarks are given."""
        photo = Photograph(np.ascontiguousarray(image), mask, mask_given=mask is not None)
        blank = photo.observation(fov, None)
        if landmarks is not None:
            return blank.with_landmarks(landmarks)
        return blank.with_face((detector or DlibDetector()).detect(blank.image)[0])

    def with_landmarks(self, landmarks: Landmarks) -> Observation:
        """This photograph with landmarks from elsewhere, believed as far as a detector's would be."""
        points = read_landmarks(landmarks) if isinstance(landmarks, (str, Path)) else as_landmarks(landmarks)
        if not _any_inside(points, self.width, self.height):
            raise UnreadableInput(
                f"all landmarks lie outside the photograph of {self.width} x {self.height} pixels: "
                "do they belong to it, upright as its EXIF orientation shows it?"
            )
        return replace(
            self, landmarks=points, landmark_covariance=landmark_covariance(points), landmarks_by="given"
        )

    def with_face(self, face: Face) -> Observation:
        return replace(
            self, landmarks=face.landmarks, landmark_covariance=face.covariance, landmarks_by=face.by
        )


@dataclass(frozen=True)
class Photograph:
    """Upright 8-bit sRGB pixels, which of them are opaque or left by a mask (None: all), and EXIF's focal length in
    pixels.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    usable: Bool[np.ndarray, "height width"] | None = None
    focal_px: float | None = None
    mask_given: bool = False

    def observation(self, fov: float | None, path: Path | None) -> Observation:
        height, width = self.pixels.shape[:2]
        sigma = DEFAULT_FOCAL_SIGMA
        if fov is not None:
            camera, sigma = Camera.from_field_of_view(width, height, fov, "given"), 0.0
        elif self.focal_px is not None:
            centre = torch.tensor([width / 2, height / 2])
            camera = Camera(torch.tensor(float(self.focal_px)), centre, width, height, "exif")
            sigma = EXIF_FOCAL_SIGMA
        else:
            camera = Camera.from_field_of_view(width, height)
        return Observation(
            self.pixels,
            camera,
            mask=self.usable,
            focal_sigma=sigma,
            path=path,
            mask_given=self.mask_given,
        )


def read_photograph(path: str | Path) -> Photograph:
    """Decode a photograph of any common kind, or say in one sentence why not (`UnreadableInput`)."""
    path = Path(path)
    if path.suffix.lower() in (".heic", ".heif"):
        _register_heif(path)
    try:
        # Opened here, so that it is closed whatever a decoder does.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged tags; what matters is raised
            return _decode(path, stream)
    except UnreadableInput:
        raise
    except FileNotFoundError:
        raise UnreadableInput(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UnreadableInput(f"{path} is a folder: give the photographs in it, as {path}/*.jpg") from None
    except Image.DecompressionBombError:
        raise UnreadableInput(_too_large(path, "too many pixels")) from None
    except UnidentifiedImageError:
        raise UnreadableInput(
            f"{path} is not a photograph: its content is no JPEG, PNG, TIFF, WebP …"
        ) from None
    except Exception as error:  # thirty decoders raise whatever comes to hand on a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableInput(f"{path} cannot be read: {error.strerror}") from None
        reason = str(error) or type(error).__name__
        raise UnreadableInput(f"{path} is damaged or cut off ({reason}): copy it again") from None


def _decode(path: Path, stream: BinaryIO) -> Photograph:
    Image.init()
    image: Image.Image = Image.open(stream, formats=[name for name in _FORMATS if name in Image.OPEN])
    if image.width * image.height > PIXEL_LIMIT:
        raise UnreadableInput(_too_large(path, f"{image.width} x {image.height} pixels"))
    if min(image.size) < SMALLEST_SIDE:
        raise UnreadableInput(
            f"{path} has {image.width} x {image.height} pixels: a face needs about 40 to be found"
        )
    image.load()
    focal = None
    # A photograph whose EXIF block alone is damaged is taken as it lies, without a focal length.
    with contextlib.suppress(Exception):
        focal = exif_focal_px(image.getexif(), image.width, image.height)
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    usable = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        usable = np.asarray(image.getchannel("A")) >= 128
        if not usable.any():
            raise UnreadableInput(f"{path} is transparent everywhere: there is nothing to fit")
    pixels = _array(_to_srgb(image))
    if usable is not None:
        # The colour behind a transparent pixel is arbitrary and may look like anything to a detector.
        pixels[~usable] = 128
        usable = None if usable.all() else usable
    return Photograph(pixels, usable, focal)


def exif_focal_px(exif: Image.Exif, width: int, height: int) -> float | None:
    """The focal length in pixels of the stored picture, where EXIF tells it and it can be true.

    From the 35 mm equivalent by the diagonal (CIPA's definition), else from millimetres and the sensor's
    resolution. A picture whose sides have not the ratio of the recorded ones was cropped: its focal is lost.
    """
    tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}

    def number(tag: ExifTags.Base) -> float:
        try:
            value = float(tags.get(tag, 0))
        except (TypeError, ValueError, ZeroDivisionError):
            return 0.0
        return value if math.isfinite(value) else 0.0

    long_side, short_side = max(width, height), min(width, height)
    recorded = number(ExifTags.Base.ExifImageWidth), number(ExifTags.Base.ExifImageHeight)
    if min(recorded) > 0:
        ratio = (long_side / max(recorded)) / (short_side / min(recorded))
        if abs(math.log(ratio)) > 0.01 + 1 / short_side:
            return None
    diagonal = math.hypot(width, height)
    focal = number(ExifTags.Base.FocalLengthIn35mmFilm) * diagonal / DIAGONAL_35MM
    if focal == 0:
        mm_per_unit = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}.get(
            int(number(ExifTags.Base.FocalPlaneResolutionUnit)), 25.4
        )
        focal = number(ExifTags.Base.FocalLength) * number(ExifTags.Base.FocalPlaneXResolution) / mm_per_unit
        focal *= long_side / max(recorded) if min(recorded) > 0 else 1
    low, high = PLAUSIBLE_FOCAL_35MM
    return focal if low <= focal * DIAGONAL_35MM / diagonal <= high else None


def _too_large(path: Path, size: str) -> str:
    return f"{path} has {size}, the limit is {PIXEL_LIMIT // 1_000_000} million: make a smaller copy"


def _register_heif(path: Path) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise UnreadableInput(
            f"{path}: for HEIC photographs, pip install pillow-heif, or save it as JPEG"
        ) from None


def _to_srgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as 8-bit sRGB, through the colour profile where there is one."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        values = np.asarray(image, dtype=np.float32)
        # 16-bit files come as I;16 or I; float ones hold 0-1 or 0-255.
        white = 65535.0 if image.mode != "F" else 1.0 if float(np.nanmax(values)) <= 1 else 255.0
        scaled = np.nan_to_num(values * (255 / white)).clip(0, 255)
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        from PIL import ImageCms

        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                converted = ImageCms.profileToProfile(
                    image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
                )
                return converted if converted is not None else image.convert("RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the numbers as they are
    return image if image.mode == "RGB" else image.convert("RGB")


def _array(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels in bands: Pillow's own conversion holds a large picture three times."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 1024):
        bottom = min(top + 1024, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _with_mask(photo: Photograph, mask: Mask | None) -> Photograph:
    if mask is None:
        return photo
    if isinstance(mask, (str, Path)):
        usable = read_photograph(mask).pixels.mean(axis=2) >= 128
        source = str(mask)
    else:
        usable, source = np.asarray(mask, dtype=bool), "the mask"
    if usable.shape != photo.pixels.shape[:2]:
        height, width = photo.pixels.shape[:2]
        size = " x ".join(str(n) for n in usable.shape[::-1])
        raise UnreadableInput(f"{source} has {size} pixels, the photograph {width} x {height}")
    if not usable.any():
        raise UnreadableInput(f"{source} is black everywhere: white marks the pixels to use")
    return replace(photo, usable=usable if photo.usable is None else usable & photo.usable, mask_given=True)


def _named(
    path: str | Path, detector: AbstractDetector, image: UInt8[np.ndarray, "h w 3"], every: bool
) -> list[Face]:
    try:
        return detector.detect(image, every)
    except NoFaceFound as error:
        raise NoFaceFound(f"{path}: {error}") from None


def _any_inside(points: Float[np.ndarray, "68 2"], width: int, height: int) -> bool:
    return bool(((points >= 0) & (points <= [width, height])).all(axis=1).any())
