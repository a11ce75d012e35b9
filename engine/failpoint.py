"""Named points on the path of a payment at which a test may stop the process for real. Off unless set.

PENSTOCK_FAILPOINTS is a list `name:action[@n]` separated by commas: at the n-th passing (default 1) of a point the
process gets SIGKILL (`kill`), SIGSTOP (`stop`), or the task an exception (`raise`). Refused in production by settings.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter

POINTS = (
    "before-accept",
    "after-accept",
    "before-intent",
    "after-intent",
    "before-bank",
    "during-bank",
    "after-bank",
    "before-outcome",
    "after-outcome",
    "before-settle",
    "after-settle",
)
_SHAPE = re.compile(r"([a-z-]+):(kill|stop|raise)(?:@([1-9][0-9]{0,8}))?\Z")


class FailpointReached(Exception):
    """What the action `raise` raises: an exception nobody expects."""


class Failpoints:
    """Counts passings and acts when one is due. Raises ValueError for a text that is not understood."""

    def __init__(self, text: str = "") -> None:
        self._armed: dict[str, dict[int, str]] = {}
        self._passed: Counter[str] = Counter()
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            match = _SHAPE.match(part)
            if match is None or match[1] not in POINTS:
                raise ValueError(
                    f"{part!r} is no failpoint: use name:kill|stop|raise[@n] with a name of {', '.join(POINTS)}"
                )
            self._armed.setdefault(match[1], {})[int(match[3] or 1)] = match[2]

    def armed(self, name: str) -> bool:
        return name in self._armed

    def __call__(self, name: str) -> None:
        """Pass this point."""
        if not self._armed or name not in self._armed:
            return
        self._passed[name] += 1
        action = self._armed[name].get(self._passed[name])
        if action is None:
            return
        if action == "raise":
            raise FailpointReached(name)
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
