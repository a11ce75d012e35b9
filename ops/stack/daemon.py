"""One server process of the local stack: alone in its folder, ready when started, gone when stopped.

It runs in a session of its own, so that Ctrl-C reaches the stack first, which then stops it in order. A watchdog stops
it when its owner was killed. A lock on the folder, which the server inherits and the kernel frees when the last of its
processes is gone, keeps a second server from the same files; a pid in a file could not: pids are used again.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from engine.errors import PenstockError
from ops.stack.address import any_free_port
from ops.stack.watchdog import kill_tree

_READY_S = 30.0  # a server that was killed under load replays its log first
_STOP_S = 20.0
_PROBE_S = 0.01
_LOCK_S = 25.0  # the watchdog of a killed stack may still be stopping the server of last time
_PORT_TRIES = 5
_PORT_TAKEN = "Address already in use"
_TAIL_LINES = 12


class EmbeddedError(PenstockError):
    """An embedded server cannot be run; the message says why in plain words, with the end of the server's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one kind of server is run."""

    name: str
    folder: Path  # its files, and its log
    command: Callable[[int], Sequence[str | Path]]  # for a port
    ready: Callable[[int, int], bool]  # whether it serves, for a pid and a port
    stop: signal.Signals  # asks for an orderly stop
    user: str | None = None  # run as this account instead of ours


@dataclass(slots=True, kw_only=True)
class Daemon:
    """Starts and stops the server of a recipe. `port` 0 takes any free one, and keeps it from then on."""

    port: int
    _any_port: bool = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _watchdog: subprocess.Popen[bytes] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._any_port = self.port == 0

    @property
    def pid(self) -> int:
        """Of the server's first process. Raises EmbeddedError when it was not started."""
        if self._process is None:
            raise EmbeddedError("the server was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, recipe: Recipe, lock: BinaryIO) -> None:
        """Returns when the server serves. `lock` is handed on to it. Raises EmbeddedError."""
        if self.running:
            raise EmbeddedError(f"{recipe.name} was started already")
        self._dismiss_watchdog()  # of a server that died by itself
        for _ in range(_PORT_TRIES):
            self.port = self.port or any_free_port()
            trouble = self._try(recipe, lock)
            if trouble is None:
                return
            if _PORT_TAKEN not in trouble:
                raise EmbeddedError(f"{recipe.name} did not start:\n{trouble}")
            taken, self.port = self.port, 0
            if not self._any_port:
                self.port = taken
                break
        raise EmbeddedError(f"{recipe.name} did not start: port {taken} is in use by another program")

    def stop(self, stop: signal.Signals) -> None:
        """Asks the server to stop and waits; a stuck one is killed. Does nothing when it is not running."""
        if self._process is not None and self.running:
            self._process.send_signal(stop)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._dismiss_watchdog()

    def kill(self) -> None:
        """SIGKILL for all processes of the server."""
        if self._process is not None and self.running:
            kill_tree(psutil.Process(self._process.pid))
            self._process.wait()
        self._dismiss_watchdog()

    def _try(self, recipe: Recipe, lock: BinaryIO) -> str | None:
        """None, or the end of the log of a server that did not come up."""
        path = recipe.folder / "server.log"
        with path.open("ab") as log:
            begin = log.tell()
            self._process = _spawn(recipe.command(self.port), recipe, log, lock.fileno())
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-P", "-m", "ops.stack.watchdog", str(self.pid), recipe.stop.name],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            if self._came_up(recipe):
                return None
        except BaseException:
            self.kill()
            raise
        self.kill()
        return tail(path, begin)

    def _came_up(self, recipe: Recipe) -> bool:
        patience = time.monotonic() + _READY_S
        while self.running and time.monotonic() < patience:
            if recipe.ready(self.pid, self.port):
                return True
            time.sleep(_PROBE_S)
        return False

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.communicate()
            self._watchdog = None


def claim(folder: Path, name: str) -> BinaryIO:
    """The lock on a folder, made if it is missing. Raises EmbeddedError when another stack has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+b")
    except OSError as error:
        raise EmbeddedError(f"{name} cannot keep its data in {folder}: {error.strerror}") from error
    patience = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            lock.seek(0)
            owner = int(lock.read() or 0)
            if (owner != os.getpid() and psutil.pid_exists(owner)) or time.monotonic() > patience:
                lock.close()
                raise EmbeddedError(f"{name} already runs in {folder}, started by process {owner}") from None
            time.sleep(_PROBE_S)
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock


def run_as(user: str | None, command: Sequence[str | Path], folder: Path) -> None:
    """Runs a short command to its end. Raises EmbeddedError with what it said."""
    try:
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, **_account(user))
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise EmbeddedError(f"{Path(command[0]).name} failed:\n{(done.stderr or done.stdout).decode(errors='replace')}")


def tail(path: Path, begin: int = 0) -> str:
    """The last lines of a log, from an offset on."""
    lines = path.read_bytes()[begin:].decode(errors="replace").splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "(its log is empty)"


def _spawn(command: Sequence[str | Path], recipe: Recipe, log: BinaryIO, lock: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=recipe.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
            **_account(recipe.user),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{recipe.name} cannot be run: {error}") from error


def _account(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Ours without PG*, which would lead a server astray; C, because macOS resolves other locales with threads."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
