"""The supervisor: keeps the child processes of a local stack alive, and takes them along when it ends.

Each child leads a session of its own, so Ctrl-C reaches only us and we stop them in order. Each child's stdin is a pipe
whose other end only we hold: however we end, the child sees it close and ends too. A child that dies is started again
after a growing pause, for ever; who watches the stack is told.
"""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from engine.errors import Broken
from ops.process_exit import how_it_ended

FOLLOWS = "PENSTOCK_PARENT_PID"
TICK_S = 0.05
_PAUSE_MIN_S = 0.2
_PAUSE_MAX_S = 5.0  # a cause that passes is noticed soon; one that stays costs little
_STEADY_S = 10.0  # a child that lived this long has earned the short pause again
_PROBE_S = 1.0
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run. `environ` is asked at every start, `ready_url` answers 200 once the child does its work."""

    name: str
    role: str
    port: int
    command: Sequence[str]
    environ: Callable[[], Mapping[str, str]]
    ready_url: str
    log: Path
    patience_s: float


class Child:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, lifeline: int) -> None:
        self.program, self._lifeline = program, lifeline
        self.ready = False
        self.pause_s = _PAUSE_MIN_S
        self.due = 0.0
        self.process = self._start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def restart(self) -> None:
        self.process = self._start()

    def kill(self, rest_s: float) -> None:
        """SIGKILL; it is started again when it has rested that long."""
        self.due = time.monotonic() + rest_s
        self.process.kill()

    def probe(self) -> bool:
        """Ask whether it is ready, unless it is known to be."""
        self.ready = self.ready or answers(self.program.ready_url)
        return self.ready

    def signal_group(self, number: signal.Signals) -> None:
        """To the child and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            lines = self.program.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return ""

    def _start(self) -> subprocess.Popen[bytes]:
        self.ready, self.started_at = False, time.monotonic()
        self.due = 0.0
        log: BinaryIO
        with self.program.log.open("ab") as log:
            return subprocess.Popen(
                self.program.command,
                env={**self.program.environ(), FOLLOWS: str(os.getpid())},
                stdin=self._lifeline,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


class Supervisor:
    """Children in the order they were started. `say` tells the person at the terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.children: list[Child] = []
        self._lifeline, self._our_end = os.pipe()

    def start(self, program: Program) -> None:
        self.children.append(Child(program, self._lifeline))

    def starting(self) -> bool:
        """One look while the stack starts: whether somebody is not ready yet. Raises Broken when one ended instead."""
        for child in self.children:
            if child.ended and not child.ready:
                raise Broken(
                    f"{child.program.name} ended while it started ({how_it_ended(child.process.returncode)}); "
                    f"the end of {child.program.log}:\n{child.last_words()}"
                )
        return not all([child.probe() for child in self.children])

    def run_once(self) -> bool:
        """One look: bury the dead, start again who is due. True when a restarted child became ready."""
        changed = False
        for child in self.children:
            if child.ended:
                self._revive(child)
            elif not child.ready and child.probe():
                self._say(f"{child.program.name} is ready again (pid {child.pid})")
                changed = True
        return changed

    def stop(self, role: str, urgent: Callable[[], bool]) -> None:
        """End all children of this role together, by SIGTERM and, out of patience or when urgent, by SIGKILL."""
        leaving = [child for child in self.children if child.program.role == role]
        for child in leaving:
            if not child.ended:
                child.process.terminate()
        give_up_at = time.monotonic() + max((child.program.patience_s for child in leaving), default=0)
        while any(not child.ended for child in leaving) and time.monotonic() < give_up_at and not urgent():
            time.sleep(TICK_S)
        for child in leaving:
            if not child.ended and not urgent():
                self._say(f"{child.program.name} did not stop within {child.program.patience_s:.0f} s and was killed")
            child.signal_group(signal.SIGKILL)
            child.process.wait()
            self.children.remove(child)

    def close(self) -> None:
        """Let go of the lifeline."""
        os.close(self._lifeline)
        os.close(self._our_end)

    def _revive(self, child: Child) -> None:
        now = time.monotonic()
        if not child.due:
            child.signal_group(signal.SIGKILL)  # what it had started would hold its port
            if now - child.started_at > _STEADY_S:
                child.pause_s = _PAUSE_MIN_S
            child.due, child.ready = now + child.pause_s, False
            self._say(
                f"{child.program.name} died ({how_it_ended(child.process.returncode)}); "
                f"starting it again in {child.pause_s:.1f} s, its log: {child.program.log}"
            )
            child.pause_s = min(child.pause_s * 2, _PAUSE_MAX_S)
        elif now >= child.due:
            child.restart()


def answers(url: str) -> bool:
    """Whether this URL answers 200 right now."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":  # on this machine, by whatever name its certificate has
        unverified = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_PROBE_S, context=unverified)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PROBE_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def follow_supervisor() -> None:
    """In a child: end, with all we started, as soon as the supervisor is gone. Does nothing without a supervisor."""
    if os.environ.pop(FOLLOWS, "") and os.getpgrp() == os.getpid():
        threading.Thread(target=_follow, name="lifeline", daemon=True).start()


def _follow() -> None:
    while os.read(0, 1):  # nobody writes: this returns when the last holder of the other end is gone
        pass
    os.killpg(0, signal.SIGKILL)
