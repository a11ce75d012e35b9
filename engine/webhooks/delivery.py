"""The delivery of one event to one endpoint: its words, its small machine, and when to try again. Pure.

A delivery is `pending` until a dispatcher claims it, `sending` until its lease lapses, and ends `delivered` or `dead`.
Only a person's redelivery brings an ended one back. Webhooks never undo a payment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

import orjson
from msgspec import Struct

from engine.contracts.webhooks import ENDPOINT_DISABLED, AttemptOutcome, DeadReason, DeliveryState, DisabledReason

NEWS_CHANNEL = "penstock_outbox"  # NOTIFY: there are new events
DUE_CHANNEL = "penstock_deliveries"  # NOTIFY: deliveries became due, at the endpoints named in it, or anywhere

# Seconds between attempts (API.md); a delivery is dead after one attempt more than this has places: about three days.
SCHEDULE_S: Sequence[int] = (1, 2, 4, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
_JITTER = 0.2  # of the delay, either way: what failed together shall not come back together
RETRY_AFTER_S_MAX = 86_400.0


class ClaimedDelivery(Struct, frozen=True, kw_only=True):
    """A delivery in our hands: what to send where, and its place in the schedule."""

    endpoint: str
    payment: str
    sequence: int
    attempt: int
    failures: int
    merchant: str
    url: str
    by_payment: bool  # the payment's own webhook_url: signed with the merchant's default secret
    ordered: bool
    schedule: tuple[int, ...] | None
    event_id: str
    event_type: str
    body: bytes
    happened_at: datetime | None  # None: nobody can read it
    traceparent: str | None


class EndpointReply(Struct, frozen=True, kw_only=True):
    """What one attempt met. `body`: the first of it, as text fit for a database."""

    outcome: AttemptOutcome
    status: int | None = None
    error: str | None = None
    body: str | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


class DeliveryVerdict(Struct, frozen=True, kw_only=True):
    """What an attempt leaves of its delivery: pending again after `retry_s`, or dead for `dead_reason`."""

    state: DeliveryState
    retry_s: float | None = None
    dead_reason: DeadReason | None = None


class WebhookBacklog(Struct, frozen=True, kw_only=True):
    """Events not fanned out, deliveries unfinished and the age of their oldest, disabled endpoints by reason."""

    events: int
    deliveries: int
    oldest_s: float
    disabled: dict[str, int]


class HoldingSession(Struct, frozen=True, kw_only=True):
    """A session that keeps events back by an open transaction; `held_s` None: Postgres does not show it to us."""

    pid: int | None  # None: a prepared transaction
    application: str | None
    account: str | None
    state: str | None
    since: datetime | None
    held_s: float | None
    events: int  # that are committed and wait behind it, counted to a bound


def judge(claimed: ClaimedDelivery, reply: EndpointReply, draw: random.Random) -> DeliveryVerdict:
    """The small machine's step after an attempt."""
    if reply.outcome is AttemptOutcome.DELIVERED:
        return DeliveryVerdict(state=DeliveryState.DELIVERED)
    if reply.outcome is AttemptOutcome.GONE:
        return DeliveryVerdict(state=DeliveryState.DEAD, dead_reason=DeadReason.ENDPOINT_GONE)
    delay_s = retry_delay_s(claimed.failures + 1, claimed.schedule, reply.retry_after_s, draw)
    if delay_s is None:
        return DeliveryVerdict(state=DeliveryState.DEAD, dead_reason=DeadReason.EXHAUSTED)
    return DeliveryVerdict(state=DeliveryState.PENDING, retry_s=delay_s)


def retry_delay_s(
    failures: int, schedule: Sequence[int] | None, retry_after_s: float | None, draw: random.Random
) -> float | None:
    """How long to wait after the `failures`-th failure; None when the schedule has no place left.

    `schedule`: the endpoint's own in seconds, None for the default. What the endpoint asked for with Retry-After is
    honoured up to a day, and never brings an attempt forward.
    """
    delays = SCHEDULE_S if schedule is None else schedule
    if failures > len(delays):
        return None
    delay_s = delays[failures - 1] * draw.uniform(1 - _JITTER, 1 + _JITTER)
    return max(delay_s, min(retry_after_s or 0.0, RETRY_AFTER_S_MAX))


def body_for(payload: str, previous_sequence: int | None) -> bytes:
    """The body of an event for one endpoint; one with a filter is told which event it got before, 0 for none."""
    if previous_sequence is None:
        return payload.encode()
    return f'{payload[:-1]},"previous_sequence":{previous_sequence}}}'.encode()


def render_notice(endpoint: str, url: str, reason: DisabledReason, at: datetime, sequence: int) -> str:
    """The operational event that an endpoint was disabled by us."""
    data = {"object": "webhook_endpoint", "id": endpoint, "url": url, "status": "disabled", "disabled_reason": reason}
    notice = {"type": ENDPOINT_DISABLED, "timestamp": at, "data": {**data, "disabled_at": at}, "sequence": sequence}
    return orjson.dumps(notice, option=orjson.OPT_UTC_Z).decode()
