"""A clock that is wrong on purpose: the true one and the seconds in a file. For tests; refused in production.

A test that strikes a running process with a wrong or a stepping clock renames a new file into the place of the old one:
half a number would be no number. Without a file the clock is right.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from engine.contracts.connector import Clock
from ops.assembly.settings import SettingsError

REREAD_S = 0.05
OFFSET_MAX_S = 10 * 366 * 86_400.0  # no date falls out of the calendar


class OffsetClock:
    """Raises SettingsError where the file is not understood. Later nonsense in it changes nothing."""

    def __init__(self, path: Path, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock, self._monotonic = path, clock, monotonic
        self._offset, self._read_at = _offset(path), monotonic()

    def __call__(self) -> datetime:
        if self._monotonic() - self._read_at >= REREAD_S:
            self._read_at = self._monotonic()
            with suppress(SettingsError):
                self._offset = _offset(self._path)
        return self._clock() + self._offset


def _offset(path: Path) -> timedelta:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return timedelta(0)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"PENSTOCK_CLOCK_OFFSET_FILE: {path} cannot be read ({error})") from error
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not abs(seconds) <= OFFSET_MAX_S:
        raise SettingsError(
            f"PENSTOCK_CLOCK_OFFSET_FILE: {path} must hold seconds between -{OFFSET_MAX_S:.0f} and {OFFSET_MAX_S:.0f}, "
            "as in -3.5"
        )
    return timedelta(seconds=seconds)
