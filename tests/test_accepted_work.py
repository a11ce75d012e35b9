"""What a look-up makes of commands in the streams: one merchant's, once, all or nothing, read before the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from engine.domain.command import Command
from engine.domain.ids import operation_id, payment_id
from engine.domain.payment import Operation, Verb
from engine.errors import Unavailable
from engine.gateway.accepted_work import AcceptedWork, WorkFilter
from engine.gateway.queries import PaymentQueries
from engine.ledger.reader import Page
from engine.pagination import cursor
from engine.streams.encoding import encode_command
from support.decision_stand import a_command, an_authorized_payment, changed

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TERMS = a_command(Verb.AUTHORIZE, "first").terms


def an_authorize(key: str, *, merchant: str = "m_1", order: str = "o_1", customer: str = "c_1") -> Command:
    assert TERMS is not None
    payment = payment_id("stand", merchant, key)
    terms = changed(TERMS, merchant=merchant, order_id=order, customer_id=customer)
    ids = {"payment": payment, "operation": operation_id(payment, Verb.AUTHORIZE, key)}
    return changed(a_command(Verb.AUTHORIZE, key), merchant=merchant, terms=terms, **ids)


def a_row(command: Command, place: str, *, letter_of: str | None = None) -> list[Any]:
    """An entry as find-3 gives it; with `letter_of`, the dead letter of the entry with this id."""
    words = [word if isinstance(word, bytes) else word.encode() for word in encode_command(command)]
    if letter_of is not None:
        words = [b"was." + word if place % 2 == 0 else word for place, word in enumerate(words)]
        words = [b"cause", b"exception", b"entry", letter_of.encode(), *words]
    return [place.encode(), 0 if letter_of is None else 1, words]


@dataclass(kw_only=True)
class HeldFront:
    """Has these rows in its first partition, and remembers who asked for what."""

    rows: list[list[Any]]
    told: list[str] = field(default_factory=list)
    whole: tuple[int, ...] = (1, 1, 1)
    searched: list[tuple[int, str, Any]] = field(default_factory=list)
    waits_for: asyncio.Event | None = None

    async def find(self, partitions: Sequence[int], merchant: str, beginning: bytes, *words: Any) -> list[Any]:
        self.told.append("streams")
        if self.waits_for is not None:
            await self.waits_for.wait()
        self.searched += [(partition, merchant, beginning) for partition in partitions]
        return [[self.whole[partition], *(self.rows if partition == 0 else ())] for partition in partitions]


@dataclass(kw_only=True)
class HeldArchive:
    """A ledger that knows nothing yet, and what it was asked in turn."""

    told: list[str]
    journaled: list[Operation] = field(default_factory=list)  # between two looks at it

    async def time(self) -> datetime:
        self.told.append("time")
        return NOON + timedelta(seconds=len(self.told))

    async def page(self, merchant: str, page: Page) -> list[Any]:
        self.told.append("ledger")
        return []

    async def operations_under(self, merchant: str, key: str, limit: int, before: Any) -> list[Any]:
        self.told.append("ledger")
        return self.journaled

    async def operation(self, operation: str) -> None:
        self.told.append("operation")


def found(acceptance_store: HeldFront, wanted: WorkFilter) -> list[str]:
    """Keys, in order."""
    work = AcceptedWork(acceptance_store, 3)  # type: ignore[arg-type]
    return [accepted.command.key for accepted in asyncio.run(work.find("m_1", wanted))]


ALL = [
    a_row(an_authorize("k_1"), "5-0"),
    a_row(an_authorize("k_2", order="o_2"), "4-0"),
    a_row(an_authorize("k_3", customer="c_2"), "3-0"),
    a_row(a_command(Verb.CAPTURE, "k_4"), "2-0"),
]


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        (WorkFilter(), ["k_4", "k_3", "k_2", "k_1"]),
        (WorkFilter(key="k_2"), ["k_2"]),
        (WorkFilter(order_id="o_1"), ["k_3", "k_1"]),
        (WorkFilter(customer_id="c_1"), ["k_2", "k_1"]),
        (WorkFilter(order_id="o_1", customer_id="c_2"), ["k_3"]),
        (WorkFilter(verb=Verb.AUTHORIZE), ["k_3", "k_2", "k_1"]),
        (WorkFilter(operation=an_authorize("k_2").operation), ["k_2"]),
    ],
    ids=str,
)
def test_only_what_fits_is_found_whatever_the_script_lets_through(wanted: WorkFilter, keys: list[str]) -> None:
    assert found(HeldFront(rows=ALL), wanted) == keys


def test_each_partition_is_searched_once_for_entries_of_this_merchant_alone() -> None:
    acceptance_store = HeldFront(rows=[])

    for wanted in (
        WorkFilter(),
        WorkFilter(key="k"),
        WorkFilter(order_id="o"),
        WorkFilter(customer_id="c"),
        WorkFilter(operation="op"),
    ):
        assert found(acceptance_store, wanted) == []

    assert acceptance_store.searched == [(partition, "m_1", b'{"merchant":"m_1",') for partition in range(3)] * 5


@pytest.mark.parametrize("whole", [(0, 1, 1), (1, 1, 0), (0, 0, 0)])
def test_a_search_that_was_not_whole_somewhere_says_nothing(whole: tuple[int, ...]) -> None:
    with pytest.raises(Unavailable, match="More accepted commands wait"):
        found(HeldFront(rows=ALL, whole=whole), WorkFilter(key="k_1"))


def test_of_several_entries_of_an_operation_the_first_accepted_is_the_one() -> None:
    first, again = an_authorize("k_1"), changed(an_authorize("k_1"), request_id="req_2")
    work = AcceptedWork(HeldFront(rows=[a_row(again, "9-0"), a_row(first, "5-0")]), 3)  # type: ignore[arg-type]

    (accepted,) = asyncio.run(work.find("m_1", WorkFilter()))

    assert (accepted.command.request_id, accepted.order) == ("req_1", 5_000_000)


def test_a_dead_letter_has_the_place_of_its_entry_in_the_order_of_acceptance() -> None:
    buried = a_row(an_authorize("k_2"), "9-0", letter_of="2-0")
    work = AcceptedWork(HeldFront(rows=[a_row(an_authorize("k_1"), "5-0"), buried]), 3)  # type: ignore[arg-type]

    accepted = asyncio.run(work.find("m_1", WorkFilter()))

    assert [(each.command.key, each.order, each.dead_letter) for each in accepted] == [
        ("k_2", 2_000_000, "9-0"),
        ("k_1", 5_000_000, None),
    ]


def test_one_search_at_a_time_and_who_waits_too_long_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.gateway.accepted_work._PATIENCE_S", 0.01)

    async def story() -> list[int]:
        goes_on = asyncio.Event()
        work = AcceptedWork(HeldFront(rows=ALL, waits_for=goes_on), 3)  # type: ignore[arg-type]
        first = asyncio.create_task(work.find("m_1", WorkFilter()))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many look-ups"):
            await work.find("m_1", WorkFilter())
        goes_on.set()
        return [len(await first), len(await work.find("m_1", WorkFilter()))]

    assert asyncio.run(story()) == [4, 4]


def listed(acceptance_store: HeldFront, *journaled: Operation, **filters: Any) -> dict[str, Any]:
    usual = {"order_id": None, "customer_id": None, "status": None, "limit": 10, "cursor": None}
    ledger_reader = HeldArchive(told=acceptance_store.told, journaled=list(journaled))
    queries = PaymentQueries(acceptance_store, ledger_reader, 3, lambda: NOON, 60_000)  # type: ignore[arg-type]
    if "key" in filters:
        return dict(orjson.loads(asyncio.run(queries.operations("m_1", filters["key"], 10, filters.get("cursor")))))
    return dict(orjson.loads(asyncio.run(queries.payments("m_1", **{**usual, **filters}))))


@pytest.mark.parametrize("filters", [{}, {"key": "k_1"}], ids=["payments", "operations"])
def test_the_streams_are_read_before_the_ledger_and_a_list_is_as_of_before_both_looks_at_what_is_journaled(
    filters: dict[str, Any],
) -> None:
    """An entry leaves the stream when the ledger has it: read the other way round, it would be in neither."""
    acceptance_store = HeldFront(rows=ALL[:1])

    page = listed(acceptance_store, **filters)

    assert list(dict.fromkeys(acceptance_store.told)) == ["streams", "operation", "time", "ledger"]
    assert datetime.fromisoformat(page["as_of"]) == NOON + timedelta(seconds=acceptance_store.told.index("time") + 1)
    assert len(page["data"]) == 1


def test_a_page_behind_a_cursor_shows_nothing_again() -> None:
    rows = [a_row(an_authorize("k_1"), "5-0"), a_row(changed(a_command(Verb.CAPTURE, "k_1"), amount=5000), "3-0")]
    newest, oldest = (operation["id"] for operation in listed(HeldFront(rows=rows), key="k_1")["data"])

    behind = listed(HeldFront(rows=rows), key="k_1", cursor=cursor(5_000_000, newest))

    assert [operation["id"] for operation in behind["data"]] == [oldest]


@pytest.mark.parametrize(("status", "shown"), [(None, 3), ("pending", 3), ("captured", 0)])
def test_what_the_ledger_does_not_have_is_pending(status: str | None, shown: int) -> None:
    assert len(listed(HeldFront(rows=ALL), status=status)["data"]) == shown


def test_a_page_of_payments_goes_on_where_the_one_before_ended() -> None:
    first = listed(HeldFront(rows=ALL), limit=2)

    second = listed(HeldFront(rows=ALL), limit=2, cursor=first["next_cursor"])

    shown = [payment["id"] for page in (first, second) for payment in page["data"]]
    assert len(shown) == len(set(shown)) == 3
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_what_is_journaled_between_the_looks_in_another_place_is_shown_once_and_as_the_ledger_has_it() -> None:
    command = an_authorize("k_1")
    journaled = changed(an_authorized_payment().operations[0], id=command.operation, key="k_1", accept_order=8_000_000)

    page = listed(HeldFront(rows=[a_row(command, "5-0")]), journaled, key="k_1")

    assert [(operation["id"], operation["status"]) for operation in page["data"]] == [(command.operation, "succeeded")]
