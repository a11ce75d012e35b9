"""The feed: what webhooks push, pulled. The same ids and payloads, in an order in which nothing comes in late.

Events are read in the order of their ids, and only up to where that order is final (0014_events_in_order.sql): a slower
commit may hold an event back for a moment, and never lets a reader skip it. Pages of many readers are read together;
those who wait share one look at the outbox every TICK_S, since NOTIFY would make every commit of the ledger wait for
the others (decision 0015). How many may wait is the edge's to say.

A cursor names the last event that its reader has passed, and proves that it was that one: a ledger that does not have
this event has another history, and refuses it (decision 0020).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio

from engine.batching import Batcher
from engine.contracts.webhooks import FeedPage
from engine.errors import Rejected, Unavailable
from engine.ledger.transaction import Transactions
from engine.loop import surviving
from engine.pagination import cursor, parts, strange

LATEST = "latest"  # instead of a cursor: only what comes from now on
TICK_S = 0.1  # between two looks: what a waiting reader may be late by
SCAN_MAX = 1_000  # events looked at for one page of a reader with a filter
_BATCH_MAX = 20  # pages read at once: 2,000 events of up to 20 KB at worst
_AWAY_S = 0.5
_PROOF_CHARACTERS = 16
_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_PROOF = re.compile(r"[0-9a-f]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Behind the event with this id. `proof` is made of the event itself; with id 0, of the installation."""

    id: int
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """What one page is wanted for: everything after a place; None: the merchant's last event."""

    merchant: str
    types: tuple[str, ...] | None
    limit: int
    after: _Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Rendered events, where to go on, and whether there is more at once."""

    events: tuple[bytes, ...]
    end: _Place
    more: bool


class EventFeed:
    """Implements Feeding (webhooks.py). Run `run` for life."""

    def __init__(self, transactions: Transactions, installation: str) -> None:
        self._transactions = transactions
        self._beginning = _Place(id=0, proof=_proof(installation))
        self._pages: Batcher[_Reader, _Page] = Batcher(self._read, _BATCH_MAX)
        self._waiting: dict[str, set[anyio.Event]] = {}
        self._somebody_waits = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pages.run)
            tasks.start_soon(self._watch)

    async def events(self, merchant: str, page: FeedPage) -> bytes:
        """A page of the merchant's events after a cursor, oldest first. Without one, from the beginning.

        Raises Rejected(cursor_unknown) when the event that the cursor names is not in this ledger.
        """
        after = self._beginning if page.after is None else None if page.after == LATEST else _place(page.after)
        reader = _Reader(merchant=merchant, types=page.types, limit=page.limit, after=after)
        found = await self._pages(reader)
        if page.wait_s:
            with anyio.move_on_after(page.wait_s):
                while not (found.events or found.more):
                    with self._told_of(merchant) as news:
                        found = await self._pages(replace(reader, after=found.end))
                        if not (found.events or found.more):
                            await news.wait()
        return b'{"object":"list","data":[%s],"has_more":%s,"next_cursor":"%s"}' % (
            b",".join(found.events),
            b"true" if found.more else b"false",
            cursor(found.end.id, found.end.proof).encode(),
        )

    @contextmanager
    def _told_of(self, merchant: str) -> Iterator[anyio.Event]:
        """An event that is set when the merchant has something new. It is there before the page is read: what is not
        on the page is then surely told."""
        event = anyio.Event()
        self._waiting.setdefault(merchant, set()).add(event)
        self._somebody_waits.set()
        try:
            yield event
        finally:
            self._waiting[merchant].discard(event)
            if not self._waiting[merchant]:
                del self._waiting[merchant]

    async def _watch(self) -> None:
        """While somebody waits, look who has something new, and wake them."""
        since: int | None = None
        while True:
            await self._somebody_waits.wait()
            if not self._waiting:
                self._somebody_waits, since = anyio.Event(), None
                continue
            asked, since = since, None
            async with surviving("feed"):
                try:
                    since = await self._look(asked)
                except Unavailable:  # who waits is told so when their time is over, or finds it back
                    await anyio.sleep(_AWAY_S)
            await anyio.sleep(TICK_S)

    async def _look(self, since: int | None) -> int:
        """Wake the merchants that have something new since the last look; at the first one, everybody."""
        async with self._transactions.begin() as transaction:
            row = await transaction.row("events_news", since=since) or {}
        for merchant in list(self._waiting) if row.get("merchants") is None else row["merchants"]:
            for event in self._waiting.get(merchant, ()):
                event.set()
        return int(row["reached"])

    async def _read(self, readers: Sequence[_Reader]) -> list[_Page | Exception]:
        async with self._transactions.begin() as transaction:
            rows = await transaction.rows(
                "events_pages",
                merchants=[reader.merchant for reader in readers],
                ids=[None if reader.after is None else reader.after.id for reader in readers],
                types=[None if reader.types is None else ",".join(reader.types) for reader in readers],
                limits=[reader.limit for reader in readers],
                scan=SCAN_MAX,
            )
        found: list[list[dict[str, Any]]] = [[] for _ in readers]
        for row in rows:
            found[row["reader"] - 1].append(row)
        return [self._page(reader, rows) for reader, rows in zip(readers, found, strict=True)]

    def _page(self, reader: _Reader, rows: list[dict[str, Any]]) -> _Page | Exception:
        """A page ends behind the last event that was looked at; one without any, where it began."""
        first, last = rows[0], rows[-1]
        passed = self._beginning
        if first["passed_id"] is not None:
            passed = _Place(id=first["passed_id"], proof=_proof_of(first["passed_event"], first["passed_at"]))
        if reader.after is not None and reader.after != passed:
            return _unknown()
        scanned = first["scanned"] or 0
        end = passed
        if last["id"] is not None:
            end = _Place(id=last["id"], proof=_proof_of(last["event_id"], last["created_at"]))
        return _Page(
            events=tuple(_event(row) for row in rows if row["payload"] is not None),
            end=end,
            more=scanned > len(rows) or (reader.types is not None and scanned == SCAN_MAX),
        )


def _event(row: dict[str, Any]) -> bytes:
    """The body of the webhook, with the id that is in its header."""
    payload: str = row["payload"]
    return f'{{"id":"{row["event_id"]}",{payload[1:]}'.encode()


def _proof_of(event: str, created_at: datetime) -> str:
    return _proof(f"{event} {created_at.astimezone(UTC).isoformat()}")


def _proof(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_PROOF_CHARACTERS]


def _place(after: str) -> _Place:
    id, proof = parts(after, 2)
    if not (_ID.fullmatch(id) and _PROOF.fullmatch(proof)):
        raise strange()
    return _Place(id=int(id), proof=proof)


def _unknown() -> Rejected:
    return Rejected(
        "cursor_unknown",
        "The event that this cursor names is not among yours in this ledger: it was restored from an older copy, "
        "or another merchant, gateway or version gave it out. Ask for after=latest and keep its cursor, read your open "
        "payments again, then go on from that cursor; or leave the cursor out and begin at your first event.",
    )
