"""For tests of Ctrl-C: a shell starts what runs in its background deaf to it, and children inherit that."""

from __future__ import annotations

import signal


def hear_interrupts() -> None:
    """In a child, before it becomes another program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
