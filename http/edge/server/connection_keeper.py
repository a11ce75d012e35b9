"""The keeper of one process' connections: none beyond its deadline, and never so many that the door is shut.

When all places are taken, the connection that has rested longest makes room, one that never carried a call before one
that did: ten thousand silent connections cost an honest client nothing. A newcomer is refused only where every
connection has a call under way, which admission.py bounds far below.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

TICK_S = 0.5  # how late a deadline may be seen; a look at 10,000 connections takes a millisecond


class Kept(Protocol):
    """What is kept: connection.py."""

    deadline: float
    resting: OrderedDict[Kept, None] | None
    loop: asyncio.AbstractEventLoop

    def expire(self) -> None: ...
    def drop(self) -> None: ...
    def look_at_peer(self) -> None: ...


class Keeper:
    """At most `connections_max` of them; looks at all every TICK_S, as long as there are any."""

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self._open: set[Kept] = set()
        self._never_used: OrderedDict[Kept, None] = OrderedDict()  # in the order in which they began to rest
        self._used: OrderedDict[Kept, None] = OrderedDict()
        self._half_closed: set[Kept] = set()
        self._ticking = False

    def has_room(self, newcomer: Kept) -> bool:
        """Keep one more, and drop another where they are too many. Returns False where none can be dropped."""
        self._open.add(newcomer)
        if not self._ticking:
            self._ticking = True
            newcomer.loop.call_later(TICK_S, self._tick, newcomer.loop)
        if len(self._open) <= self.connections_max:
            return True
        for resting in (self._never_used, self._used):
            if resting:
                oldest = next(iter(resting))
                self.busy(oldest)
                oldest.drop()
                return True
        return False

    def idle(self, connection: Kept, *, used: bool) -> None:
        """No call is under way on it. Where it rests already it keeps its place."""
        if connection.resting is None:
            connection.resting = self._used if used else self._never_used
            connection.resting[connection] = None

    def busy(self, connection: Kept) -> None:
        """A call has begun on it."""
        if connection.resting is not None:
            del connection.resting[connection]
            connection.resting = None

    def watch(self, connection: Kept) -> None:
        """Look whether its half-closed peer is still there, until it ends."""
        self._half_closed.add(connection)

    def gone(self, connection: Kept) -> None:
        """It is closed."""
        self.busy(connection)
        self._open.discard(connection)
        self._half_closed.discard(connection)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [each for each in self._open if each.deadline <= now]:
            connection.expire()
        for connection in tuple(self._half_closed):
            connection.look_at_peer()
        self._ticking = bool(self._open)
        if self._ticking:
            loop.call_later(TICK_S, self._tick, loop)
