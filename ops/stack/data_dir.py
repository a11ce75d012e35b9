"""The folder of a local stack: who holds it, its keys, its logs, and what runs there now.

One stack a folder: the lock is the kernel's, so a killed stack leaves none behind. The state file appears when
everything is ready and goes when the stack stops; `penstock status` is a look at it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine.errors import Broken

DEFAULT = Path(".penstock")
KEY_BYTES = 32
KEYS = {"PENSTOCK_MASTER_KEY": "master", "PENSTOCK_FINGERPRINT_KEY": "fingerprint"}
_LOCK = "lock"
_STATE = "state.json"
_CONTENTS = ("postgres", "redis", "logs", "master.key", "fingerprint.key", _STATE)


class DataDir:
    """Everything under one folder, by name. Paths are absolute, because children may look from elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    @contextmanager
    def held(self, *, fresh: bool) -> Iterator[None]:
        """Hold the folder alone; `fresh` wipes what an earlier stack left. Raises Broken when another holds it."""
        if fresh:
            self._check_ours()
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK).open("a+", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise Broken(
                    f"a stack already runs in {self.root} (pid {lock.read().strip() or 'unknown'}): "
                    "stop it first, or choose another folder with --data-dir"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            if fresh:
                self._wipe()
            self.forget_state()
            try:
                yield
            finally:
                self.forget_state()

    def holder(self) -> int | None:
        """The pid of the stack that holds the folder; None when there is none."""
        try:
            with (self.root / _LOCK).open("r", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(lock.read().strip() or 0) or None
        except FileNotFoundError:
            return None
        return None

    def options(self) -> list[str]:
        """The command line of the stack that runs here, behind `penstock up`; nothing when none has become ready."""
        try:
            state = json.loads((self.root / _STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        return [str(word) for word in state.get("options", [])]

    def key(self, name: str) -> str:
        """Base64 of 32 random bytes, made at the first call and kept (0600) for the life of the folder."""
        path = self.root / f"{name}.key"
        if not path.exists():
            if self.postgres.exists():
                raise Broken(
                    f"{path} is gone, but the ledger beside it was written with it: put it back, set "
                    f"PENSTOCK_{name.upper()}_KEY, or start over with --fresh"
                )
            _write_private(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
        return path.read_text(encoding="ascii").strip()

    def keys(self) -> dict[str, str]:
        """The keys of the folder, by the variable that a process takes each from."""
        return {variable: self.key(name) for variable, name in KEYS.items()}

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace what runs here, whole."""
        _write_private(self.root / _STATE, json.dumps(state, indent=1))

    def forget_state(self) -> None:
        (self.root / _STATE).unlink(missing_ok=True)

    def state(self) -> dict[str, Any]:
        """What runs here. Raises Broken with the reason when nothing does, or not all of it."""
        try:
            state = json.loads((self.root / _STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Broken(
                f"nothing is ready in {self.root}: start it with `penstock up`, wait a moment, or name another folder "
                "with --data-dir; a deployment is named by PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL"
            ) from None
        if not psutil.pid_exists(state.pop("supervisor")):
            raise Broken(f"the stack in {self.root} was killed: start it again with `penstock up`")
        dead = [f"{each['role']} ({each['pid']})" for each in state["processes"] if not is_alive(each["pid"])]
        if dead:
            raise Broken(f"not everything runs in {self.root}: {', '.join(dead)} died and is being started again")
        state.pop("options", None)
        return dict(state)

    def _check_ours(self) -> None:
        if self.root.exists() and any(self.root.iterdir()) and not (self.root / _LOCK).exists():
            raise Broken(f"{self.root} is no folder of `penstock up`: --fresh will not wipe it")

    def _wipe(self) -> None:
        for name in _CONTENTS:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (self.root / "logs").mkdir()


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that ended and only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and for our eyes only from the first byte."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
