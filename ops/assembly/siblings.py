"""An edge of several processes: they share one socket, and begin and end together.

The parent serves nothing. A signal to it, to one of the others or to all of them, however often, ends all in order.
When one dies the others end in order too, and it is said: whoever supervises us starts us again, and a second
supervisor here would only hide a crash. When the parent dies, however that came about, its children end in order.
Each child has a small door of its own on loopback (/livez, /readyz, /metrics): the others read its metrics there.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import structlog

from engine.errors import Broken
from ops.assembly.logs import crash_logged
from ops.assembly.serving import bind
from ops.process_exit import how_it_ended

_ENDED_IN_ORDER = (0, -signal.SIGTERM)  # the latter before it served anybody
_LOOK_EVERY_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """What a child is given: its number from 1, the public socket, its own door, and where everybody's is."""

    number: int
    listener: socket.socket
    door: socket.socket
    ports: tuple[int, ...]


def share(
    listener: socket.socket, processes: int, serve: Callable[[Sibling], None], *, patience_s: float, metrics_port: int
) -> None:
    """Serve one socket from several processes until a signal. Their own doors are at `metrics_port` and above, or at
    any free ports when it is 0. Raises Broken when one of them died, or did not end within `patience_s`."""
    doors = [
        bind("127.0.0.1", metrics_port and metrics_port + number, "PENSTOCK_EDGE_METRICS_PORT")
        for number in range(processes)
    ]
    ports = tuple(door.getsockname()[1] for door in doors)
    context = multiprocessing.get_context("spawn")
    children: list[BaseProcess] = []
    with _signals() as heard:
        for number, door in enumerate(doors, 1):
            sibling = Sibling(number=number, listener=listener, door=door, ports=ports)
            child = context.Process(target=_live, args=(serve, sibling), name=f"edge-{number}", daemon=True)
            child.start()
            children.append(child)
        for ours in (listener, *doors):  # the port is free when the last child has closed it
            ours.close()
        faults = _watch(children, heard, patience_s)
    if faults:
        raise Broken("; ".join(faults))


def tell_parent() -> None:
    """In a child that was told to stop: so are all the others."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None and os.getppid() == parent.pid:
        with suppress(ProcessLookupError):
            os.kill(parent.pid, signal.SIGTERM)


def _watch(children: Sequence[BaseProcess], heard: int, patience_s: float) -> list[str]:
    """Until all have ended. What went wrong, in words."""
    running, faults = list(children), []
    interrupts, asked, stopping, kill_at = 0, False, False, math.inf
    while running:
        ready = multiprocessing.connection.wait([heard, *(child.sentinel for child in running)], _LOOK_EVERY_S)
        if heard in ready:
            asked, interrupts = True, interrupts + os.read(heard, 64).count(signal.SIGINT)
        for child in [child for child in running if child.sentinel in ready]:
            child.join()
            running.remove(child)
            if not asked or child.exitcode not in _ENDED_IN_ORDER:
                how = how_it_ended(child.exitcode)
                log.error("edge_process_died", process=child.name, pid=child.pid, how=how)
                faults.append(f"{child.name} (pid {child.pid}) died ({how}); all processes of the edge were ended")
        if (asked or faults) and not stopping:
            stopping, kill_at = True, time.monotonic() + patience_s
            for child in running:
                child.terminate()
        if interrupts > 1 or time.monotonic() > kill_at:
            interrupts, kill_at = 0, math.inf
            for child in running:
                log.error("edge_process_killed", process=child.name, pid=child.pid)
                child.kill()
    return faults


@contextmanager
def _signals() -> Iterator[int]:
    """A file that holds the number of each SIGINT and SIGTERM that we got."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before_fd = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(heard)
        os.close(told)


def _live(serve: Callable[[Sibling], None], sibling: Sibling) -> None:
    """The life of a child."""
    threading.Thread(target=_follow_parent, name="lifeline", daemon=True).start()
    try:
        serve(sibling)
    except Exception:  # the border of the process: what goes wrong on purpose becomes a sentence
        from ops.errors import or_exit  # which knows much of what an edge does not need

        with crash_logged(), or_exit(1):
            raise


def _follow_parent() -> None:
    """When the parent is gone, end as if told to: the pipe behind its sentinel is closed by the kernel."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
