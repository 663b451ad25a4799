"""Names of expressions: ARKit's spelling, what is an activation, and which part of the face it moves."""

from __future__ import annotations

# Part of the face -> the beginnings of its ARKit names, in the order in which a person looks for them.
PARTS = {
    "Jaw": ("jaw", "tongue"),
    "Mouth": ("mouth",),
    "Eyes": ("eye", "Pupil", "pupil"),
    "Brows": ("brow",),
    "Cheeks and nose": ("cheek", "nose"),
}

# ARKit moves both sides of these with one number; the ICT face kit has a shape for each side.
BOTH_SIDES = ("browInnerUp", "cheekPuff")


def part_of(name: str) -> str:
    """The part of the face that an expression moves; "Other" for names that do not tell (statistical modes)."""
    return next((part for part, prefixes in PARTS.items() if name.startswith(prefixes)), "Other")


def is_activation(name: str) -> bool:
    """Whether 0 is rest and 1 the full shape, as for ARKit's; statistical modes run through negative values."""
    return part_of(name) != "Other"


def arkit_name(name: str) -> str:
    """ARKit's spelling of a model's own name, for example mouthSmile_L -> mouthSmileLeft; others stay."""
    if not is_activation(name) or name[-2:] not in ("_L", "_R"):
        return name
    if name[:-2] in BOTH_SIDES:
        return name[:-2]
    return name[:-2] + {"_L": "Left", "_R": "Right"}[name[-2:]]


def arkit_groups(names: tuple[str, ...]) -> dict[str, list[int]]:
    """ARKit's names in the model's order, and the expressions that add up to each."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(arkit_name(name), []).append(number)
    return groups
