"""Where an installation is, for commands that look at one: what the variables say, else the stack of a data folder."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass

from engine.errors import Broken
from ops.data_dir import KEY_BYTES, DataDir

_LEDGER, _REDIS, _BANK = "PENSTOCK_DATABASE_URL", "PENSTOCK_REDIS_URL", "PENSTOCK_BANK_DATABASE_URL"
_KEY = "PENSTOCK_FINGERPRINT_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the stores are. Without the bank's database, nothing is reconciled."""

    ledger: str
    redis: str
    bank: str | None = None


def places(folder: DataDir) -> Places:
    """Ledger and Redis are both named by variables, or both those of the folder. Raises Broken."""
    ledger, redis, bank = (os.environ.get(name) for name in (_LEDGER, _REDIS, _BANK))
    if ledger and redis:
        return Places(ledger=ledger, redis=redis, bank=bank)
    if ledger or redis:
        raise Broken(f"set both {_LEDGER} and {_REDIS}, or neither for the local stack")
    running = folder.state()
    return Places(ledger=running["database"], redis=running["redis"], bank=bank or running["bank_database"])


def ledger_of(folder: DataDir) -> str:
    """The ledger alone. Raises Broken."""
    return os.environ.get(_LEDGER) or str(folder.state()["database"])


def permanent_key(folder: DataDir) -> bytes:
    """The key that fingerprints and the journal's MACs derive from. Raises Broken; never makes one."""
    text = os.environ.get(_KEY)
    if not text and os.environ.get(_LEDGER):
        raise Broken(f"{_KEY} is missing: the journal's key derives from it")
    try:
        key = base64.b64decode(text or folder.known_key("fingerprint"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise Broken(f"{_KEY} must be base64 of {KEY_BYTES} bytes, the same that the workers have")
    return key
