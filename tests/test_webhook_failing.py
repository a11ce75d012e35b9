"""When an endpoint is failing: again and again, for as long as the patience lasts, and never well in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from psycopg_pool import AsyncConnectionPool

from engine.contracts.webhooks import AttemptOutcome, DeliveryState
from engine.webhooks.delivery import SCHEDULE_S, ClaimedDelivery, DeliveryVerdict, EndpointReply
from engine.webhooks.outbox import Attempt, Outbox
from support.webhook_stand import Endpoint, Ledger

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PATIENCE = timedelta(hours=120)
WELL, BAD = (
    EndpointReply(outcome=AttemptOutcome.DELIVERED, status=200),
    EndpointReply(outcome=AttemptOutcome.REFUSED, status=500),
)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Story = Sequence[tuple[timedelta, EndpointReply]]  # when each attempt was made, after noon, and what it met


@pytest.fixture
def ledger(module_database: str) -> Ledger:
    ledger = Ledger(dsn=module_database)
    ledger.forget_endpoints()
    return ledger


def verdicts(ledger: Ledger, endpoint: Endpoint, story: Story) -> list[bool]:
    """Whether it counts as failing after each attempt, by a clock that the story sets."""
    now = NOON

    async def recorded() -> list[bool]:
        nonlocal now
        async with (
            AsyncConnectionPool(ledger.dsn, min_size=1, open=False, kwargs={"autocommit": True}) as pool,
            anyio.create_task_group() as tasks,
        ):
            outbox = Outbox(pool, lambda: now, lease_ms=1000, patience=PATIENCE)
            tasks.start_soon(outbox.run)
            said = []
            for number, (after, reply) in enumerate(story, 1):
                now = NOON + after
                said.append(await outbox.record(tried(endpoint, number, reply, now)))
            tasks.cancel_scope.cancel()
        return said

    return asyncio.run(recorded())


def tried(endpoint: Endpoint, number: int, reply: EndpointReply, at: datetime) -> Attempt:
    claimed = ClaimedDelivery(
        endpoint=endpoint.id,
        payment=f"pay_{endpoint.id}",
        sequence=number,
        attempt=1,
        failures=0,
        merchant="mer_local",
        url="http://shop.example/",
        by_payment=False,
        ordered=False,
        schedule=None,
        event_id=f"evt_{number}",
        event_type="payment.created",
        body=b"{}",
        happened_at=at,
        traceparent=None,
    )
    return Attempt(
        claimed=claimed, reply=reply, verdict=DeliveryVerdict(state=DeliveryState.PENDING, retry_s=1.0), at=at
    )


def every(pause: timedelta, until: timedelta, first: timedelta = timedelta(0)) -> list[tuple[timedelta, EndpointReply]]:
    return [(first + pause * number, BAD) for number in range((until - first) // pause + 1)]


def the_schedule() -> list[tuple[timedelta, EndpointReply]]:
    """One event that is never acknowledged, to the end of its tries."""
    return [(timedelta(seconds=sum(SCHEDULE_S[:tries])), BAD) for tries in range(len(SCHEDULE_S) + 1)]


QUIET: dict[str, Story] = {
    "one old failure and a new one": [(timedelta(0), BAD), (6 * DAY, BAD)],
    "one old failure and a new one, long after": [(timedelta(0), BAD), (300 * DAY, BAD)],
    "an old burst and a new one": [
        *((timedelta(milliseconds=number), BAD) for number in range(50)),
        *((6 * DAY + timedelta(milliseconds=number), BAD) for number in range(50)),
    ],
    "a burst at the beginning and one within the patience": [
        *((timedelta(seconds=number), BAD) for number in range(50)),
        (2 * DAY, BAD),
        (4 * DAY, BAD),
        (5 * DAY, BAD),
    ],
    "an event that was given up, and another one after a quiet week": [*the_schedule(), (10 * DAY, BAD)],
    "a failure now and then": [(3 * DAY * number, BAD) for number in range(20)],
    "failures for less than the patience": every(HOUR, PATIENCE - HOUR),
    "failures with one success between": [*every(HOUR, 3 * DAY), (4 * DAY, WELL), *every(HOUR, 8 * DAY, 4 * DAY)],
}
FAILING: dict[str, Story] = {
    "failures every hour": every(HOUR, PATIENCE),
    "failures every thirty hours": every(30 * HOUR, PATIENCE),
    "failures after a success": [(timedelta(0), WELL), *every(HOUR, PATIENCE + HOUR, HOUR)],
    "failures after a quiet time": [(timedelta(0), BAD), *every(HOUR, 10 * DAY + PATIENCE, 10 * DAY)],
}


@pytest.mark.parametrize("story", QUIET.values(), ids=QUIET)
def test_an_endpoint_is_not_failing_after(ledger: Ledger, story: Story) -> None:
    assert not any(verdicts(ledger, ledger.register("http://shop.example/quiet"), story))


@pytest.mark.parametrize("story", FAILING.values(), ids=FAILING)
def test_an_endpoint_is_failing_with_the_last_of(ledger: Ledger, story: Story) -> None:
    said = verdicts(ledger, ledger.register("http://shop.example/failing"), story)

    assert said == [False] * (len(story) - 1) + [True]


def test_one_that_is_enabled_again_has_not_failed_yet(ledger: Ledger) -> None:
    endpoint = ledger.register("http://shop.example/again")
    assert verdicts(ledger, endpoint, every(HOUR, PATIENCE))[-1]

    ledger.sql(
        """UPDATE webhook_endpoints SET failing_since = NULL, failure_counted_at = NULL, failures_counted = 0
           WHERE id = %s""",
        endpoint.id,
    )

    assert verdicts(ledger, endpoint, [(PATIENCE + HOUR, BAD)]) == [False]
