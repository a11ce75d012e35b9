"""The journal's chain: what is stored verifies, and whoever edits, drops or reorders a row breaks it (I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson
import pytest
from decision_stand import JOURNAL, a_captured_payment, a_payment_begun, approved
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.journal import Entry, Journal
from engine.lifecycle import Event
from engine.payment import State, Verb
from engine.rows import entry_rows
from engine.step import Step

Row = Mapping[str, object]
NOON = datetime(2030, 1, 1, 12, 0, 0, 250, tzinfo=UTC)


def _stored(steps: Sequence[Step]) -> list[dict[str, object]]:
    """The journal rows as Postgres gives them back: `evidence` parsed from the very text that was sent to it."""
    rows = orjson.loads(orjson.dumps([row for step in steps for row in entry_rows(step)]))
    for row in rows:
        row["at"] = datetime.fromisoformat(row["at"])
    return list(rows)


def _verifies(rows: Sequence[Row]) -> bool:
    """What anybody with the key can do with stored rows alone."""
    head = ""
    for number, row in enumerate(rows, start=1):
        entry = Entry(
            payment=str(row["payment"]),
            sequence=number,
            from_state=None if row["from_state"] is None else State(str(row["from_state"])),
            to_state=State(str(row["to_state"])),
            event=Event(str(row["event"])),
            operation=str(row["operation"]),
            at=row["at"],  # type: ignore[arg-type]
            evidence=row["evidence"],  # type: ignore[arg-type]
        )
        if row["sequence"] != number or JOURNAL.chain(head, entry).mac != row["mac"]:
            return False
        head = str(row["mac"])
    return True


def _a_whole_journal() -> list[dict[str, object]]:
    return _stored(a_captured_payment().accept(Verb.REFUND, "r").answer(approved).steps)


def test_a_stored_journal_verifies() -> None:
    rows = _a_whole_journal()

    assert len(rows) == 4
    assert _verifies(rows)


def test_the_receipt_holds_the_head_of_its_chain() -> None:
    desk = a_payment_begun().answer(approved)

    assert desk.payment.journal_head == _stored(desk.steps)[-1]["mac"]


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payment", "pay_other"),
        ("from_state", "voided"),
        ("to_state", "voided"),
        ("event", "voided"),
        ("operation", "op_other"),
        ("at", datetime(2031, 1, 1, tzinfo=UTC)),
        ("evidence", {"reference": "other"}),
    ],
)
def test_an_edited_row_breaks_the_chain(row: int, column: str, value: object) -> None:
    rows = _a_whole_journal()
    rows[row][column] = value

    assert not _verifies(rows)


@pytest.mark.parametrize("row", range(3))
def test_a_row_dropped_from_within_breaks_the_chain(row: int) -> None:
    rows = _a_whole_journal()
    del rows[row]

    assert not _verifies(rows)


def test_a_row_dropped_from_the_end_shows_against_the_receipt() -> None:
    desk = a_captured_payment()
    rows = _stored(desk.steps)[:-1]

    assert _verifies(rows)
    assert rows[-1]["mac"] != desk.payment.journal_head


def test_rows_that_changed_places_break_the_chain() -> None:
    rows = _a_whole_journal()
    rows[1], rows[2] = rows[2] | {"sequence": 2}, rows[1] | {"sequence": 3}

    assert not _verifies(rows)


def test_another_key_makes_another_chain() -> None:
    chained = a_payment_begun().told[0][0]

    assert Journal(b"x" * 32).chain("", chained.entry).mac != chained.mac


@given(st.dictionaries(st.text(max_size=10), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=10)))
def test_the_order_of_the_evidence_does_not_matter(evidence: dict[str, object]) -> None:
    entry = replace(a_payment_begun().told[0][0].entry, evidence=evidence, at=NOON)
    backwards = replace(entry, evidence=dict(reversed(list(evidence.items()))))

    assert JOURNAL.chain("h", entry).mac == JOURNAL.chain("h", backwards).mac


def test_every_row_has_an_event_id_of_its_own_that_never_changes() -> None:
    first = [row["event_id"] for row in _a_whole_journal()]

    assert len(set(first)) == 4
    assert first == [row["event_id"] for row in _a_whole_journal()]
