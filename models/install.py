"""Installing ICT-FaceKit: downloaded file by file and resumable, or out of an archive at hand; every file is
checked.

What is installed is the converted model in the cache; the 380 MB of text it is made from are deleted
afterwards.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from facefit.errors import ModelFileError
from facefit.models import ict
from facefit.models.cache import cache_folder, sha256_of
from facefit.models.landmark_map import packaged
from facefit.models.pack import save_model

Progress = Callable[[int, int, str], None]

MAX_FILE_BYTES = 16 << 20
# Members of an archive that are skipped still have to be decompressed, so their sum is limited too.
MAX_ARCHIVE_BYTES = 4 << 30
MAX_MEMBERS = 20_000
TIMEOUT_S = 30
CHUNK = 1 << 16


def install_ict(source: Path | None = None, progress: Progress | None = None) -> Path:
    """Download (None) or unpack ICT-FaceKit, check every file, convert; returns the installed file.

    A download that was interrupted continues where it stopped. `progress(done, total, file)` is called per
    file.
    """
    listed = packaged("ict_sha256.toml")
    wanted: dict[str, str] = listed["sha256"]
    report = progress or (lambda done, total, file: None)
    if source is None:
        folder = cache_folder() / "ict-download"
        _download_all(listed["base"], wanted, folder, report)
        installed = _convert(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return installed
    if not source.exists():
        raise ModelFileError(
            f"{source}: does not exist; --from takes an archive of ICT-FaceKit or its folder"
        )
    with tempfile.TemporaryDirectory(prefix="facefit-ict-") as scratch:
        _unpack(source, wanted, Path(scratch), report)
        return _convert(Path(scratch))


def _convert(folder: Path) -> Path:
    target = cache_folder() / "ict.safetensors"
    save_model(ict.read_folder(folder), target, compact=True)
    return target


def _unpack(source: Path, wanted: dict[str, str], folder: Path, report: Progress) -> None:
    """Copy the wanted files out of an archive or a folder; names and paths in it are never used as paths."""
    done = 0
    try:
        for name, stream in _members(source):
            if name not in wanted or (folder / name).exists():
                continue
            data = stream.read(MAX_FILE_BYTES + 1)
            if hashlib.sha256(data).hexdigest() != wanted[name]:
                raise ModelFileError(
                    f"{source}: {name} differs from the published one (sha256); if you changed it, load "
                    "the folder by its path instead of installing it"
                )
            (folder / name).write_bytes(data)
            done += 1
            report(done, len(wanted), name)
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ModelFileError(
            f"{source}: cannot be unpacked ({error}); --from takes a .tar.xz, .tar.gz, .zip or folder"
        ) from error
    if missing := [name for name in wanted if not (folder / name).exists()]:
        raise ModelFileError(
            f"{source}: lacks {len(missing)} of {len(wanted)} files, for example {missing[0]}"
        )


def _members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Base name and contents of every plain file, without writing anything."""
    if source.is_dir():
        return _folder_members(source)
    return _zip_members(source) if zipfile.is_zipfile(source) else _tar_members(source)


def _folder_members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    inner = source / "FaceXModel"
    for path in sorted((inner if inner.is_dir() else source).iterdir()):
        if path.is_file():
            with path.open("rb") as stream:
                yield path.name, stream


def _zip_members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist()[:MAX_MEMBERS]:
            if not info.is_dir() and info.file_size <= MAX_FILE_BYTES:
                with archive.open(info) as stream:
                    yield Path(info.filename).name, stream


def _tar_members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    with tarfile.open(source, "r:*") as archive:
        for count, member in enumerate(archive):
            total += max(0, member.size)
            if total > MAX_ARCHIVE_BYTES or count > MAX_MEMBERS:
                raise ModelFileError(f"{source}: holds far more than ICT-FaceKit; is it the right archive?")
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None:
                yield Path(member.name).name, stream


def _download_all(base: str, wanted: dict[str, str], folder: Path, report: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for done, (name, digest) in enumerate(wanted.items(), start=1):
        if not ((folder / name).is_file() and sha256_of(folder / name) == digest):
            download(base + name, folder / name, digest)
        report(done, len(wanted), name)


def download(url: str, target: Path, digest: str) -> None:
    """Fetch one file; what an earlier attempt left in `target.part` is continued, not fetched again."""
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if have > MAX_FILE_BYTES:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": "facefit"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            # 206: the server continues; 200: it starts again from the beginning.
            with part.open("ab" if answer.status == 206 else "wb") as stream:
                left = int(answer.headers.get("Content-Length") or 0)
                while (chunk := answer.read(CHUNK)) and stream.tell() <= MAX_FILE_BYTES:
                    stream.write(chunk)
                    left -= len(chunk)
        # http.client does not call a connection that ends early an error.
        if left > 0:
            raise OSError(f"{left} bytes are missing")
    except urllib.error.HTTPError as error:
        # 416: nothing is left to fetch. Whether it is all there, the checksum says.
        if error.code != 416:
            raise ModelFileError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ModelFileError(
            f"{url}: the download stopped ({error}); run the command again to continue, or give an archive "
            "with --from FILE"
        ) from error
    if sha256_of(part) != digest:
        part.unlink()
        raise ModelFileError(f"{url}: not the published file (sha256 differs); run the command again")
    part.replace(target)
