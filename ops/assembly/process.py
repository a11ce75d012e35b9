"""What the processes of a deployment share: the real clock, the check of keys, a calm collector, the way to banks."""

from __future__ import annotations

import gc
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
from psycopg import Error as PostgresError
from psycopg import OperationalError
from psycopg.errors import ReadOnlySqlTransaction
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from bank.ficmart import FicmartBank
from bank.instant import InstantBank
from engine.accounts.merchants import refuse_local_keys
from engine.contracts.connector import Clock, Connector
from engine.errors import Unavailable
from engine.ledger.key_holder import HolderTerms, KeyHolder
from engine.ledger.refusal import postgres_refusal
from engine.resilience.fitness import Fitness
from engine.security.encryption import Vault
from ops.assembly.offset_clock import OffsetClock
from ops.assembly.settings import Settings
from ops.assembly.stores import in_thread, reached

_FAREWELL_S = 2.0


def wall_clock(settings: Settings) -> Clock:
    """The clock of the real world, in UTC; in a test as wrong as a file says. Raises SettingsError."""
    if settings.clock_offset_file:
        return OffsetClock(Path(settings.clock_offset_file), utc_now)
    return utc_now


def utc_now() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)


def check_production(settings: Settings) -> None:
    """Keys that everybody knows work in the local stack only."""
    if settings.env == "production":
        anyio.run(reached, partial(in_thread, refuse_local_keys, settings.database_url))


def tame_collector() -> None:
    """Thousands of short-lived values a second and no cycles among them: look rarely, and never at the modules."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@asynccontextmanager
async def connected(settings: Settings, steady: Clock) -> AsyncIterator[Connector]:
    """The connector that the settings name, opened. `steady` is a clock that never steps."""
    if settings.connector == "instant":
        yield InstantBank(clock=steady)
    else:
        async with FicmartBank(settings.bank_url, clock=steady, connections_max=settings.bank_connections) as bank:
            yield bank


@asynccontextmanager
async def opened_vault(
    kind: str, settings: Settings, pool: AsyncConnectionPool, installation: str, fitness: Fitness
) -> AsyncIterator[Vault]:
    """The process's keys, compared with the installation's and held for as long as it runs. Raises Broken."""
    vault = Vault(settings.vault_keys, settings.lost_key_ids)
    name = settings.worker_name if kind == "worker" else f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
    terms = HolderTerms(kind=kind, name=name, installation=installation, ttl_s=settings.key_holder_s)
    holder = KeyHolder(terms, pool, vault, settings.fingerprint_key_bytes, fitness)
    await reached(partial(_brought, holder, settings.database_url))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(holder.run)
            yield vault
            tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(_FAREWELL_S, shield=True):
            await holder.leave()


async def _brought(holder: KeyHolder, dsn: str) -> None:
    """Its keys, to a ledger that takes writes. Raises Broken, Unavailable."""
    try:
        await holder.start()
    except PostgresError as error:
        refusal = postgres_refusal(error, dsn)
        # A ledger that takes no writes for a moment, or a connection that broke, is waited for.
        passing = isinstance(error, OperationalError | ReadOnlySqlTransaction)
        raise (Unavailable("store_unavailable", refusal.words) if passing else refusal.error) from error
    except (PoolTimeout, OSError) as error:
        raise Unavailable("store_unavailable", f"Postgres: {type(error).__name__}") from error
