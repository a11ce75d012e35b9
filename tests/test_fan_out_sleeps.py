"""The fan-out sleeps when there is nothing to do, and no writer that did not know so is waited for by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg_pool import AsyncConnectionPool

from engine.webhooks.fan_out import FanOut
from engine.webhooks.outbox import Outbox
from support.event_stand import a_payment_id, tell

SOON_S, SLEEPS_S = 0.01, 1.0  # between two looks


@asynccontextmanager
async def a_fan_out(database: str) -> AsyncIterator[FanOut]:
    async with AsyncConnectionPool(database, min_size=1, open=False, kwargs={"autocommit": True}) as pool:
        outbox = Outbox(pool, lambda: datetime.now(UTC), lease_ms=1000, patience=timedelta(days=1))
        yield FanOut(outbox, lambda endpoints: None)


async def asleep(fan_out: FanOut) -> float:
    """Looks until it has said that it sleeps; how long it would wait now."""
    for _ in range(1000):
        if await fan_out.run_once() == 0.0:
            return await fan_out.run_once()
        await asyncio.sleep(0.02)
    raise AssertionError("it never slept")


async def looks(fan_out: FanOut, times: int) -> set[float]:
    return {await fan_out.run_once() for _ in range(times)}


def test_it_looks_on_until_each_writer_that_may_not_have_known_is_done(database: str) -> None:
    async def story() -> None:
        async with a_fan_out(database) as fan_out:
            with psycopg.connect(database) as silent:
                tell(silent, "mer_local", a_payment_id(), 1)  # it has not seen that anybody sleeps, and will not ring
                assert await asleep(fan_out) == SOON_S
                assert await looks(fan_out, 3) == {SOON_S}
                silent.commit()
            with psycopg.connect(database, autocommit=True) as looking:
                before = looking.execute("SELECT id FROM fan_out").fetchone()
                await fan_out.run_once()
                after = looking.execute("SELECT id FROM fan_out").fetchone()
            assert (before, after) == ((0,), (1,))

    asyncio.run(story())


def test_it_sleeps_while_transactions_without_events_are_open(database: str) -> None:
    async def story() -> None:
        async with a_fan_out(database) as fan_out:
            with psycopg.connect(database) as neighbour:
                neighbour.execute("CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT pg_current_xact_id()")
                assert await asleep(fan_out) == SLEEPS_S
                assert await looks(fan_out, 3) == {SLEEPS_S}

    asyncio.run(story())


def test_a_writer_that_begins_while_it_sleeps_rings(database: str) -> None:
    async def story() -> None:
        async with a_fan_out(database) as fan_out:
            assert await asleep(fan_out) == SLEEPS_S
            with (
                psycopg.connect(database, autocommit=True) as hearing,
                psycopg.connect(database, autocommit=True) as writer,
            ):
                hearing.execute("LISTEN penstock_outbox")
                tell(writer, "mer_local", a_payment_id(), 1)
                rung = [note.channel for note in hearing.notifies(timeout=10, stop_after=1)]
            assert rung == ["penstock_outbox"]
            assert await fan_out.run_once() == SOON_S, "there was something: it is awake"

    asyncio.run(story())
