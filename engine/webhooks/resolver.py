"""The resolver of webhooks' host names: threads that merchants share fairly, and addresses that are judged.

The system's resolver blocks, for long where a name's servers are silent, and cannot be interrupted. So it runs in
threads, and a merchant gets one only while it has fewer of them than are free: however many silent names it has, some
threads are left for others. Refuses a name as a whole when any of its addresses leads inside (url_policy.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from engine.contracts.url_policy import UrlPolicy

_LOOKUPS_MAX = 64  # names that are looked up at once; a thread that waits for silent servers costs little else
_TURN_S = 15.0  # as long as the longest attempt by default: whoever wanted the name is gone by then
_merchant: ContextVar[str] = ContextVar("merchant", default="")


def on_behalf_of(merchant: str) -> None:
    """From now on, this task looks up names for that merchant."""
    _merchant.set(merchant)


class ForbiddenAddress(OSError):
    """This address must not be called. The same text for each, because several at once are told by their text."""

    def __init__(self) -> None:
        super().__init__("the address is not public")


class Turns:
    """`count` threads. Each `take` that returned needs one `give_back`."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}  # the first one's turn is next

    async def take(self, merchant: str) -> None:
        if merchant not in self._lines and self._may(merchant):
            return self._begin(merchant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(merchant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # given and not wanted any more
                self.give_back(merchant)
            raise

    def give_back(self, merchant: str) -> None:
        """To the next merchant in turn that may have one."""
        self._free += 1
        self._held[merchant] -= 1
        if not self._held[merchant]:
            del self._held[merchant]
        for waiting in list(self._lines):
            line = self._lines.pop(waiting)
            while line and line[0].done():
                line.popleft()
            if line and self._may(waiting):
                self._begin(waiting)
                line.popleft().set_result(None)
            if line:
                self._lines[waiting] = line  # behind the others

    def _may(self, merchant: str) -> bool:
        return self._held[merchant] < self._free

    def _begin(self, merchant: str) -> None:
        self._free -= 1
        self._held[merchant] += 1


class SystemResolver(AbstractResolver):
    """The system's resolver, for the merchant of the task that asks."""

    def __init__(
        self, *, lookups_max: int = _LOOKUPS_MAX, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    ) -> None:
        self._threads = ThreadPoolExecutor(lookups_max, thread_name_prefix="lookup")
        self._turns = Turns(lookups_max)
        self._getaddrinfo = getaddrinfo

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        merchant, loop = _merchant.get(), asyncio.get_running_loop()
        async with asyncio.timeout(_TURN_S):
            await self._turns.take(merchant)
        question = (host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        asked = self._threads.submit(self._getaddrinfo, *question)

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._turns.give_back, merchant)

        asked.add_done_callback(ended)  # when the thread is free: whoever asked may have gone long before
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in await asyncio.wrap_future(asked)
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Refuses a name as a whole when any of its addresses leads inside."""

    def __init__(self, url_policy: UrlPolicy, resolver: AbstractResolver) -> None:
        self._url_policy, self._resolver = url_policy, resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(is_allowed(self._url_policy, one["host"]) for one in found):
            raise ForbiddenAddress
        return found

    async def close(self) -> None:
        await self._resolver.close()


def is_allowed(url_policy: UrlPolicy, address: str) -> bool:
    """Whether a connection to this address, as the system writes it, may be made."""
    try:
        return url_policy.allows(ip_address(address.partition("%")[0]))  # without the zone of a link-local one
    except ValueError:
        return False
