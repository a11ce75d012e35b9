"""Places at banks: so many attempts are under way at once, and the merchants that want one take turns (I10).

First come, first served would let everybody wait behind the one merchant with ten thousand payments. Here a free place
goes to the merchant whose turn it is, and within a merchant to who came first. Who waits has nothing committed yet.
"""

from __future__ import annotations

import asyncio
from collections import deque


class FairSemaphore:
    """`count` of them. Each `take` that returned needs one `give_back`."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}  # never an empty line; the first one's turn is next

    async def take(self, merchant: str) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(merchant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given and not wanted any more
                self.give_back()
            raise

    def give_back(self) -> None:
        """To whoever's turn it is."""
        while self._lines:
            merchant = next(iter(self._lines))
            line = self._lines.pop(merchant)
            turn = line.popleft()
            if line:
                self._lines[merchant] = line  # behind the others
            if not turn.done():
                return turn.set_result(None)
        self._free += 1
