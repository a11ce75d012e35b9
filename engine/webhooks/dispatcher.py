"""The dispatcher: claims deliveries that are due and has them carried out, many at once, a few for each endpoint.

Each endpoint has a lane of its own, in claiming too, so that the thousands that are due for a dead one stand in
nobody's way. A lane that gets no answers narrows to one attempt at a time, and none takes more than a quarter of what
is free. What was claimed is sent at once or not at all: a claim that lapsed belongs to somebody else.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import structlog
from msgspec import Struct, to_builtins

from engine.contracts.connector import Clock
from engine.contracts.webhooks import AttemptOutcome, DisabledReason
from engine.ledger.database import Away
from engine.loop import forever, surviving
from engine.webhooks.delivery import ClaimedDelivery, EndpointReply, HoldingSession, judge
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
_SHARE = 4  # a lane gets at most this part of the places that are free, so that some always are
_BACKLOG_S = 5.0
_HELD_S = 5.0  # a transaction that writes events takes milliseconds
_ACCUSE_S = 60.0
_MARGIN = timedelta(seconds=2)  # what is being written as we scan may have been due for so long
_NEVER = math.inf


class DispatchLimits(Struct, frozen=True, kw_only=True):
    """`places`: attempts under way in all. `lane_places`: for one endpoint. `send_ms`: a claim may be sent so long."""

    places: int
    lane_places: int
    send_ms: int


@dataclass(slots=True, kw_only=True)
class _Lane:
    """One endpoint, as this dispatcher sees it. `due_at` is on the monotonic clock."""

    width: int
    since: datetime  # nothing unclaimed was due before at the last scan, so claims need not look there
    under_way: int = 0
    due_at: float = _NEVER


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
        self._lanes: dict[str, _Lane] = {}
        self._under_way = 0
        self._scanned_at = self._scan_at = 0.0
        self._since = datetime.min.replace(tzinfo=UTC)
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
        places = self._places(time.monotonic())
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
            if self._accused.get(key, -_NEVER) <= now - _ACCUSE_S:
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
        due_at = min((lane.due_at for lane in self._lanes.values() if self._room(lane) > 0), default=_NEVER)
        return max(0.0, min(due_at, self._scan_at) - time.monotonic())

    async def _scan(self) -> None:
        self._scanned_at = time.monotonic()
        self._scan_at = self._scanned_at + _SCAN_S
        found = await self._context.outbox.scan()
        self._since = found.at - _MARGIN
        now = time.monotonic()
        enabled = [lane for lane in found.lanes if lane.enabled]
        for lane in enabled:
            known = self._lane(lane.endpoint)
            known.since = (lane.due_at or found.at) - _MARGIN
            if lane.due_s is not None:
                self._due(lane.endpoint, now + lane.due_s)
        for endpoint in self._lanes.keys() - {lane.endpoint for lane in enabled}:
            if not self._lanes[endpoint].under_way:
                del self._lanes[endpoint]
        if closed := [lane.endpoint for lane in found.lanes if not lane.enabled]:
            await self._context.outbox.give_up(closed)
        self.ready = True

    def _lane(self, endpoint: str) -> _Lane:
        lane = self._lanes.get(endpoint)
        if lane is None:
            lane = self._lanes[endpoint] = _Lane(width=self._limits.lane_places, since=self._since)
        return lane

    def _due(self, endpoint: str, at: float) -> None:
        lane = self._lane(endpoint)
        if at < lane.due_at:
            lane.due_at = at
            self._bell.set()

    def _room(self, lane: _Lane) -> int:
        free = self._limits.places - self._under_way
        return min(free, max(1, free // _SHARE), lane.width - lane.under_way)

    def _places(self, now: float) -> dict[str, int]:
        """How many to claim for which endpoint; those that waited longest first when there are too many."""
        ready = [(lane.due_at, endpoint) for endpoint, lane in self._lanes.items() if lane.due_at <= now]
        free = self._limits.places - self._under_way
        places: dict[str, int] = {}
        for _, endpoint in sorted(ready):
            room = min(self._room(self._lanes[endpoint]), free)
            if room > 0:
                places[endpoint] = room
                free -= room
        return places

    async def _claim(self, places: dict[str, int], deliveries: asyncio.TaskGroup) -> bool:
        """Claim and begin; whether any row was looked at."""
        keys = await self._context.signer.keys(list(places))
        for endpoint in places:
            # Rings that come while we claim move it forward again.
            self._lanes[endpoint].due_at = _NEVER if endpoint in keys else time.monotonic() + _CLOSED_S
        send_by = time.monotonic() + self._limits.send_ms / 1000
        claims = await self._context.outbox.claim(
            {endpoint: (places[endpoint], self._lanes[endpoint].since) for endpoint in keys}
        )
        for endpoint, looked in claims.looked.items():
            if looked >= places[endpoint]:
                self._due(endpoint, time.monotonic())
        for claimed in claims.claimed:
            self._lanes[claimed.endpoint].under_way += 1
            self._under_way += 1
            deliveries.create_task(self._delivered(claimed, keys[claimed.endpoint], send_by))
        return bool(claims.looked)

    async def _delivered(self, claimed: ClaimedDelivery, keys: SigningKeys, send_by: float) -> None:
        """The boundary of a delivery: should one fail as nothing may, its claim lapses and it is tried again."""
        async with surviving("delivery", 0.0):
            await self._deliver(claimed, keys, send_by)

    async def _deliver(self, claimed: ClaimedDelivery, keys: SigningKeys, send_by: float) -> None:
        context, lane = self._context, self._lanes[claimed.endpoint]
        try:
            if time.monotonic() >= send_by:  # we slept: somebody else may have it by now
                log.warning("webhook_claim_lapsed", event_id=claimed.event_id, endpoint=claimed.endpoint)
                return
            at = context.clock()
            reply = await context.sender.post(claimed.url, headers_of(claimed, keys, at), claimed.body)
        finally:
            lane.under_way -= 1
            self._under_way -= 1
            if lane.due_at <= time.monotonic():
                self._bell.set()
        self._fit(lane, reply)
        verdict = judge(claimed, reply, context.draw)
        failing = await context.outbox.record(Attempt(claimed=claimed, reply=reply, verdict=verdict, at=at))
        context.meters.tried(claimed, reply, verdict, context.clock())
        if verdict.retry_s is not None:
            self._due(claimed.endpoint, time.monotonic() + verdict.retry_s)
        elif claimed.ordered:
            self._due(claimed.endpoint, time.monotonic())  # the next of its payment
        await self._disable(claimed, reply, failing)

    def _fit(self, lane: _Lane, reply: EndpointReply) -> None:
        """Half as wide without an answer, one wider with each: a dead endpoint costs one place."""
        if reply.outcome in (AttemptOutcome.TIMEOUT, AttemptOutcome.UNREACHABLE):
            lane.width = max(1, lane.width // 2)
        else:
            lane.width = min(self._limits.lane_places, lane.width + 1)

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
