"""One key under way twice: the bank does not guard a key against itself, and says in its log when that was put to it.

A client whose attempts are serial never gets such a line, however long the bank stalls. Who counts holds afterwards
needs it: a hold that was placed twice because the bank lost its key looks the same in the tables.
"""

import logging
from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from bank.simulator.idempotency import idempotency_keys

EVENT = "key_under_way_twice"

logger = logging.getLogger(__name__)


class OverlapLog:
    """The layer around the idempotency cache. One line for each time that a key is asked while it is asked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.under_way: Counter[tuple[str, bytes]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = idempotency_keys(scope) if scope["type"] == "http" and scope["method"] == "POST" else []
        if not keys or not keys[0]:
            await self.app(scope, receive, send)
            return
        asked = (scope["path"], keys[0])
        self.under_way[asked] += 1
        if self.under_way[asked] > 1:
            logger.warning(EVENT, extra={"path": asked[0], "key": asked[1].decode(errors="replace")})
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way[asked] -= 1
            if not self.under_way[asked]:
                del self.under_way[asked]
