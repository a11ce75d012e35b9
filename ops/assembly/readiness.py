"""What an edge needs in order to accept, asked one by one for /readyz (edge/health.py says which of it is needed).

A probe answers None when all is well, else what is wrong in a few words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from psycopg_pool import AsyncConnectionPool

from edge.server.admission import Admission
from edge.server.authentication import Authenticator
from edge.server.health import Probe
from engine.errors import Unavailable
from engine.ledger.database import Away, borrowed
from engine.ledger.reader import LedgerReader
from engine.ledger.statement import statement
from engine.resilience.fitness import Fitness
from engine.streams.acceptance_store import AcceptanceStore, PartitionState

_LEDGER_WITHIN_S = 1.0  # below the patience of the usual orchestrator's readiness check


def edge_probes(
    *,
    draining: Callable[[], bool],
    acceptance_store: AcceptanceStore,
    ledger_reader: LedgerReader,
    fitness: Fitness,
    keys: Authenticator,
    admission: Admission,
    partitions: int,
    backlog_max: int,
) -> Mapping[str, Probe]:
    """By name. `backlog_max`: entries of a partition beyond which new payments are refused."""

    async def stopping() -> str | None:
        return "this process was told to stop" if draining() else None

    async def fitting() -> str | None:
        return "; ".join(fitness.faults.values()) or None

    async def known_keys() -> str | None:
        return None if keys.read_once else "no API key could be read yet"

    async def room() -> str | None:
        full = not admission.lanes["write"].has_places
        return "as many calls are under way here as PENSTOCK_IN_FLIGHT_MAX allows" if full else None

    async def backlog() -> str | None:
        states = await _states(acceptance_store, partitions)
        full = bool(states) and all(state.entries >= backlog_max for state in states)
        return "each partition holds as many entries as PENSTOCK_BACKLOG_MAX allows" if full else None

    async def workers() -> str | None:
        states = await _states(acceptance_store, partitions)
        orphans = [number for number, state in enumerate(states) if not state.owned]
        if len(orphans) == partitions:
            return "no worker owns a partition: what is accepted waits"
        return f"{len(orphans)} of {partitions} partitions have no worker" if orphans else None

    return {
        "stopping": stopping,
        "redis": partial(answer_of, acceptance_store.ping),
        "postgres": partial(answer_of, ledger_reader.ping),
        "fitness": fitting,
        "keys": known_keys,
        "room": room,
        "backlog": backlog,
        "workers": workers,
    }


async def answer_of(ping: Callable[[], Awaitable[None]]) -> str | None:
    """What a store that is away says."""
    try:
        await ping()
    except Unavailable as error:
        return error.detail
    return None


async def _states(acceptance_store: AcceptanceStore, partitions: int) -> list[PartitionState]:
    """Of each partition; nothing while Redis is away, which is told by its own probe."""
    try:
        return await acceptance_store.partitions(partitions)
    except Unavailable:
        return []


async def ledger_fault(pool: AsyncConnectionPool) -> str | None:
    """What Postgres says to who can do nothing without it."""
    try:
        async with asyncio.timeout(_LEDGER_WITHIN_S), borrowed(pool) as connection:
            await connection.execute(statement("ledger_time"))
    except (TimeoutError, *Away) as error:
        return f"Postgres: {type(error).__name__}"
    return None
