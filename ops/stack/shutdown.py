"""Being told to stop: the first signal asks for an orderly end, the second for a quick one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

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
