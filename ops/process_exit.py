"""How a process ended, in words, for whoever reads a log or a terminal."""

from __future__ import annotations

import signal


def how_it_ended(code: int | None) -> str:
    """In words, of an exit code as subprocess and multiprocessing give it."""
    if code is not None and code < 0:
        return f"signal {-code}, {signal.Signals(-code).name}"
    return f"exit code {code}"
