"""The master keys of an installation, for its operator: who holds which, what is sealed with which, which may go.

A key may go when it seals no more, nothing is sealed with it, and it stopped sealing so long ago that what edges had
accepted by then has reached the ledger. Cards lose theirs as payments are answered; webhook secrets and stored answers
stay for ever, so they are sealed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from engine.errors import Broken
from engine.ledger.session import connect
from engine.ledger.statement import statement as engine_statement
from engine.security.encryption import Vault, answer_subject, secret_subject
from ops.statement import statement

_BATCH = 200
_AFTERMATH = timedelta(minutes=5)  # from the last seal until what was sealed is in the ledger, streams being drained


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKey:
    """One key by its id. `sealed`: how many things of each kind wait under it."""

    id: str
    seals: bool
    first_seen_at: datetime
    sealed_until: datetime | None
    sealed: dict[str, int]
    may_go: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One process: the id of its PENSTOCK_MASTER_KEY, and of all that it can open."""

    kind: str
    name: str
    current: str
    keys: tuple[str, ...]
    silent_s: float


def read_keys(dsn: str) -> tuple[list[MasterKey], list[Holder]]:
    """What the ledger knows of keys. Raises Broken, psycopg.Error."""
    with connect(dsn, row_factory=dict_row) as ledger:
        known = ledger.execute(statement("master_keys")).fetchall()
        rows = ledger.execute(engine_statement("sealed_with")).fetchall()
        holders = [Holder(**{**row, "keys": tuple(row["keys"])}) for row in ledger.execute(statement("key_holders"))]
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["key"] or "", {})[row["what"]] = row["sealed"]
    now = datetime.now(UTC)
    wanted = {holder.current for holder in holders}
    return [_key(row, found.get(row["id"], {}), row["id"] in wanted, now) for row in known], holders


def reseal(dsn: str, vault: Vault) -> int:
    """Webhook secrets and stored answers, under the key that seals now. How many. Raises Broken."""
    with connect(dsn, row_factory=dict_row, autocommit=True) as ledger:
        row = next((each for each in ledger.execute(statement("master_keys")).fetchall() if each["seals"]), None)
        if row is None or row["id"] not in vault.checks:
            raise Broken("the key that seals now is not here: set PENSTOCK_MASTER_KEY and PENSTOCK_RETIRED_MASTER_KEYS")
        vault.use(row["id"], vault.checks)
        return _resealed(ledger, vault, "secret") + _resealed(ledger, vault, "answer")


def _resealed(ledger: psycopg.Connection[Any], vault: Vault, what: str) -> int:
    done = 0
    while True:
        arguments = {"sealing": vault.sealing, "limit": _BATCH}
        rows = ledger.execute(statement(f"sealed_{what}s"), arguments).fetchall()
        for row in rows:
            subject = (
                answer_subject(row["id"])
                if what == "answer"
                else secret_subject(row["endpoint"] or row["merchant"], row["scheme"])
            )
            try:
                resealed = vault.resealed(row["sealed"], subject)
            except ValueError:
                raise Broken(
                    f"a {what} of {row.get('endpoint') or row.get('merchant') or row['id']} is sealed with a key that "
                    "is not here: add it to PENSTOCK_RETIRED_MASTER_KEYS"
                ) from None
            ledger.execute(statement(f"reseal_{what}"), {**row, "resealed": resealed})
        done += len(rows)
        if len(rows) < _BATCH:
            return done


def _key(row: dict[str, Any], sealed: dict[str, int], wanted: bool, now: datetime) -> MasterKey:
    until: datetime | None = row["sealed_until"]
    idle = row["sealed_from"] is None or (until is not None and now - until > _AFTERMATH)
    return MasterKey(
        id=row["id"],
        seals=row["seals"],
        first_seen_at=row["first_seen_at"],
        sealed_until=until,
        sealed=sealed,
        may_go=not row["seals"] and not wanted and not sealed and idle,
    )
