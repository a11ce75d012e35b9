"""The holder of keys: brings them to the installation, is judged by their check values, learns with which one to seal.

Everybody seals with one master key, chosen in the ledger (hold_keys in 0015_what_fits.sql): a new one only once each
live process has it, so a rotation may reach edges and workers in any order. A process without the key that seals, or
without one that something still waits under, refuses to start. While Postgres is away, the last word holds.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from psycopg_pool import AsyncConnectionPool

from engine.errors import Broken
from engine.ledger.database import Away, borrowed
from engine.ledger.schema import misfit
from engine.ledger.statement import statement
from engine.resilience.fitness import Fitness
from engine.security.encryption import Vault

log = structlog.get_logger()

_BEATS_PER_TTL = 5
_PATIENCE_S = 1.0  # for a look at all that is sealed
_MASTER, _RETIRED, _LOST = "PENSTOCK_MASTER_KEY", "PENSTOCK_RETIRED_MASTER_KEYS", "PENSTOCK_LOST_MASTER_KEYS"
OPENS = {"edge": frozenset({"answer"}), "worker": frozenset({"card"}), "dispatcher": frozenset({"secret"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderTerms:
    """Who holds the keys. `ttl_s`: how long a silent process still counts; `installation`: whose it must be."""

    kind: str
    name: str
    installation: str
    ttl_s: float


class KeyHolder:
    """`start` once, then run `run` for life, then `leave`."""

    def __init__(
        self, terms: HolderTerms, pool: AsyncConnectionPool, vault: Vault, fingerprint_key: bytes, fitness: Fitness
    ) -> None:
        self._terms, self._pool, self._vault, self._fitness = terms, pool, vault, fitness
        self._fingerprint = fingerprint_check(fingerprint_key)
        self._all_compared = False

    async def start(self) -> None:
        """Raises Broken when a key does not fit, naming its variable, and Away."""
        if fault := await self._say() or await self._compared():
            await self.leave()
            raise Broken(fault)

    async def run(self) -> None:
        while True:
            await anyio.sleep(self._terms.ttl_s / _BEATS_PER_TTL)
            await self.run_once()

    async def run_once(self) -> None:
        try:
            fault = await self._say()
            if fault is None and not self._all_compared:
                fault = await self._compared()
            self._fitness.tell("keys", fault)
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)

    async def leave(self) -> None:
        try:
            async with borrowed(self._pool) as connection:
                arguments = {"kind": self._terms.kind, "name": self._terms.name}
                await connection.execute(statement("release_keys"), arguments)
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)

    async def _say(self) -> str | None:
        """What does not fit, in words. Raises Away."""
        terms, vault = self._terms, self._vault
        arguments = {
            "kind": terms.kind,
            "name": terms.name,
            "held": list(vault.checks),
            "checks": list(vault.checks.values()),
            "fingerprint": self._fingerprint,
            "lost": sorted(vault.lost),
            "ttl_s": terms.ttl_s,
        }
        async with borrowed(self._pool) as connection:
            applied = await (await connection.execute(statement("migrations"))).fetchall()
            if fault := misfit(name for (name,) in applied):
                return fault
            row: Any = await (await connection.execute(statement("hold_keys"), arguments)).fetchone()
        if row is None or row[0] != terms.installation:
            return "the ledger is another installation's than at the start: start anew, on the one that is meant"
        _, sealing, fingerprint_fits, mistaken, registered = row
        if not fingerprint_fits:
            return (
                "PENSTOCK_FINGERPRINT_KEY is not this installation's: with another one no old key matches its payload, "
                "and the journal cannot be verified. Set the one that it was made with; it is never rotated"
            )
        if mistaken:
            return f"a key in {_MASTER} or {_RETIRED} has the id {', '.join(mistaken)} of another key: make a new one"
        if sealing not in vault.checks:
            return (
                f"the master key {sealing}, which everybody seals with now, is neither {_MASTER} nor among "
                f"{_RETIRED} (here: {_listed(vault.checks)}): add it to {_RETIRED}"
            )
        vault.use(sealing, registered)
        return None

    async def _compared(self) -> str | None:
        """Likewise of all that is sealed. A table that is locked is looked at later: that is no reason not to start."""
        fault = None
        with anyio.move_on_after(_PATIENCE_S) as looking:
            fault = await self._closed()
        self._all_compared = not looking.cancelled_caught and fault is None
        if looking.cancelled_caught:
            log.warning("keys_not_compared_yet", kind=self._terms.kind, name=self._terms.name)
        return fault

    async def _closed(self) -> str | None:
        """What this kind of process must open and cannot, in words."""
        async with borrowed(self._pool) as connection:
            rows = await (await connection.execute(statement("sealed_with"))).fetchall()
        opens = OPENS[self._terms.kind]
        missing = [
            (key, what, number)
            for what, key, number in rows
            if what in opens and key in self._vault.registered and key not in self._vault.checks
        ]
        told = [f"{number} {what}{'s' if number > 1 else ''} under {key}" for key, what, number in missing]
        if not [key for key, _, _ in missing if key not in self._vault.lost]:
            return None
        return (
            f"something is still sealed with a master key that is not here: {', '.join(told)} "
            f"(here: {_listed(self._vault.checks)}). Add it to {_RETIRED}; if it is gone for good, its id to {_LOST}"
        )


def fingerprint_check(key: bytes) -> str:
    """Tells whether two processes have the same fingerprint key, and nothing of it."""
    return hmac.digest(key, b"penstock fingerprint key check", hashlib.sha256)[:16].hex()


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(ids)
