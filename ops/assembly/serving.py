"""Serving HTTP inside a process that has more to do: a socket bound first, a signal that stops in order."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import uvicorn

from engine.errors import Broken

_BACKLOG = 2048
_FILES_MAX = 65_536  # above the connections of an edge and its stores; some systems refuse "infinitely many"


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process decides when it stops, and what stops after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, variable: str) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises Broken in words when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Broken(f"{host}:{port} cannot be used ({error.strerror}): set {variable} to another port") from error
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


def allow_many_files() -> None:
    """As many open connections as this account may have; the usual soft limit of 1024 is for programs of long ago."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if most == resource.RLIM_INFINITY else min(_FILES_MAX, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


@contextmanager
def obeyed(stop: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM do nothing but call this: for what must not be left half-done."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def ignored() -> None:
    """Nobody else has to hear of a signal."""


async def until_signalled(server: Server, listener: socket.socket, tell: Callable[[], None] = ignored) -> None:
    """Serve until SIGTERM or SIGINT, and then to the end of what is under way: orchestrators, shells and wrappers send
    the same signal more than once. Only a second Ctrl-C does not wait for open requests. `tell` is called at each."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_obey, server, tell)
        await server.serve([listener])
        tasks.cancel_scope.cancel()


async def _obey(server: Server, tell: Callable[[], None]) -> None:
    interrupts = 0
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            interrupts += number is signal.SIGINT
            server.force_exit = interrupts > 1
            server.should_exit = True
            tell()
