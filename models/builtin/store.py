"""The shipped file: what `generate` makes, halved by symmetry and rounded to 16 bits.

Identity and albedo modes are even or odd across the midline, so the left half says everything; right-sided
expressions are mirror images of left-sided ones. One step of a 16-bit number is at most a thousandth of a
millimetre.
"""

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

PATH = Path(__file__).with_name("builtin.safetensors")
MODES = {"identity": np.array([-1.0, 1.0, 1.0]), "albedo": np.ones(3)}


def write(model: dict[str, np.ndarray], path: Path = PATH) -> None:
    """Write `generate`'s arrays as one safetensors file."""
    tensors: dict[str, np.ndarray] = {}
    mirror = model["mirror"].astype(np.int64)
    half = half_count(mirror)
    for name, reflection in MODES.items():
        modes = model[name]
        right = np.flatnonzero(mirror < np.arange(len(mirror)))
        expected = modes[:, mirror[right]] * reflection
        odd = np.abs(modes[:, right] - expected).max(axis=(1, 2)) > np.abs(modes[:, right] + expected).max(
            axis=(1, 2)
        )
        tensors[f"{name}.half"], tensors[f"{name}.step"] = rounded(modes[:, :half])
        tensors[f"{name}.odd"] = odd.astype(np.uint8)
    names = model["expression_names"].tolist()
    kept = [i for i, name in enumerate(names) if not is_mirror_image(name)]
    shapes, tensors["expression.step"] = rounded(model["expression"][kept])
    # Most shapes leave most of the head alone: only the vertices that move are kept.
    which, vertex = np.nonzero(shapes.any(axis=2))
    tensors["expression.count"] = np.bincount(which, minlength=len(kept)).astype(np.int32)
    tensors["expression.vertex"], tensors["expression.moved"] = (
        vertex.astype(np.uint16),
        shapes[which, vertex],
    )
    for name, array in model.items():
        if name in (*MODES, "expression", "expression_names"):
            continue
        tensors[name] = array.astype(np.uint16) if array.dtype == np.int32 else array
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(tensors, path, metadata={"expression_names": " ".join(names)})
    path.chmod(0o644)  # safetensors makes a file only its owner may read


def read(path: Path = PATH) -> dict[str, np.ndarray]:
    """The arrays of `generate`, from the file."""
    with safe_open(path, framework="np") as file:
        names = file.metadata()["expression_names"].split()
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = {
        name: array.astype(np.int32) if array.dtype == np.uint16 else array
        for name, array in stored.items()
        if "." not in name
    }
    mirror = model["mirror"].astype(np.int64)
    for name, reflection in MODES.items():
        modes = expanded(stored[f"{name}.half"], stored[f"{name}.step"])
        sign = np.where(stored[f"{name}.odd"], -1.0, 1.0)[:, None, None].astype(np.float32)
        right = np.arange(modes.shape[1], len(mirror))
        model[name] = np.concatenate(
            [modes, sign * modes[:, mirror[right]] * reflection.astype(np.float32)], axis=1
        )
    unmirrored = [name for name in names if not is_mirror_image(name)]
    shapes = np.zeros((len(unmirrored), len(mirror), 3), dtype=np.int16)
    which = np.repeat(np.arange(len(unmirrored)), stored["expression.count"])
    shapes[which, stored["expression.vertex"]] = stored["expression.moved"]
    kept = dict(zip(unmirrored, expanded(shapes, stored["expression.step"]), strict=True))
    flip = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    model["expression"] = np.stack(
        [kept[n] if n in kept else kept[n.removesuffix("Right") + "Left"][mirror] * flip for n in names]
    )
    model["expression_names"] = np.array(names)
    return model


def is_mirror_image(expression_name: str) -> bool:
    return expression_name.endswith("Right")


def half_count(mirror: np.ndarray) -> int:
    """Vertices of the left half and the midline, which come first."""
    return int((mirror >= np.arange(len(mirror))).sum())


def rounded(modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """16-bit integers and the step of each mode."""
    step = np.maximum(np.abs(modes).max(axis=(1, 2)), 1e-9) / 32767.0
    return np.rint(modes / step[:, None, None]).astype(np.int16), step.astype(np.float32)


def expanded(steps: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.asarray(steps.astype(np.float32) * step[:, None, None])
