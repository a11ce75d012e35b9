"""Clients that send payments at a steady rate while an edge stops, and know what became of each.

A request counts as not sent when the connection was refused, or when the server had closed the kept one before anything
was written. Whatever was written and got no whole answer is lost: its client cannot know what happened.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass, field
from uuid import uuid4

import orjson

from support.gateway import a_payment

ANSWER_WITHIN_S = 60.0


@dataclass(kw_only=True)
class Seen:
    """Answers by status, requests that were not sent, and requests that were and got no answer."""

    answers: Counter[int] = field(default_factory=Counter)
    not_sent: int = 0
    lost: list[str] = field(default_factory=list)
    closing: int = 0  # answers that said that theirs is the last of the connection

    def __str__(self) -> str:
        told = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        return f"{told}; {self.not_sent} not sent; {len(self.lost)} lost; {self.closing} said connection: close"


class Client:
    """One connection at a time, kept as long as both sides want it; `keeps` False opens one for each request."""

    def __init__(self, port: int, card: str, seen: Seen, *, keeps: bool, tls: ssl.SSLContext | None = None) -> None:
        self._port, self._card, self._seen, self._keeps, self._tls = port, card, seen, keeps, tls
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def pay(self, wait_s: int) -> None:
        """One payment; what became of it is counted."""
        try:
            reader, writer = await self._connected()
        except ConnectionRefusedError:
            self._seen.not_sent += 1
            return
        except OSError as error:  # with TLS a server that accepted may end before it said anything
            self._seen.lost.append(f"while connecting: {error!r}")
            return
        writer.write(self._request(wait_s))
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                status, closes = await _answer(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._seen.lost.append(f"{'kept' if self._keeps else 'new'} connection: {error!r}")
            self._close()
            return
        self._seen.answers[status] += 1
        self._seen.closing += closes
        if closes or not self._keeps:
            self._close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is not None and not self._connection[0].at_eof():
            return self._connection
        self._close()
        self._connection = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    def _request(self, wait_s: int) -> bytes:
        body = orjson.dumps(a_payment(self._card))
        return (
            b"POST /v1/payments HTTP/1.1\r\nhost: edge\r\nx-api-key: sk_local_merchant\r\nprefer: wait=%d\r\n"
            b"idempotency-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s"
            % (wait_s, uuid4().hex.encode(), len(body), b"" if self._keeps else b"connection: close\r\n", body)
        )


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the connection ends. Raises what asyncio raises when there is no whole answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"\r\nconnection: close\r\n" in head


async def drive(
    port: int, card: str, *, per_s: int, wait_s: int, ended: asyncio.Event, tls: ssl.SSLContext | None = None
) -> Seen:
    """So many payments a second until `ended` and all are answered: half of them on kept connections, each with one
    request at a time, half on new ones."""
    seen = Seen()
    kept: list[Client] = []
    async with asyncio.TaskGroup() as calls:

        async def one(keeps: bool) -> None:
            client = kept.pop(0) if keeps and kept else Client(port, card, seen, keeps=keeps, tls=tls)
            await client.pay(wait_s)
            if keeps:
                kept.append(client)

        number = 0
        due = asyncio.get_running_loop().time()
        while not ended.is_set():
            number += 1
            calls.create_task(one(keeps=number % 2 == 0))
            due += 1 / per_s
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
    for client in kept:
        client._close()
    return seen
