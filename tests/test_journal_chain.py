"""The journal's chain: what is stored verifies, and who edits, drops or reorders a row is found at that row (I8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from functools import cache

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.domain.changeset import ChangeSet
from engine.domain.journal import Journal
from engine.domain.payment import Verb
from engine.ledger.rows import entry_rows
from ops.audit.chain import ChainFault, ChainReceipt, Row, walk
from support.decision_stand import JOURNAL, a_captured_payment, a_payment_begun, approved

NOON = datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=UTC)
TEXTS = ("payment", "from_state", "to_state", "event", "operation")


def _rows_of(steps: Sequence[ChangeSet]) -> list[dict[str, object]]:
    """As they are sent to Postgres."""
    return list(orjson.loads(orjson.dumps([row for step in steps for row in entry_rows(step)])))


def _stored(steps: Sequence[ChangeSet]) -> list[Row]:
    """As Postgres gives them back."""
    return [
        Row(
            payment=str(row["payment"]),
            sequence=int(str(row["sequence"])),
            from_state=None if row["from_state"] is None else str(row["from_state"]),
            to_state=str(row["to_state"]),
            event=str(row["event"]),
            operation=str(row["operation"]),
            at=datetime.fromisoformat(str(row["at"])),
            evidence=orjson.dumps(row["evidence"]).decode(),
            mac=str(row["mac"]),
        )
        for row in _rows_of(steps)
    ]


def _found(rows: Sequence[Row], receipt: ChainReceipt | None = None) -> list[tuple[int | None, ChainFault]]:
    """What is wrong, by row; against the receipt that the rows began with, if no other is given."""
    whole = _a_whole_journal()
    known = receipt or ChainReceipt(sequence=len(whole), head=whole[-1].mac)
    return [(finding.sequence, finding.fault) for finding in walk(JOURNAL, rows, known).findings]


def _a_whole_journal() -> list[Row]:
    return list(_four_rows())


@cache
def _four_rows() -> tuple[Row, ...]:
    return tuple(_stored(a_captured_payment().accept(Verb.REFUND, "r").answer(approved).steps))


def test_a_stored_journal_verifies() -> None:
    rows = _a_whole_journal()

    assert len(rows) == 4
    assert _found(rows) == []
    assert walk(JOURNAL, rows, None).verified == 4


def test_the_receipt_holds_the_head_of_its_chain() -> None:
    desk = a_payment_begun().answer(approved)

    assert desk.payment.journal_head == _stored(desk.steps)[-1].mac


@given(st.integers(0, 3), st.sampled_from(TEXTS), st.none() | st.text(max_size=20))
def test_a_row_with_another_text_anywhere_is_named_and_no_other(index: int, column: str, text: str | None) -> None:
    rows = _a_whole_journal()
    assume(getattr(rows[index], column) != text)

    rows[index] = changed(rows[index], **{column: text})  # type: ignore[arg-type]

    assert _found(rows) == [(index + 1, ChainFault.EDITED)]


@given(st.integers(0, 3), st.timedeltas(timedelta(microseconds=1), timedelta(days=10_000)))
def test_a_row_with_another_time_is_named_and_no_other(index: int, later: timedelta) -> None:
    rows = _a_whole_journal()
    at = rows[index].at
    assert at is not None

    rows[index] = changed(rows[index], at=at + later)

    assert _found(rows) == [(index + 1, ChainFault.EDITED)]


@given(
    st.integers(0, 3),
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats() | st.text(max_size=5), min_size=1),
)
def test_a_row_with_other_evidence_is_named_and_no_other(index: int, evidence: dict[str, object]) -> None:
    rows = _a_whole_journal()

    rows[index] = changed(rows[index], evidence=repr(evidence).replace("'", '"'))

    assert _found(rows) == [(index + 1, ChainFault.EDITED)]


@given(st.integers(0, 3), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_mac_that_was_altered_is_told_from_the_rows_around_it(index: int, mac: str) -> None:
    rows = _a_whole_journal()
    assume(rows[index].mac != mac)

    rows[index] = changed(rows[index], mac=mac)

    last = [(4, ChainFault.EDITED), (4, ChainFault.HEAD_DIFFERS)]  # nothing is chained to it that could tell
    assert _found(rows) == (last if index == 3 else [(index + 1, ChainFault.MAC_EDITED)])


@pytest.mark.parametrize("index", range(4))
def test_a_row_that_is_gone_is_named_also_from_the_end(index: int) -> None:
    rows = _a_whole_journal()
    del rows[index]

    assert _found(rows) == [(index + 1, ChainFault.MISSING)]


@given(st.permutations(range(4)))
def test_rows_that_changed_places_are_named_with_their_own(order: list[int]) -> None:
    rows = _a_whole_journal()

    found = _found([changed(rows[index], sequence=place) for place, index in enumerate(order, start=1)])

    moved = [(place, ChainFault.MOVED) for place, index in enumerate(order, start=1) if index + 1 != place]
    assert [each for each in found if each[1] is not ChainFault.HEAD_DIFFERS] == moved
    assert ((4, ChainFault.HEAD_DIFFERS) in found) == (order[3] != 3)


def test_rows_beyond_the_receipt_are_named() -> None:
    rows = _a_whole_journal()

    assert _found(rows, ChainReceipt(sequence=3, head=rows[2].mac)) == [(4, ChainFault.EXTRA)]


def test_another_key_makes_another_chain() -> None:
    chained = a_payment_begun().told[0][0]

    assert Journal(b"x" * 32).chain("", chained.entry).mac != chained.mac


@given(st.dictionaries(st.text(max_size=10), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=10)))
def test_the_order_of_the_evidence_does_not_matter(evidence: dict[str, object]) -> None:
    entry = replace(a_payment_begun().told[0][0].entry, evidence=evidence, at=NOON)
    backwards = replace(entry, evidence=dict(reversed(list(evidence.items()))))

    assert JOURNAL.chain("h", entry).mac == JOURNAL.chain("h", backwards).mac


def _event_ids() -> list[object]:
    return [row["event_id"] for row in _rows_of(a_captured_payment().steps)]


def test_every_row_has_an_event_id_of_its_own_that_never_changes() -> None:
    first = _event_ids()

    assert len(set(first)) == 3
    assert first == _event_ids()
