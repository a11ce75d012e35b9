"""Serving HTTP inside a process that has more to do: a socket bound first, a signal that stops in order."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
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


def share(listener: socket.socket, processes: int, serve: Callable[[socket.socket], None]) -> None:
    """Serve one socket from several processes. A signal stops all; when one dies the others stop too, and it is said.

    Whoever supervises us starts us again: a second supervisor here would only hide a crash.
    """
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=serve, args=(listener,)) for _ in range(processes)]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            if child.is_alive():
                child.terminate()

    for child in children:
        child.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    multiprocessing.connection.wait([child.sentinel for child in children])
    died = not stopping
    stop()
    for child in children:
        child.join()
    if died:
        raise Broken("an edge process died; see its log")


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


async def until_signalled(server: Server, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; a second signal does not wait for open requests."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_obey, server)
        await server.serve([listener])
        tasks.cancel_scope.cancel()


async def _obey(server: Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True
