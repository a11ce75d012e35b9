"""Edges and workers for the tests, forked from one process that has imported what they need.

Importing it takes longer than most tests; a fork takes milliseconds. Each child is else as if started anew: its own
environment, log, signals and exit code. When the tests are gone, so is whatever they left.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

_LOOK_EVERY_S = 0.01
_ROLES = ("edge", "worker", "dispatcher", "auditor")


class Child:
    """One process, as subprocess.Popen shows it."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask(look=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_LOOK_EVERY_S)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """Starts with the first child."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def start(self, role: str, environ: Mapping[str, str], log: Path) -> Child:
        """A process that runs ops.assembly.<role>.run_<role>."""
        log.touch()  # who asks for it right away finds it
        return Child(self, self.ask(role=role, environ=dict(environ), log=str(log)))

    def ask(self, **order: object) -> Any:
        with self._lock:
            if self._process is None:
                words = [sys.executable, __file__]
                self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                atexit.register(self._close, self._process)
            orders, answers = self._process.stdin, self._process.stdout
            assert orders is not None and answers is not None
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            return json.loads(answers.readline())

    def _close(self, process: subprocess.Popen[str]) -> None:
        process.communicate()


def _serve() -> None:
    for role in _ROLES:
        importlib.import_module(f"ops.assembly.{role}")
    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "look" in order:
            answer = _looked(order["look"], children)
        else:
            answer = os.fork() or _live(order["role"], order["environ"], order["log"])
            children.add(answer)
        print(json.dumps(answer), flush=True)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _looked(pid: int, children: set[int]) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    children.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _live(role: str, environ: Mapping[str, str], log: str) -> int:
    """The life of a child: it does not return."""
    code = 1
    try:
        sink, nothing = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (sink, 1), (sink, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(environ)
        settings = importlib.import_module("ops.assembly.settings").load_settings()
        getattr(importlib.import_module(f"ops.assembly.{role}"), f"run_{role}")(settings)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


NURSERY = Nursery()

if __name__ == "__main__":
    _serve()
