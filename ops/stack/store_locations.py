"""Where an installation is, for commands that look at one: what the variables say, else the stack of a data folder."""

from __future__ import annotations

from pathlib import Path

from engine.errors import Broken
from ops.stack.data_dir import DataDir
from ops.store_url import Locations, given_url

_LEDGER, _REDIS, _BANK = "PENSTOCK_DATABASE_URL", "PENSTOCK_REDIS_URL", "PENSTOCK_BANK_DATABASE_URL"


def places(folder: DataDir) -> Locations:
    """Ledger and Redis are both named by variables, or both those of the folder. Raises Broken."""
    ledger, redis, bank = (given_url(name) for name in (_LEDGER, _REDIS, _BANK))
    if ledger and redis:
        return Locations(ledger=ledger, redis=redis, bank=bank)
    if ledger or redis:
        raise Broken(f"set both {_LEDGER} and {_REDIS}, or neither for the local stack")
    running = folder.state()
    return Locations(ledger=running["database"], redis=running["redis"], bank=bank or running["bank_database"])


def ledger_of(data_dir: Path) -> str:
    """The ledger alone, for commands that need nothing else. Raises Broken."""
    return given_url(_LEDGER) or str(DataDir(data_dir).state()["database"])
