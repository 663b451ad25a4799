"""Names of expressions: which are ARKit activations, and to which part of the face they belong."""

from __future__ import annotations

# Part of the face -> the beginnings of its ARKit names, in the order in which a person looks for them.
PARTS = {
    "Jaw": ("jaw", "tongue"),
    "Mouth": ("mouth",),
    "Eyes": ("eye", "Pupil", "pupil"),
    "Brows": ("brow",),
    "Cheeks and nose": ("cheek", "nose"),
}


def part_of(name: str) -> str:
    """The part of the face that an expression moves; "Other" for names that do not tell (statistical modes).
    """
    return next((part for part, prefixes in PARTS.items() if name.startswith(prefixes)), "Other")


def is_activation(name: str) -> bool:
    """Whether 0 is rest and 1 the full shape, as for ARKit's; statistical modes run through negative values
    too.
    """
    return part_of(name) != "Other"
