"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from facefit.errors import UnreadableInput


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` when the block ends well, and vanishes when it does not.

    A folder that is already there is replaced only if it is an earlier result or empty; what the user has put
    beside the result's own files stays.
    """
    target = Path(os.path.realpath(folder))
    partial: Path | None = None
    try:
        if target.exists() and not _is_result(target):
            raise UnreadableInput(f"{folder} exists and is not a facefit result: give another place with -o")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}-", dir=target.parent))
        yield partial
        partial.chmod(0o777 & ~_umask())
        _put_in_place(partial, target)
    except OSError as error:
        if error.filename and not Path(str(error.filename)).is_relative_to(target.parent):
            raise  # not about writing here: a file of facefit's own, say
        in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
        reason = "a file is in the way" if in_the_way else error.strerror or str(error)
        raise UnreadableInput(f"cannot write {folder}: {reason}; give another place with -o") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _is_result(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        described = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        return folder != Path.cwd() and not any(folder.iterdir())
    except (OSError, ValueError):
        return False
    return isinstance(described, dict) and "facefit" in described


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}-", dir=target.parent))
    former = aside / target.name
    try:
        target.replace(former)
        try:
            partial.replace(target)
        except BaseException:
            former.replace(target)
            raise
        for own in former.iterdir():
            if not (target / own.name).exists():
                own.replace(target / own.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
