"""What the processes of a deployment share: the real clock, the check of keys, a calm collector, the way to banks."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from bank.ficmart import FicmartBank
from bank.instant import InstantBank
from engine.ports import Clock, Connector
from ops.merchant import refuse_local_keys
from ops.offset_clock import OffsetClock
from ops.settings import Settings


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
        refuse_local_keys(settings.database_url)


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
