"""The steps of a server's end, one by one: what the kernel has completed is taken, and what comes later is refused."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge.server.protocol import configuration
from ops.assembly.drain import DrainingServer
from ops.assembly.serving import bind

REQUEST = b"GET / HTTP/1.1\r\nhost: edge\r\n\r\n"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[DrainingServer, socket.socket, int]]:
    """A server that answers everything, its listening socket and port; `shutdown` is the test's to call."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse("here")

    server = DrainingServer(configuration(Starlette(routes=[Route("/", answer)])))
    listener = bind("127.0.0.1", 0, "PORT")
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listener])
    await server.on_tick(0)
    yield server, listener, listener.getsockname()[1]


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


def connected(port: int) -> socket.socket:
    """Without a turn for the server: the kernel answers the handshake."""
    return socket.create_connection(("127.0.0.1", port), 10)


async def read(client: socket.socket) -> bytes:
    """One answer, or nothing when the connection is closed."""
    answer = b""
    while not answer.endswith(b"here") and (more := await asyncio.to_thread(client.recv, 4096)):
        answer += more
    return answer


@pytest.mark.parametrize("sent", [True, False])
def test_connections_in_the_queue_of_the_listening_socket_are_taken_and_answered(sent: bool) -> None:
    async def test() -> None:
        async with served() as (server, listener, port):
            with ExitStack() as open_ones:
                clients = [open_ones.enter_context(connected(port)) for _ in range(100)]
                for client in clients if sent else ():
                    client.sendall(REQUEST)

                ending = asyncio.create_task(server.shutdown([listener]))
                await asyncio.sleep(0.5)
                for client in () if sent else clients:  # whose handshake was through, and who says something only now
                    client.sendall(REQUEST)
                answers = [await read(client) for client in clients]
                await ending

                assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 100
                assert all(b"\r\nconnection: close\r\n" in answer for answer in answers)

    run(test)


def test_a_kept_connection_is_answered_once_more_and_a_silent_one_is_closed() -> None:
    async def test() -> None:
        async with served() as (server, listener, port):
            with connected(port) as kept, connected(port) as silent:
                kept.sendall(REQUEST)
                first = await read(kept)

                ending = asyncio.create_task(server.shutdown([listener]))
                await asyncio.sleep(0.5)
                kept.sendall(REQUEST)
                last = await read(kept)
                await ending

                assert b"connection: close" not in first
                assert last.startswith(b"HTTP/1.1 200") and b"\r\nconnection: close\r\n" in last
                assert (await read(kept), await read(silent)) == (b"", b"")

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can leave a handshake unanswered")
def test_no_connection_is_completed_any_more_before_the_socket_is_closed() -> None:
    async def test() -> None:
        async with served() as (server, listener, port):
            ending = asyncio.create_task(server.shutdown([listener]))
            await asyncio.sleep(0)
            late = socket.socket()
            late.settimeout(0.05)  # within the time in which the queue is emptied
            with late, pytest.raises(TimeoutError):
                late.connect(("127.0.0.1", port))
            await ending
            with pytest.raises(ConnectionRefusedError):
                connected(port)

    run(test)
