"""The outbox as the dispatcher sees it: new events into deliveries, claims, what came of attempts. Postgres decides.

Every step is one transaction, so a dispatcher may die at any point: a fan-out that did not commit is done again, a
claim lapses, an attempt that was not recorded is repeated under the same webhook-id.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
import orjson
import structlog
from msgspec import Struct
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from engine.batching import Batcher
from engine.contracts.connector import Clock
from engine.contracts.webhooks import ENDPOINT_DISABLED, DisabledReason
from engine.domain.ids import event_id
from engine.ledger.database import Away, Mistakes, borrowed
from engine.ledger.statement import statement
from engine.webhooks.delivery import (
    ClaimedDelivery,
    DeliveryVerdict,
    EndpointReply,
    HoldingSession,
    WebhookBacklog,
    body_for,
    render_notice,
)

log = structlog.get_logger()

_RECORDS_MAX = 500  # attempts recorded in one transaction: milliseconds of Postgres
_RETRY_S = 0.5  # Postgres away: twice a second finds it soon enough
_FAILURES_LEAST = 5  # of an endpoint that is disabled for failing, spread over its patience (0016_failing_in_a_row.sql)


class FanOutResult(Struct, frozen=True, kw_only=True):
    """One look for new events. `handled` is None while another dispatcher is at it."""

    handled: int | None
    endpoints: tuple[str, ...]  # which have something due now
    asleep: bool  # whoever writes events rings
    idle_ms: int  # since somebody last found some
    high: int  # the last id drawn
    low: int | None  # the lowest mark of a writer under way (0014_events_in_order.sql)


class EndpointQueue(Struct, frozen=True, kw_only=True):
    """An endpoint with something unfinished. `due_at`, and `due_s` until then: its first unclaimed delivery, if any."""

    endpoint: str
    merchant: str
    enabled: bool
    due_at: datetime | None
    due_s: float | None


class OutboxScan(Struct, frozen=True, kw_only=True):
    """All endpoints with something unfinished, as of a moment on Postgres's clock."""

    at: datetime
    lanes: tuple[EndpointQueue, ...]


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt, as it is recorded."""

    claimed: ClaimedDelivery
    reply: EndpointReply
    verdict: DeliveryVerdict
    at: datetime


class Claims(Struct, frozen=True, kw_only=True):
    """What was claimed, and how many rows were looked at for each endpoint: fewer than asked for, no more are due.
    `unreadable`: endpoints of which nothing could be claimed, because Postgres refuses a row of theirs."""

    claimed: tuple[ClaimedDelivery, ...] = ()
    looked: dict[str, int] = {}
    unreadable: tuple[str, ...] = ()


class Outbox:
    """Run `run` for life. All but `record` raise Away when Postgres is."""

    def __init__(self, pool: AsyncConnectionPool, clock: Clock, *, lease_ms: int, patience: timedelta) -> None:
        self._pool, self._clock = pool, clock
        self._lease_ms, self._patience = lease_ms, patience
        self._records: Batcher[tuple[ClaimedDelivery, bytes], bool] = Batcher(self._record, _RECORDS_MAX)

    async def run(self) -> None:
        await self._records.run()

    async def fan_out(self, events_max: int) -> FanOutResult:
        """New events into deliveries, in their order."""
        async with borrowed(self._pool) as connection:
            row = await (await connection.execute(statement("fan_out"), {"events_max": events_max})).fetchone()
        if row is None:
            raise RuntimeError("a fan-out always answers")
        handled, endpoints, asleep, idle_ms, high, low = row
        return FanOutResult(
            handled=handled, endpoints=tuple(endpoints), asleep=asleep, idle_ms=idle_ms, high=high, low=low
        )

    async def fall_asleep(self) -> None:
        """Ask those who write events to ring."""
        async with borrowed(self._pool) as connection:
            await connection.execute(statement("fall_asleep"))

    async def scan(self) -> OutboxScan:
        """Who has something unfinished."""
        async with borrowed(self._pool) as connection:
            rows = await (await connection.execute(statement("lanes"))).fetchall()
        lanes = tuple(
            EndpointQueue(endpoint=endpoint, merchant=merchant, enabled=enabled, due_at=due_at, due_s=due_s)
            for _, endpoint, merchant, enabled, due_at, due_s in rows
            if endpoint is not None
        )
        return OutboxScan(at=rows[0][0], lanes=lanes)

    async def merchants(self, endpoints: Sequence[str]) -> dict[str, str]:
        """Whose endpoints these are."""
        async with borrowed(self._pool) as connection:
            cursor = await connection.execute(statement("merchants_of_endpoints"), {"endpoints": list(endpoints)})
            return {endpoint: merchant for endpoint, merchant in await cursor.fetchall()}

    async def claim(self, places: dict[str, tuple[int, datetime]]) -> Claims:
        """Up to so many deliveries, due since then, for each endpoint; ours until the lease lapses. A row that Postgres
        refuses to claim harms its own endpoint alone."""
        try:
            return await self._claimed(places)
        except Mistakes as error:
            if len(places) == 1:
                log.error(
                    "unreadable_deliveries", endpoint=next(iter(places)), error=f"{type(error).__name__}: {error}"
                )
                return Claims(unreadable=tuple(places))
        each = [await self.claim({endpoint: wanted}) for endpoint, wanted in places.items()]
        return Claims(
            claimed=tuple(claimed for claims in each for claimed in claims.claimed),
            looked={endpoint: looked for claims in each for endpoint, looked in claims.looked.items()},
            unreadable=tuple(endpoint for claims in each for endpoint in claims.unreadable),
        )

    async def _claimed(self, places: dict[str, tuple[int, datetime]]) -> Claims:
        arguments = {
            "lanes": list(places),
            "places": [number for number, _ in places.values()],
            "since": [since for _, since in places.values()],
            "lease_ms": self._lease_ms,
        }
        async with (
            borrowed(self._pool) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            rows = await (await cursor.execute(statement("claim_deliveries"), arguments)).fetchall()
        looked: dict[str, int] = {}
        for row in rows:
            looked[row["endpoint"]] = looked.get(row["endpoint"], 0) + 1
        # Without a payload it would be a delivery of no event: left alone, it shows in the backlog.
        claimed = tuple(_claimed(row) for row in rows if row["attempt"] is not None and row["payload"] is not None)
        return Claims(claimed=claimed, looked=looked)

    async def give_up(self, endpoints: Sequence[str]) -> None:
        """End what waits for endpoints that are disabled or deleted."""
        async with borrowed(self._pool) as connection:
            await connection.execute(statement("give_up_deliveries"), {"endpoints": list(endpoints)})

    async def record(self, tried: Attempt) -> bool:
        """Durable when it returns; tried until Postgres is back. Whether the endpoint has failed for too long now."""
        return await self._records((tried.claimed, orjson.dumps(_result(tried))))

    async def disable(self, endpoint: str, reason: DisabledReason) -> None:
        """Disable an endpoint and tell its merchant, in one transaction; nothing when it is disabled already."""
        at = self._clock()
        async with borrowed(self._pool) as connection, connection.transaction():
            row = await (await connection.execute(statement("endpoint_to_disable"), {"id": endpoint})).fetchone()
            if row is None:
                return
            _, url, notices = row
            arguments = {
                "id": endpoint,
                "reason": reason,
                "at": at,
                "notice": notices + 1,
                "type": ENDPOINT_DISABLED,
                "event_id": event_id(endpoint, notices + 1),
                "payload": render_notice(endpoint, url, reason, at, notices + 1),
            }
            await connection.execute(statement("disable_endpoint"), arguments)
        log.warning("webhook_endpoint_disabled", endpoint=endpoint, reason=reason)

    async def backlog(self) -> WebhookBacklog:
        """What waits, counted to a bound."""
        async with borrowed(self._pool) as connection:
            row = await (await connection.execute(statement("webhook_backlog"))).fetchone()
        events, deliveries, oldest_s, disabled = row or (0, 0, 0.0, {})
        return WebhookBacklog(events=events, deliveries=deliveries, oldest_s=oldest_s, disabled=disabled)

    async def holders(self, grace_s: float) -> list[HoldingSession]:
        """Who has kept events back for longer than that, the longest first."""
        async with borrowed(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = await (await cursor.execute(statement("events_held"), {"grace_s": grace_s})).fetchall()
        return [HoldingSession(**row) for row in rows]

    async def _record(self, batch: Sequence[tuple[ClaimedDelivery, bytes]]) -> list[bool | Exception]:
        while True:
            try:
                failing = await self._written([result for _, result in batch])
                return [claimed.endpoint in failing for claimed, _ in batch]
            except Mistakes:
                if len(batch) == 1:
                    log.exception("attempt_not_recorded", delivery=batch[0][0].event_id)
                    return [False]
                return [failing for each in batch for failing in await self._record([each])]
            except Away as error:
                log.warning("postgres_away", waiting=len(batch), error=type(error).__name__)
            await anyio.sleep(_RETRY_S)

    async def _written(self, results: Sequence[bytes]) -> set[str]:
        arguments = {
            "results": f"[{b','.join(results).decode()}]",
            "as_of": self._clock(),
            "patience": self._patience,
            "failures_least": _FAILURES_LEAST,
        }
        async with borrowed(self._pool) as connection:
            return {
                row[0] for row in await (await connection.execute(statement("record_attempts"), arguments)).fetchall()
            }


def _claimed(row: dict[str, Any]) -> ClaimedDelivery:
    schedule = row["retry_schedule"]
    if schedule is not None and not all(isinstance(delay_s, int) for delay_s in schedule):
        schedule = None
    return ClaimedDelivery(
        endpoint=row["endpoint"],
        payment=row["payment"],
        sequence=row["sequence"],
        attempt=row["attempt"],
        failures=row["failures"],
        merchant=row["merchant"],
        url=row["url"],
        by_payment=row["by_payment"],
        ordered=row["ordered"],
        schedule=None if schedule is None else tuple(schedule),
        event_id=row["event_id"],
        event_type=row["type"],
        body=body_for(row["payload"], row["previous_sequence"]),
        happened_at=row["created_at"],
        traceparent=row["traceparent"],
    )


def _result(tried: Attempt) -> dict[str, object]:
    claimed, reply, verdict = tried.claimed, tried.reply, tried.verdict
    return {
        "payment": claimed.payment,
        "endpoint": claimed.endpoint,
        "sequence": claimed.sequence,
        "attempt": claimed.attempt,
        "at": tried.at,
        "duration_ms": reply.duration_ms,
        "outcome": reply.outcome,
        "status": reply.status,
        "error": reply.error,
        "body": reply.body,
        "retry_ms": None if verdict.retry_s is None else round(verdict.retry_s * 1000),
        "dead_reason": verdict.dead_reason,
    }
