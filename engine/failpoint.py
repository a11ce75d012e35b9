"""Named points on the path of a payment at which a test may stop the process for real. Off unless set.

PENSTOCK_FAILPOINTS is a list `name:action[@n]` separated by commas: at the n-th passing (default 1) of a point the
process gets SIGKILL (`kill`), SIGSTOP (`stop`), or the task an exception (`raise`). Refused in production by settings.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable
from typing import TypeVar

import anyio

ACCEPTANCE = ("before-accept", "after-accept")
PATH = (
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
# Passed too seldom, or by too many, to be met by chance: a test aims at each.
CORNERS = ("before-answer", "after-lease", "after-epoch", "after-resume", "after-claim", "after-read", "during-commit")
POINTS = (*ACCEPTANCE, *PATH, *CORNERS)

Result = TypeVar("Result")

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

    async def during(self, name: str, after_s: float, work: Awaitable[Result]) -> Result:
        """The work's result; this point is passed so long after its beginning."""
        if not self.armed(name):
            return await work
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._later, name, after_s)
            result = await work
        return result

    async def _later(self, name: str, after_s: float) -> None:
        await anyio.sleep(after_s)
        self(name)


UNARMED = Failpoints()
"""Stops nothing."""
