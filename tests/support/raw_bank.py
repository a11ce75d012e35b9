"""A server that answers HTTP requests with exact bytes, or breaks off in the middle: the nasty end of the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson


@dataclass(kw_only=True)
class Received:
    """One request as it came in."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    writer: asyncio.StreamWriter

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def reset(self) -> None:
        """Close with an RST instead of a FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Received], Awaitable[None]]


@dataclass(kw_only=True)
class RawBank:
    script: Script
    url: str = ""
    connections: int = 0
    received: list[Received] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # a request came in
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)  # the client ended a connection

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in head[1:] if line)]
                length = next(int(value) for key, value in headers if key.lower() == "content-length")
                body = await reader.readexactly(length)
                request = Received(line=head[0], headers=headers, body=body, writer=writer)
                self.received.append(request)
                self.asked.set()
                await self.script(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def raw_bank(script: Script) -> AsyncIterator[RawBank]:
    """A RawBank on a free port, gone with all its connections at the end."""
    bank = RawBank(script=script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(bank.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    bank.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield bank
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http(status: int, body: bytes | dict[str, object], content_type: str = "application/json", *more: str) -> bytes:
    """A whole response."""
    data = orjson.dumps(body) if isinstance(body, dict) else body
    lines = [f"HTTP/1.1 {status} Word", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def sending(*pieces: bytes, close: bool = False) -> Script:
    """Answer every request with these bytes."""

    async def script(request: Received) -> None:
        for piece in pieces:
            request.writer.write(piece)
            await request.writer.drain()
        if close:
            request.writer.close()

    return script


async def silence(request: Received) -> None:
    """Read the request and never answer."""
    await asyncio.Event().wait()
