"""Who may import whom: downwards only, numba in the kernels only, nothing heavy before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import facefit

ROOT = Path(__file__).parent.parent
ROOMS = {
    "facefit": ROOT / "facefit",
    "facefit.models": ROOT / "models",
    "facefit.fitting": ROOT / "fitting",
    "facefit.learned_init": ROOT / "learned_init",
    "facefit.benchmarks": ROOT / "benchmarks",
}

# The higher may import the lower and their equals.
LEVELS = {
    "facefit": 0,  # names and version only; its public names are imported on first use
    "facefit.errors": 0,
    "facefit.atomic": 0,
    "facefit.mesh": 0,
    "facefit.obj": 0,
    "facefit.ply": 0,
    "facefit.gltf": 0,
    "facefit.expressions": 0,
    "facefit.kernels": 0,
    "facefit.rendering": 1,
    "facefit.models": 1,
    "facefit.camera_conventions": 1,
    "facefit.mouth_light": 2,
    "facefit.picture": 2,
    "facefit.uv_layout": 2,
    "facefit.landmark_files": 2,
    "facefit.dense_landmarks": 2,
    "facefit.detection": 2,
    "facefit.observation": 2,
    "facefit.fitting": 3,
    "facefit.learned_init": 3,
    "facefit.reconstruct": 4,
    "facefit.steps": 5,
    "facefit.cli": 5,
    "facefit.__main__": 5,
    "facefit.models_cli": 5,
    "facefit.export": 5,
    "facefit.report": 5,
    "facefit.together_folder": 5,
    "facefit.benchmarks": 5,
}
# Modules of the front door that are not named turn results into pictures, textures and files.
UNNAMED = 4

# Equals that must not know each other either.
STRANGERS = (
    ("facefit.rendering", "facefit.models"),
    ("facefit.fitting", "facefit.learned_init"),
    ("facefit.kernels", "facefit.mesh"),
)


def sources() -> Iterator[tuple[str, Path]]:
    for package, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder)
            if package == "facefit" and (folder / inner.parts[0]).is_symlink():
                continue  # a link to another room
            parts = inner.with_suffix("").parts
            yield ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)]), path


def imports(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The longest prefix with a level of its own."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if (name := ".".join(parts[:length])) in LEVELS:
            return name
    return module


def test_nobody_imports_upwards() -> None:
    known = {module for module, _ in sources()}
    for module, path in sources():
        for target in imports(module, path):
            if target not in known or target == "facefit" or module == "facefit":
                continue
            mine, theirs = LEVELS.get(room(module), UNNAMED), LEVELS.get(room(target), UNNAMED)
            assert theirs <= mine, (
                f"{module} (level {mine}) imports {target} (level {theirs}): "
                "imports go downwards only; a new module gets its level in LEVELS"
            )


def test_strangers_stay_strangers() -> None:
    for module, path in sources():
        for target in imports(module, path):
            for a, b in STRANGERS:
                pair = (room(module), room(target))
                assert pair not in ((a, b), (b, a)), (
                    f"{module} imports {target}: {a} and {b} do not know each other"
                )


def test_numba_lives_in_the_kernels_only() -> None:
    for module, path in sources():
        if any(target.split(".")[0] == "numba" for target in imports(module, path)):
            assert room(module) == "facefit.kernels", f"{module} imports numba"


@pytest.mark.parametrize("library", ["chumpy", "pytorch3d", "nvdiffrast", "face_recognition_models"])
def test_some_libraries_are_never_imported(library: str) -> None:
    for module, path in sources():
        assert all(target.split(".")[0] != library for target in imports(module, path)), module


HEAVY = ("torch", "numba", "sklearn", "scipy", "kornia", "dlib", "open3d", "numpy", "PIL", "rich")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["photo.jpg", "--fov", "x"]])
def test_the_command_line_answers_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    answer = f"from facefit.cli import main; CliRunner().invoke(main, {arguments})"
    assert heavy_imports_of(f"from click.testing import CliRunner; {answer}") == "[]"


def test_importing_facefit_imports_nothing_heavy() -> None:
    assert heavy_imports_of("import facefit; facefit.NoFaceFound") == "[]"


@pytest.mark.parametrize(("own", "then"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(own: str | None, then: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    code = "import facefit, os; print(os.environ['OMP_WAIT_POLICY'])"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert told.stdout.strip() == then


def heavy_imports_of(code: str) -> str:
    check = f"{code}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_every_public_name_is_there_and_stays_itself() -> None:
    for name in facefit.__all__:
        first = getattr(facefit, name)
        # `facefit.export` is a function and the module it comes from: the function must win, twice.
        assert getattr(facefit, name) is first
        assert type(first).__name__ != "module"
    assert set(facefit.__all__) <= set(dir(facefit))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'chumpy'"):
        facefit.chumpy  # noqa: B018
