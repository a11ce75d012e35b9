"""A whole stack of one's own: in a temporary directory, on free ports, gone afterwards. For the bench and the demo.

It is `penstock up` as a child in a session of its own, so that Ctrl-C reaches us alone and we stop it in its order.
Nothing of the caller's environment decides what it talks to: a bench must never meet a real store.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from engine.errors import Broken, PenstockError
from ops.stack.data_dir import DataDir

MERCHANT_KEY = "sk_local_merchant"
READY_S = 90.0  # a cold machine initialises Postgres first
STOP_S = 30.0  # above the drain of a worker
LOOK_AGAIN_S = 0.1
LOG_LINES = 15
KEPT = "PENSTOCK_REDIS_SERVER"  # which server to run is the machine's business; where to connect is ours


class StackFailed(PenstockError):
    """The stack did not start, or died; the text says why, with the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    role: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralAddresses:
    """Where the parts of a ready stack are, as `penstock status --json` tells it."""

    edge: str
    bank: str
    redis: str
    database: str
    bank_database: str
    processes: tuple[Process, ...]
    data_dir: Path


@contextmanager
def own_stack(
    *, purpose: str, options: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Iterator[EphemeralAddresses]:
    """A ready stack with these options of `penstock up`. Raises StackFailed."""
    data_dir = Path(tempfile.mkdtemp(prefix=f"penstock-{purpose}-"))
    data_dir.chmod(0o711)  # when root starts it, Postgres runs under another account and must pass
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    if KEPT in os.environ:
        inherited[KEPT] = os.environ[KEPT]
    command = [sys.executable, "-m", "ops.cli.main", "up", "--data-dir", str(data_dir), "--edge-port", "0"]
    try:
        with (data_dir / "up.log").open("wb") as log:
            up = subprocess.Popen(
                [*command, "--bank-port", "0", *options],
                env={**inherited, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield _when_ready(up, data_dir)
        finally:
            _stop(up)
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _when_ready(up: subprocess.Popen[bytes], data_dir: Path) -> EphemeralAddresses:
    patience = time.monotonic() + READY_S
    folder = DataDir(data_dir)
    while time.monotonic() < patience:
        if up.poll() is not None:
            raise StackFailed(f"the stack did not start: `penstock up` ended with {up.returncode}\n{_tail(data_dir)}")
        with suppress(Broken):  # nothing is ready yet
            return _addresses(folder.state(), data_dir)
        time.sleep(LOOK_AGAIN_S)
    raise StackFailed(f"the stack was not ready within {READY_S:.0f} s\n{_tail(data_dir)}")


def _addresses(state: Mapping[str, Any], data_dir: Path) -> EphemeralAddresses:
    return EphemeralAddresses(
        edge=state["edge"],
        bank=state["bank"],
        redis=state["redis"],
        database=state["database"],
        bank_database=state["bank_database"],
        processes=tuple(Process(role=each["role"], pid=each["pid"]) for each in state["processes"]),
        data_dir=data_dir,
    )


def _tail(data_dir: Path) -> str:
    """The last lines of every log in the directory, the stack's own last."""
    parts = []
    logs = sorted(data_dir.rglob("*.log"), key=lambda log: (log.name == "up.log", log))
    for log in logs:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        if lines:
            parts.append("\n".join([f"--- {log.relative_to(data_dir)}", *lines]))
    return "\n".join(parts)


def _stop(up: subprocess.Popen[bytes]) -> None:
    """In its own order if it can; whatever is left of it is killed."""
    family = _family(up.pid)
    if up.poll() is None:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
    for process in family:
        if process.is_running():
            process.kill()
    psutil.wait_procs(family, timeout=5)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
