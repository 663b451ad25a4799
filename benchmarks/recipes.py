"""Recipes by name, and the same recipes with one thing taken away.

Variants are read off the stages' own fields, so a term that is added to the fit is ablated without being
named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from facefit.errors import FacefitError

METHODS = ("mean", "landmarks", "standard", "detailed")
# Unknowns a fit can do without; pose and identity are the point of it.
SPARE_UNKNOWNS = ("focal", "expression", "albedo", "lighting", "offsets")
WITHOUT = " without "


def recipe(method: str) -> tuple[Any, ...]:
    """`standard`, or `standard without contour`: the stages of the recipe, by their public names."""
    from facefit.fitting import stages

    base, _, removed = method.partition(WITHOUT)
    name = {"landmarks": "FAST"}.get(base, base.upper())
    if base not in METHODS[1:] or not hasattr(stages, name):
        raise FacefitError(f"method {base!r} is not known here; there are {', '.join(METHODS)}")
    full = tuple(getattr(stages, name))
    if not removed:
        return full
    found = variants(full)
    if removed not in found:
        raise FacefitError(f"{base!r} has nothing called {removed!r}; there are {', '.join(found)}")
    return found[removed]


def variants(full: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    """What is taken away -> the recipe without it: terms, spare unknowns, stages but the first."""
    found: dict[str, tuple[Any, ...]] = {}
    switches = [f.name for f in fields(full[0]) if isinstance(getattr(full[0], f.name), bool)]
    for switch in switches:
        # The first two stages find pose and a start; without landmarks there they find nothing at all.
        needed = 2 if switch == "landmarks" else 0
        if any(getattr(stage, switch) for stage in full[needed:]):
            name = f"{switch} after the start" if needed else switch
            found[name] = (*full[:needed], *(replace(stage, **{switch: False}) for stage in full[needed:]))
    dark = tuple(stage for stage in full if not stage.photometric_px)
    if len(dark) < len(full):
        found["photometry"] = dark
    for unknown in SPARE_UNKNOWNS:
        if any(unknown in stage.free for stage in full):
            rest = (replace(s, free=tuple(n for n in s.free if n != unknown)) for s in full)
            found[f"free {unknown}"] = tuple(stage for stage in rest if stage.free)
    for stage in full[1:]:
        found[f"stage {stage.name}"] = tuple(other for other in full if other is not stage)
    return found
