"""One line per request, at debug level.

Not at info: a JSON line per request would cost a tenth of what serving it costs, and under load a bank to practise
on is asked thousands of times a second. A line names no card and no key.
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AccessLog:
    """The layer around everything; only built when the level asks for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status = time.monotonic(), 0  # A status of 0 is a connection closed without an answer.

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            total_ms = round((time.monotonic() - began_s) * 1000, 3)
            line = {"method": scope["method"], "path": scope["path"], "status": status, "total_ms": total_ms}
            logger.debug("request", extra=line)
