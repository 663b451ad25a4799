"""What users really hand in: each ends with one clear sentence and its exit code, without a traceback or a
half-written folder; and photographs of unusual kinds are fitted like any other.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from interrupts import hear_interrupts
from PIL import ExifTags, Image

from facefit import cli
from facefit.fitting.result import FitResult

EXPORT = importlib.import_module("facefit.export")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, toy: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`facefit` with the toy model on landmarks alone, in an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*args: object) -> Result:
        fixed = ["--model", toy["model"], "--stages", "fast"]
        return CliRunner().invoke(cli.main, [*(str(a) for a in args), *fixed], catch_exceptions=False)

    return invoke


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[FitResult]:
    """Results as they arrive at the writer, which writes only a mark."""
    results: list[FitResult] = []

    def write(result: FitResult, folder: Path) -> list[tuple[str, str]]:
        results.append(result)
        (folder / "result.json").write_text(json.dumps({"facefit": {}}))
        return [("result.json", "all numbers")]

    monkeypatch.setattr(EXPORT, "write_results", write)
    return results


def refused(result: Result, code: int, said: str) -> None:
    """One sentence on standard error, the code, and nothing new in the current folder but the input."""
    assert result.exit_code == code, result.output
    sentences = [line for line in result.stderr.splitlines() if line.startswith("facefit: ")]
    assert len(sentences) == 1
    assert said in sentences[0]
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert all(not name.endswith("_facefit") and not name.startswith(".") for name in os.listdir("."))


def test_no_such_file(run: Run) -> None:
    refused(run("none.jpg"), 4, "no such file: none.jpg")


def test_a_folder(run: Run) -> None:
    os.mkdir("holiday")
    refused(run("holiday"), 4, "holiday/*.jpg")


def test_a_text_file_named_jpg(run: Run) -> None:
    Path("letter.jpg").write_text("Dear Sir or Madam,\n")
    refused(run("letter.jpg"), 4, "letter.jpg is not a photograph")


def test_a_truncated_jpeg(run: Run, astronaut: np.ndarray) -> None:
    Image.fromarray(astronaut).save("whole.jpg")
    Path("half.jpg").write_bytes(Path("whole.jpg").read_bytes()[:15_000])
    refused(run("half.jpg"), 4, "half.jpg is damaged or cut off")


def test_a_picture_of_one_pixel(run: Run) -> None:
    Image.new("RGB", (1, 1)).save("dot.png")
    refused(run("dot.png"), 4, "1 x 1 pixels")


def test_a_picture_of_400_million_pixels(run: Run) -> None:
    """A valid PNG of half a megabyte that would decode to 400 MB."""
    row = zlib.compressobj(1)
    data = b"".join(row.compress(b"\0" * 2501) for _ in range(20_000)) + row.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    Path("huge.png").write_bytes(png)
    refused(run("huge.png"), 4, "the limit is 128 million")


def test_nobody_in_it(run: Run, landscape: np.ndarray) -> None:
    Image.fromarray(landscape).save("hills.png")
    refused(run("hills.png"), 3, "hills.png: no face found in 320 x 240 pixels")


def test_a_face_of_twenty_pixels(run: Run, astronaut: np.ndarray) -> None:
    Image.fromarray(astronaut).resize((112, 112), Image.Resampling.LANCZOS).save("tiny.png")
    refused(run("tiny.png"), 3, "at least 40 pixels wide")


def test_a_face_that_is_not_there(run: Run, astronaut_file: Path) -> None:
    refused(run(astronaut_file, "--face", "5"), 3, "face 5 was asked for, 1 found")


def test_landmarks_that_are_none(run: Run, astronaut_file: Path) -> None:
    Path("points.pts").write_text("nose: 3")
    refused(run(astronaut_file, "--landmarks", "points.pts"), 4, "points.pts is not a .pts file")


@pytest.mark.parametrize("kind", ["grey", "CMYK", "16-bit", "alpha", "palette", "EXIF-rotated", "sideways"])
def test_photographs_of_unusual_kinds_are_fitted_like_any_other(
    run: Run, fitted: list[FitResult], astronaut: np.ndarray, kind: str
) -> None:
    image = Image.fromarray(astronaut)
    match kind:
        case "grey":
            image.convert("L").save("photo.jpg", quality=95)
        case "CMYK":
            image.convert("CMYK").save("photo.jpg", quality=95)
        case "16-bit":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save("photo.png")
        case "alpha":
            image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda v: 255 * (v < 128)))
            image.save("photo.png")
        case "palette":
            image.convert("P", palette=Image.Palette.ADAPTIVE).save("photo.gif")
        case "EXIF-rotated":
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = 6
            image.transpose(Image.Transpose.ROTATE_90).save("photo.jpg", quality=95, exif=exif)
        case "sideways":
            image.transpose(Image.Transpose.ROTATE_90).save("photo.png")
    (path,) = Path().glob("photo.*")
    Image.fromarray(astronaut).save("plain.png")
    assert run("plain.png").exit_code == 0
    result = run(path)
    assert result.exit_code == 0, result.output
    plain, unusual = (one.observation for one in fitted)
    assert plain.landmarks is not None
    assert unusual.landmarks is not None
    found = unusual.landmarks
    if kind == "sideways":
        found = np.stack([512 - found[:, 1], found[:, 0]], axis=1)
    error = np.linalg.norm(found - plain.landmarks, axis=1)[17:].mean() / plain.interocular_px
    assert error < 0.03
    if kind == "alpha":
        assert unusual.mask is not None
        assert not unusual.mask[400:].any()
        assert unusual.mask[:200].all()


def test_a_folder_below_a_file_cannot_be_written(
    run: Run, fitted: list[FitResult], astronaut_file: Path
) -> None:
    Path("file").write_text("")
    refused(run(astronaut_file, "-o", "file/below"), 4, "cannot write file/below: a file is in the way")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_cannot_be_written(
    run: Run, fitted: list[FitResult], astronaut_file: Path
) -> None:
    os.mkdir("locked", 0o500)
    refused(run(astronaut_file, "-o", "locked/out"), 4, "cannot write locked/out: Permission denied")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a full disk only on Linux")
def test_a_full_device_ends_in_a_sentence(
    run: Run, astronaut_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(result: FitResult, folder: Path) -> list[tuple[str, str]]:
        (folder / "mesh.obj").write_text("v 0 0 0\n")
        (folder / "mesh.png").symlink_to("/dev/full")
        (folder / "mesh.png").write_bytes(b"0" * 100_000)
        return []

    monkeypatch.setattr(EXPORT, "write_results", write)
    refused(run(astronaut_file), 4, "No space left on device")


@pytest.mark.slow
def test_a_small_disk_fills_up(toy: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("this container may not mount a small file system")
    try:
        ended = facefit(toy, cwd=disk)
        assert ended.returncode == 4
        assert "cannot write toy_facefit: No space left on device" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_limit_on_file_size_is_met_in_a_sentence(toy: dict[str, str], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are set through the resource module")
    limit = 20_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ended = facefit(toy, cwd=tmp_path, preexec_fn=limited)
    assert ended.returncode == 4
    assert "cannot write toy_facefit: File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_ends_it_nothing_is_left(toy: dict[str, str], tmp_path: Path, number: int, code: int) -> None:
    running = subprocess.Popen(
        command(toy), cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not os.listdir(tmp_path) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    running.send_signal(number)  # while it writes its folder
    _, said = running.communicate(timeout=120)
    assert running.returncode == code, said
    if number == signal.SIGINT:
        assert "interrupted; nothing half-written is left behind" in said
    assert "Traceback" not in said
    assert os.listdir(tmp_path) == []


def command(toy: dict[str, str]) -> list[str]:
    options = ["--model", toy["model"], "--landmarks", toy["landmarks"], "--stages", "fast"]
    return [sys.executable, "-m", "facefit.cli", toy["photo"], *options]


def facefit(toy: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(command(toy), capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]
    assert isinstance(run, subprocess.CompletedProcess)
    return run
