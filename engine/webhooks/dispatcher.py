"""The dispatcher: claims deliveries that are due and has them carried out, many at once, a few for each endpoint.

Each endpoint has a lane of its own (endpoint_queue.py), in claiming too, so that the thousands that are due for a dead
one stand in nobody's way. What was claimed is sent at once or not at all: a claim that lapsed belongs to somebody else.
Whatever one receiver or one row does, it harms its own delivery alone, which then has failed once more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import structlog
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from engine.contracts.connector import Clock
from engine.contracts.webhooks import AttemptOutcome, DisabledReason
from engine.ledger.database import Away
from engine.loop import forever, surviving
from engine.webhooks.delivery import ClaimedDelivery, EndpointReply, HoldingSession, judge
from engine.webhooks.endpoint_queue import NEVER, Lanes
from engine.webhooks.metrics import DispatchMetrics
from engine.webhooks.outbox import Attempt, Outbox
from engine.webhooks.sender import WebhookSender
from engine.webhooks.signer import Signer, SigningKeys, headers_of

log = structlog.get_logger()

_SCAN_S = 1.0  # how late a retry may be that another dispatcher, or nobody any more, has planned
_RESCAN_S = 0.05  # between two scans, however often it rings
_LINGER_S = 0.005  # between two claims under load: what is freed meanwhile is claimed in one go
_AWAY_S = 0.5
_CLOSED_S = 60.0  # until a lane whose secret cannot be opened is tried again
_BACKLOG_S = 5.0
_HELD_S = 5.0  # a transaction that writes events takes milliseconds
_ACCUSE_S = 60.0
_MARGIN = timedelta(seconds=2)  # what is being written as we scan may have been due for so long
_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)  # any time zone can write it down
_MERCHANTS_MAX = 100_000  # remembered whose endpoints are: some megabytes
_BROKEN = EndpointReply(outcome=AttemptOutcome.UNREACHABLE, error="the attempt failed here: see the dispatcher's log")


class DispatchLimits(Struct, frozen=True, kw_only=True):
    """`places`: attempts under way in all. `lane_places`: for one endpoint. `send_ms`: a claim may be sent so long."""

    places: int
    lane_places: int
    send_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchTools:
    outbox: Outbox
    signer: Signer
    sender: WebhookSender
    clock: Clock
    draw: random.Random
    meters: DispatchMetrics


class Dispatcher:
    """Run `run` until `stop`; it returns when everything under way has been recorded."""

    def __init__(self, limits: DispatchLimits, context: DispatchTools) -> None:
        self._limits, self._context = limits, context
        self._lanes = Lanes(limits.places, limits.lane_places)
        self._strangers: dict[str, float] = {}  # endpoints with something due whose merchants are not known yet
        self._merchants: dict[str, str] = {}
        self._scanned_at = self._scan_at = 0.0
        self._since = _LONG_AGO
        self._bell = anyio.Event()
        self._stopping = False
        self._accused: dict[tuple[int | None, datetime | None], float] = {}
        self.ready = False  # has looked at the ledger once

    def ring(self, message: str = "") -> None:
        """Something became due, at the endpoints named in the message, or anywhere."""
        if message:
            self.told(message.split(" "))
            return
        self._scan_at = min(self._scan_at, self._scanned_at + _RESCAN_S)
        self._bell.set()

    def told(self, endpoints: Sequence[str]) -> None:
        """These endpoints have something due now."""
        for endpoint in endpoints:
            self._due(endpoint, time.monotonic())

    def stop(self) -> None:
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        # asyncio's own: a task of anyio's costs several times as much, and each delivery is one.
        async with asyncio.TaskGroup() as deliveries:
            while not self._stopping:
                self._bell, claimed, pause_s = anyio.Event(), False, 0.0
                async with surviving("dispatcher"):
                    try:
                        claimed = await self.run_once(deliveries)
                        pause_s = self._pause_s()
                    except Away as error:
                        log.warning("postgres_away", error=type(error).__name__)
                        claimed, pause_s = False, _AWAY_S
                if claimed:
                    await anyio.sleep(_LINGER_S)
                else:
                    with anyio.move_on_after(pause_s):
                        await self._bell.wait()

    async def run_once(self, deliveries: asyncio.TaskGroup) -> bool:
        """One look and one claim; whether anything was due. Raises Away."""
        if time.monotonic() >= self._scan_at:
            await self._scan()
        if self._strangers:
            await self._introduce()
        places = self._lanes.shares(time.monotonic())
        return bool(places) and await self._claim(places, deliveries)

    async def watch(self) -> None:
        """For life: what waits, for the metrics, and who holds it up, for the log."""
        await forever("backlog", self._look)

    async def _look(self) -> None:
        try:
            self._context.meters.waits(await self._context.outbox.backlog())
            self._accuse(await self._context.outbox.holders(_HELD_S))
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
        await anyio.sleep(_BACKLOG_S)

    def _accuse(self, holders: Sequence[HoldingSession]) -> None:
        """Each holder is logged when it is found, and then once a minute."""
        self._context.meters.held(holders)
        now = time.monotonic()
        told = {(holder.pid, holder.since): holder for holder in holders}
        for holder, key in zip(told.values(), told, strict=True):
            if self._accused.get(key, -NEVER) <= now - _ACCUSE_S:
                self._accused[key] = now
                log.warning(
                    "events_held_back",
                    **to_builtins(holder),
                    detail="a transaction that stays open keeps committed events from webhooks and the feed: end it",
                )
        if self._accused and not told:
            log.info("events_no_longer_held_back")
        self._accused = {key: at for key, at in self._accused.items() if key in told}

    def _pause_s(self) -> float:
        """Until something is due that there is room for, or it is time to look around."""
        return max(0.0, min(self._lanes.next_due_at(), self._scan_at) - time.monotonic())

    async def _scan(self) -> None:
        self._scanned_at = time.monotonic()
        self._scan_at = self._scanned_at + _SCAN_S
        found = await self._context.outbox.scan()
        self._since = found.at - _MARGIN
        now = time.monotonic()
        enabled = [lane for lane in found.lanes if lane.enabled]
        for lane in enabled:
            known = self._lanes.open(lane.endpoint, lane.merchant, self._since)
            known.since = (lane.due_at or found.at) - _MARGIN
            if lane.due_s is not None:
                self._due(lane.endpoint, now + lane.due_s)
        self._lanes.keep({lane.endpoint for lane in enabled})
        if closed := [lane.endpoint for lane in found.lanes if not lane.enabled]:
            await self._context.outbox.give_up(closed)
        self.ready = True

    async def _introduce(self) -> None:
        """Lanes for endpoints that we were told of: whose they are never changes."""
        unknown = [endpoint for endpoint in self._strangers if endpoint not in self._merchants]
        if unknown:
            if len(self._merchants) > _MERCHANTS_MAX:
                self._merchants.clear()
                unknown = list(self._strangers)
            self._merchants |= await self._context.outbox.merchants(unknown)
        strangers, self._strangers = self._strangers, {}
        for endpoint, at in strangers.items():
            if endpoint in self._merchants:
                self._lanes.open(endpoint, self._merchants[endpoint], self._since)
                self._due(endpoint, at)

    def _due(self, endpoint: str, at: float) -> None:
        if endpoint in self._lanes:
            if self._lanes.due(endpoint, at):
                self._bell.set()
        else:
            self._strangers[endpoint] = min(at, self._strangers.get(endpoint, NEVER))
            self._bell.set()

    async def _claim(self, places: Mapping[str, int], deliveries: asyncio.TaskGroup) -> bool:
        """Claim and begin; whether any row was looked at."""
        keys = await self._context.signer.keys(list(places))
        for endpoint in places:
            self._lanes[endpoint].due_at = NEVER  # rings that come while we claim move it forward again
            if endpoint not in keys:
                self._lanes.close(endpoint, time.monotonic() + _CLOSED_S)
        send_by = time.monotonic() + self._limits.send_ms / 1000
        claims = await self._context.outbox.claim(
            {endpoint: (places[endpoint], self._lanes[endpoint].since) for endpoint in keys}
        )
        for endpoint in claims.unreadable:
            self._lanes.close(endpoint, time.monotonic() + _CLOSED_S)
        for endpoint, looked in claims.looked.items():
            if looked >= places[endpoint]:
                self._due(endpoint, time.monotonic())
        for claimed in claims.claimed:
            self._lanes.begin(claimed.endpoint)
            deliveries.create_task(self._delivered(claimed, keys[claimed.endpoint], send_by))
        return bool(claims.looked)

    async def _delivered(self, claimed: ClaimedDelivery, keys: SigningKeys, send_by: float) -> None:
        """The boundary of a delivery. One that fails as nothing may has failed like any other: it goes through its
        schedule and ends. Where not even that can be recorded, its claim lapses and it is tried again."""
        recorded = False
        async with surviving("delivery", 0.0):
            await self._deliver(claimed, keys, send_by)
            recorded = True
        if not recorded:
            async with surviving("delivery", 0.0):
                await self._conclude(replace(claimed, schedule=None), _BROKEN, self._context.clock())

    async def _deliver(self, claimed: ClaimedDelivery, keys: SigningKeys, send_by: float) -> None:
        context, reply = self._context, None
        try:
            if time.monotonic() >= send_by:  # we slept: somebody else may have it by now
                log.warning("webhook_claim_lapsed", event_id=claimed.event_id, endpoint=claimed.endpoint)
                return
            at = context.clock()
            headers = headers_of(claimed, keys, at)
            reply = await context.sender.post(claimed.url, headers, claimed.body, claimed.merchant)
        finally:
            if reply is not None:
                silent = reply.outcome in (AttemptOutcome.TIMEOUT, AttemptOutcome.UNREACHABLE)
                self._lanes.fit(claimed.endpoint, answered=not silent)
            if self._lanes.end(claimed.endpoint, time.monotonic()):
                self._bell.set()
        await self._conclude(claimed, reply, at)

    async def _conclude(self, claimed: ClaimedDelivery, reply: EndpointReply, at: datetime) -> None:
        """Record an attempt, and plan what follows from it."""
        context = self._context
        verdict = judge(claimed, reply, context.draw)
        failing = await context.outbox.record(Attempt(claimed=claimed, reply=reply, verdict=verdict, at=at))
        context.meters.tried(claimed, reply, verdict, context.clock())
        if verdict.retry_s is not None:
            self._due(claimed.endpoint, time.monotonic() + verdict.retry_s)
        elif claimed.ordered:
            self._due(claimed.endpoint, time.monotonic())  # the next of its payment
        await self._disable(claimed, reply, failing)

    async def _disable(self, claimed: ClaimedDelivery, reply: EndpointReply, failing: bool) -> None:
        gone = reply.outcome is AttemptOutcome.GONE and not claimed.by_payment
        if not gone and not failing:
            return
        try:
            await self._context.outbox.disable(
                claimed.endpoint, DisabledReason.GONE if gone else DisabledReason.FAILING
            )
        except Away as error:  # the next failure says it again
            log.warning("postgres_away", error=type(error).__name__)
        self.ring()
