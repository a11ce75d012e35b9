"""Stops an embedded server whose owner died without stopping it: `python -m ops.stack.watchdog PID SIGNAL`.

It reads a pipe that the owner holds open; the pipe ends when the owner does, however that came about. A parent-death
signal would not do: it is Linux only, follows a thread instead of a process, and is forgotten when the user changes.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import psutil

_STOP_S = 20  # an orderly stop writes a checkpoint; longer than this it is stuck


def watch(pid: int, stop: signal.Signals) -> None:
    """Returns when the pipe on stdin has ended and the process is gone."""
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)  # remembers when it was started: a reused pid is left alone
        sys.stdin.buffer.read()
        server.send_signal(stop)
        try:
            server.wait(_STOP_S)
        except psutil.TimeoutExpired:
            kill_tree(server)


def kill_tree(server: psutil.Process) -> None:
    """SIGKILL for a server and its children, which have sessions of their own; returns when all are gone."""
    family = [server, *server.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=_STOP_S)


if __name__ == "__main__":
    watch(int(sys.argv[1]), signal.Signals[sys.argv[2]])
