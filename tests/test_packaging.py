"""What is installed is what is here: every package listed, every file in the wheel, every version pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = ("models", "fitting", "learned_init", "benchmarks")


def packages_on_disk() -> dict[str, Path]:
    found = {}
    for top in ("facefit", *ROOMS):
        prefix = top if top == "facefit" else f"facefit.{top}"
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            if not (top == "facefit" and parts and (ROOT / top / parts[0]).is_symlink()):
                found[".".join([prefix, *parts])] = init.parent
    return found


def test_every_folder_with_an_init_is_listed() -> None:
    assert sorted(packages_on_disk()) == sorted(SETUPTOOLS["packages"])


def test_every_folder_with_code_has_an_init() -> None:
    packages = set(packages_on_disk().values())
    for top in ("facefit", *ROOMS):
        for path in (ROOT / top).rglob("*.py"):
            if not any(part.is_symlink() for part in path.parents):
                assert path.parent in packages, f"{path.parent} holds code and no __init__.py"


def test_the_mapping_and_the_links_agree() -> None:
    for room in ROOMS:
        assert SETUPTOOLS["package-dir"][f"facefit.{room}"] == room
        link = ROOT / "facefit" / room
        if link.is_symlink():  # a clone on Windows may hold plain files in their place
            assert os.readlink(link) == f"../{room}"


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def constraints() -> dict[str, str]:
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    ]
    return dict(line.split("==") for line in lines if line)


def test_constraints_are_names_and_versions_and_nothing_else() -> None:
    for name, pinned in constraints().items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        # No local version such as +cpu: it exists on one index only.
        assert re.fullmatch(r"[0-9][0-9a-z.]*", pinned), f"{name}=={pinned}"


def test_every_dependency_is_pinned() -> None:
    project = PROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    pinned = {normalised(name) for name in constraints()}
    for requirement in wanted:
        if "sys_platform" in requirement and "linux" not in requirement:
            continue  # the pins are of Linux; other systems take the stand-ins in the same range
        if re.search(r"!= '(linux|x86_64)'", requirement) or normalised(requirement) == "facefit":
            continue
        assert normalised(requirement) in pinned, requirement


def test_the_version_is_one() -> None:
    import facefit

    assert facefit.__version__ == PROJECT["project"]["version"] == version("facefit")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder appears here."""
    copy = tmp_path_factory.mktemp("source") / "facefit"
    ignored = shutil.ignore_patterns(
        ".*",
        "__pycache__",
        "*.egg-info",
        "build",
        "dist",
        "*_facefit",
        *(() if os.name == "posix" else ROOMS),
    )
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for top in ("facefit", *ROOMS):
        shutil.copytree(ROOT / top, copy / top, symlinks=True, ignore=ignored if top == "facefit" else None)
    out = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), str(copy)]
    subprocess.run([sys.executable, *build], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_its_data_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for package, folder in packages_on_disk().items():
        patterns = ["*.py", *SETUPTOOLS["package-data"].get(package, [])]
        files = {path.name for pattern in patterns for path in folder.glob(pattern)}
        expected |= {f"{package.replace('.', '/')}/{name}" for name in files}
    assert inside == expected
    # Whatever else lies in a package's folder would be missing from an installed copy.
    for folder in packages_on_disk().values():
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in (".py", ".md"):
                assert any(name.endswith(f"/{path.name}") for name in inside), f"{path} is in no package-data"


@pytest.mark.slow
def test_the_wheel_alone_answers(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import facefit.cli, facefit.models.camera, facefit.export; print(facefit.cli.__file__)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ended.stdout.strip()).is_relative_to(tmp_path)
