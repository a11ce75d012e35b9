"""The feed: what webhooks push, pulled. The same ids and payloads, in an order in which nothing comes in late.

Events are read in the order of their transactions, and only from below the oldest one that is still under way
(pg_snapshot_xmin): a slower commit may hold an event back for a moment, and never lets a reader skip it. Pages of many
readers are read together; those who wait share one look at the outbox every TICK_S, since NOTIFY would make every
commit of the ledger wait for the others (decision 0015). How many may wait is the edge's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio

from engine.coalescer import Coalescer
from engine.cursor import cursor, parts, strange
from engine.errors import Unavailable
from engine.loop import surviving
from engine.transaction import Transactions
from engine.webhook import FeedPage

LATEST = "latest"  # instead of a cursor: only what comes from now on
TICK_S = 0.1  # between two looks: what a waiting reader may be late by
SCAN_MAX = 1_000  # events looked at for one page of a reader with a filter
_BATCH_MAX = 20  # pages read at once: 2,000 events of up to 20 KB at worst
_AWAY_S = 0.5
_END = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """What one page is wanted for: everything after a transaction and an id in it."""

    merchant: str
    types: tuple[str, ...] | None
    limit: int
    xid: int
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Rendered events, where to go on, and whether there is more at once."""

    events: tuple[bytes, ...]
    xid: int
    id: int
    more: bool


class Feed:
    """Implements Feeding (webhook.py). Run `run` for life."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._pages: Coalescer[_Reader, _Page] = Coalescer(self._read, _BATCH_MAX)
        self._waiting: dict[str, set[anyio.Event]] = {}
        self._somebody_waits = anyio.Event()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pages.run)
            tasks.start_soon(self._watch)

    async def events(self, merchant: str, page: FeedPage) -> bytes:
        """A page of the merchant's events after a cursor, oldest first. Without one, from the beginning."""
        xid, id = _position(page.after)
        reader = _Reader(merchant=merchant, types=page.types, limit=page.limit, xid=xid, id=id)
        found = await self._pages(reader)
        if page.wait_s:
            with anyio.move_on_after(page.wait_s):
                while not (found.events or found.more):
                    with self._told_of(merchant) as news:
                        found = await self._pages(replace(reader, xid=found.xid, id=found.id))
                        if not (found.events or found.more):
                            await news.wait()
        return b'{"object":"list","data":[%s],"has_more":%s,"next_cursor":"%s"}' % (
            b",".join(found.events),
            b"true" if found.more else b"false",
            cursor(found.xid, found.id).encode(),
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
        for merchant in list(self._waiting) if since is None else row["merchants"]:
            for event in self._waiting.get(merchant, ()):
                event.set()
        return int(row["xmin"])

    async def _read(self, readers: Sequence[_Reader]) -> list[_Page | Exception]:
        async with self._transactions.begin() as transaction:
            rows = await transaction.rows(
                "events_pages",
                merchants=[reader.merchant for reader in readers],
                xids=[reader.xid for reader in readers],
                ids=[reader.id for reader in readers],
                types=[None if reader.types is None else ",".join(reader.types) for reader in readers],
                limits=[reader.limit for reader in readers],
                scan=SCAN_MAX,
            )
        found: list[list[dict[str, Any]]] = [[] for _ in readers]
        for row in rows:
            found[row["reader"] - 1].append(row)
        return [_page(reader, rows) for reader, rows in zip(readers, found, strict=True)]


def _page(reader: _Reader, rows: list[dict[str, Any]]) -> _Page:
    """Where there is nothing more, whoever has read this goes on at the oldest transaction that was under way."""
    scanned = rows[0]["scanned"] or 0
    more = scanned > len(rows) or (reader.types is not None and scanned == SCAN_MAX)
    last = rows[-1] if more else {"xid": rows[-1]["xmin"], "id": 0}
    return _Page(
        events=tuple(_event(row) for row in rows if row["payload"] is not None),
        xid=last["xid"],
        id=last["id"],
        more=more,
    )


def _event(row: dict[str, Any]) -> bytes:
    """The body of the webhook, with the id that is in its header."""
    payload: str = row["payload"]
    return f'{{"id":"{row["event_id"]}",{payload[1:]}'.encode()


def _position(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, 0
    if after == LATEST:
        return _END, 0
    xid, id = parts(after, 2)
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (xid, id)):
        raise strange()
    return int(xid), int(id)
