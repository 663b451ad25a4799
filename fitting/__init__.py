"""The inverse side: from a photograph to the scene that explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facefit.fitting.entry import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Any:
    # On first use only: the recipe brings torch and the compiled kernels.
    if name == "fit":
        from facefit.fitting import entry

        return entry.fit
    raise AttributeError(f"module 'facefit.fitting' has no attribute {name!r}")
