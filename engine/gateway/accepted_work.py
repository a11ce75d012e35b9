"""Accepted work: commands that one merchant had accepted and that the ledger may not know yet, for look-ups.

The command and dead-letter streams hold exactly what was accepted and not acknowledged, and an entry is acknowledged
only when the ledger has its operation (I4). So whoever searches here first and the ledger afterwards has seen all
that was ever accepted, and may say so when that is nothing. A search that cannot be complete raises Unavailable: a shop
that is told "never accepted" charges again.
"""

from __future__ import annotations

from typing import Any

import anyio
from msgspec import Struct

from engine.domain.command import Command, accept_order
from engine.domain.payment import Verb
from engine.errors import Broken, Unavailable
from engine.streams.acceptance_store import AcceptanceStore
from engine.streams.dead_letter import decode_letter
from engine.streams.encoding import beginning, decode_command, member

# More than one merchant may have in a partition (1,500 and 10 %), and 10 ms of Redis' time, which others wait for.
ENTRIES_MAX = 2000
_FOUND_MAX = 200  # in a partition: twice the largest page
_AT_ONCE = 2  # partitions a round trip: what accepts of other edges wait behind is bounded by this
_PATIENCE_S = 2.0


class WorkFilter(Struct, frozen=True, kw_only=True):
    """What is looked for; what is None may be anything."""

    operation: str | None = None
    key: str | None = None
    order_id: str | None = None
    customer_id: str | None = None
    verb: Verb | None = None

    def fits(self, command: Command) -> bool:
        """The script finds the merchant's entries with this text in them; whether they fit is decided here."""
        terms = command.terms
        return (
            self.operation in (None, command.operation)
            and self.key in (None, command.key)
            and self.order_id in (None, terms and terms.order_id)
            and self.customer_id in (None, terms and terms.customer_id)
            and self.verb in (None, command.verb)
        )


class Accepted(Struct, frozen=True, kw_only=True):
    """A command, its place in the order of acceptance, and its dead letter if it was given up."""

    command: Command
    order: int
    dead_letter: str | None


class AcceptedWork:
    """Searches one merchant's commands. One search at a time: each takes time of the Redis that accepts."""

    def __init__(self, acceptance_store: AcceptanceStore, partitions: int) -> None:
        self._acceptance_store, self._partitions = acceptance_store, partitions
        self._turn = anyio.Semaphore(1)

    async def find(self, merchant: str, wanted: WorkFilter) -> list[Accepted]:
        """All that fits, the first accepted first; of several entries of one operation, the one that is carried out.
        Raises Unavailable where Redis is away, or holds more than a search goes through."""
        with anyio.move_on_after(_PATIENCE_S) as waiting:
            await self._turn.acquire()
        if waiting.cancelled_caught:
            raise Unavailable("overloaded", "Too many look-ups are under way. Nothing is known of this one; ask again.")
        try:
            replies = await self._search(merchant, wanted)
        finally:
            self._turn.release()
        if not all(whole for whole, *_ in replies):
            detail = "More accepted commands wait than a look-up goes through, so what it would say may be wrong."
            raise Unavailable("overloaded", f"{detail} Ask again, or repeat the request with its Idempotency-Key.")
        found = [accepted for _, *rows in replies for row in rows if (accepted := _accepted(row)) is not None]
        ordered = sorted(found, key=lambda each: each.order)
        first: dict[str, Accepted] = {}
        for each in ordered:
            if wanted.fits(each.command):
                first.setdefault(each.command.operation, each)
        return list(first.values())

    async def _search(self, merchant: str, wanted: WorkFilter) -> list[Any]:
        field, text = _needle(merchant, wanted)
        words = (beginning(merchant), field, text, ENTRIES_MAX, _FOUND_MAX)
        replies: list[Any] = []
        for begin in range(0, self._partitions, _AT_ONCE):
            some = range(begin, min(begin + _AT_ONCE, self._partitions))
            replies += await self._acceptance_store.find(some, merchant, *words)
        return replies


def _needle(merchant: str, wanted: WorkFilter) -> tuple[str, str | bytes]:
    """A field of the entry and a text in it that only few others have."""
    if wanted.operation is not None:
        return "operation", wanted.operation
    if wanted.key is not None:
        return "body", beginning(merchant, wanted.key)
    if wanted.order_id is not None:
        return "body", member("order_id", wanted.order_id)
    if wanted.customer_id is not None:
        return "body", member("customer_id", wanted.customer_id)
    return "body", beginning(merchant)


def _accepted(row: Any) -> Accepted | None:
    """None for an entry that no worker could read either: it was not accepted by us."""
    place, dead, raw = row
    fields = dict(zip(raw[::2], raw[1::2], strict=True))
    try:
        if not dead:
            return Accepted(command=decode_command(fields), order=accept_order(place.decode()), dead_letter=None)
        letter = decode_letter(0, place.decode(), fields)
        command = decode_command(letter.fields)
        return Accepted(command=command, order=accept_order(letter.entry or letter.place), dead_letter=letter.place)
    except (Broken, ValueError):
        return None
