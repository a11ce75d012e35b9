"""Where customers speak to the gateway: requests to whichever edge answers, and when the shop closes.

No answer is None: whether the request arrived is not known, and the caller repeats its key. Nothing is retried here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import aiohttp

from ops.stack.ephemeral_stack import MERCHANT_KEY

PATIENCE_S = 8.0  # above the longest wait that is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    status: int
    body: bytes


class Counter:
    """`closing`: customers begin no further step. `closed`: they give up what they wait for. `run` is in all keys."""

    def __init__(self, http: aiohttp.ClientSession, edges: list[str], run: str) -> None:
        self._http, self._edges, self.run = http, itertools.cycle(edges), run
        self.closing = False
        self.closed = False

    async def post(self, path: str, key: str, body: bytes | None, wait_s: int) -> ClientAnswer | None:
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        return await self._ask("POST", path, headers, body)

    async def get(self, path: str) -> ClientAnswer | None:
        return await self._ask("GET", path, {}, None)

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> ClientAnswer | None:
        url = next(self._edges) + path
        try:
            async with self._http.request(method, url, headers=headers, data=body) as response:
                return ClientAnswer(status=response.status, body=await response.read())
        except (aiohttp.ClientError, OSError):  # a time-out is an OSError
            return None


def session() -> aiohttp.ClientSession:
    """For as many customers as there are at once; one whose edge is silent does not hold up another."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
        timeout=aiohttp.ClientTimeout(total=PATIENCE_S, connect=2),
        headers={"X-API-Key": MERCHANT_KEY},
    )
