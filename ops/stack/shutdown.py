"""Being told to stop: the first signal asks for an orderly end, the second for a quick one.

Under make, Ctrl-C would stop make as well, which is a failure however orderly we end; so the terminal becomes ours.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """A signal came while we did something that need not be finished."""


class StopRequest:
    """Counts the signals that ask us to stop, while `heard`."""

    def __init__(self) -> None:
        self._signals = 0

    @property
    def made(self) -> bool:
        return self._signals > 0

    @property
    def urgent(self) -> bool:
        return self._signals > 1

    def check(self) -> None:
        """Raises StopRequested once we were told."""
        if self.made:
            raise StopRequested

    @contextmanager
    def heard(self) -> Iterator[None]:
        before = [signal.signal(number, self._hear) for number in _ASKING]
        try:
            yield
        finally:
            for number, handler in zip(_ASKING, before, strict=True):
                signal.signal(number, handler)

    def _hear(self, *_: object) -> None:
        self._signals += 1


@contextmanager
def alone_in_the_foreground() -> Iterator[None]:
    """When make runs us in a terminal: a process group of our own, to which alone Ctrl-C goes. It cannot be paused
    meanwhile (Ctrl-Z), because make would not know."""
    if not os.environ.get("MAKELEVEL") or not sys.stdin.isatty() or os.getpgrp() == os.getpid():
        yield
        return
    theirs, paused = os.getpgrp(), signal.signal(signal.SIGTSTP, lambda *_: None)
    os.setpgid(0, 0)
    _hand_terminal(os.getpid())
    try:
        yield
    finally:
        _hand_terminal(theirs)
        with suppress(PermissionError):  # of that group, nobody lives
            os.setpgid(0, theirs)
        signal.signal(signal.SIGTSTP, paused)


def _hand_terminal(group: int) -> None:
    """To a process group. Whoever is in the background may do so only with this signal blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with suppress(OSError):  # the terminal was closed
        os.tcsetpgrp(sys.stdin.fileno(), group)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
