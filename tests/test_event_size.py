"""Whatever a client may say of a payment, its events stay below 20 KB, the limit of Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge.openapi.webhook_schemas import EventSchema
from edge.parsing.payment_bodies import DESCRIPTION_BYTES_MAX, METADATA_BYTES_MAX, new_payment
from edge.parsing.webhook_bodies import new_endpoint
from engine.contracts.webhooks import DisabledReason
from engine.domain.journal import JournalEntry
from engine.domain.payment import BankIds, DeclineCode, PaymentFailure, Terms, Times, details_of
from engine.domain.rendering import render_event, render_payment
from engine.errors import Rejected
from engine.webhooks.delivery import body_for, render_notice
from support.edge_stand import CARDS, TARGETS, a_payment
from test_edge_reference import a_payment as a_receipt
from test_edge_reference import an_operation

EVENT_BYTES_MAX = 20_000
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
# What JSON makes longer: quotes and backslashes twice, controls six times; and characters of four bytes.
HEAVY = st.sampled_from(['"', "\\", "\x01", "\x1f", "\x7f", "é", "\u2028", "漢", "😀", "\U0010fffd", "a"])


def terms_of(body: dict[str, Any]) -> Terms:
    """The terms of this body, as the acceptor makes them. Raises Rejected."""
    new = new_payment(orjson.loads(orjson.dumps(body)), {"card": CARDS}, TARGETS)
    return replace(
        a_receipt(None).terms,
        money=new.money,
        **details_of(new.details),
    )


def the_largest_event(terms: Terms) -> bytes:
    """With everything else as long as it gets."""
    failure = PaymentFailure(
        code="authorization_expired", message="x" * 500, decline_code=DeclineCode.PROVIDER_DECLINED
    )
    bank = BankIds(**dict.fromkeys(BankIds.__struct_fields__, "😀" * 128))
    at = Times(**dict.fromkeys(Times.__struct_fields__, NOW))
    operation = replace(an_operation(failure), id="op_" + "Z" * 26, attempts=10**6, next_attempt_at=NOW)
    payment = replace(
        a_receipt(failure), id="pay_" + "Z" * 26, terms=terms, bank=bank, at=at, sequence=10**6, amount_captured=10**12
    )
    entry = JournalEntry(
        **{**dict.fromkeys(JournalEntry.__struct_fields__), "event": "capture_refused", "at": NOW, "sequence": 10**6}
    )
    return body_for(render_event(entry, render_payment(payment, operation)), 10**6 - 1)


@given(
    order=st.text(HEAVY, min_size=1, max_size=128),
    description=st.none() | st.text(HEAVY, max_size=500),
    metadata=st.dictionaries(st.text(HEAVY, max_size=40), st.text(HEAVY, max_size=600), max_size=50),
    repeated=st.integers(1, 400),
)
@example(order="😀" * 128, description="\x01" * 500, metadata={"\x01" * 1000: "\x01" * 7000}, repeated=1)
@example(order='"' * 128, description="😀" * 500, metadata={"k": "\x01" * 1300}, repeated=1)
@example(order="\\" * 128, description='"' * 500, metadata={"k": '"' * 4000}, repeated=1)
@example(order="a", description="\x01" * 333, metadata={str(n): "\x01" * 20 for n in range(50)}, repeated=1)
def test_an_event_of_an_accepted_payment_is_below_20_kb(
    order: str, description: str | None, metadata: dict[str, str], repeated: int
) -> None:
    metadata = {name: value * repeated for name, value in metadata.items()}
    body = a_payment(
        order_id=order, customer_id=order, description=description, metadata=metadata,
        webhook_url="http://127.0.0.1/" + "x" * 2000,
    )  # fmt: skip
    try:
        terms = terms_of(body)
    except Rejected as refused:
        assert refused.code == "validation_failed"
        return

    assert len(the_largest_event(terms)) < EVENT_BYTES_MAX


# fmt: off
LONGEST = {
    "controls":            ("\x01", DESCRIPTION_BYTES_MAX // 6),
    "quotes":              ('"', 500),
    "lines":               ("\n", 500),
    "emoji":               ("😀", 500),
    "letters":             ("a", 500),
}
# fmt: on


@pytest.mark.parametrize(("character", "count"), LONGEST.values(), ids=LONGEST)
def test_a_description_is_as_long_as_its_json(character: str, count: int) -> None:
    assert terms_of(a_payment(description=character * count)).description == character * count

    with pytest.raises(Rejected) as refused:
        terms_of(a_payment(description=character * (count + 1)))
    assert [error.pointer for error in refused.value.errors] == ["/description"]
    assert "as JSON" in refused.value.errors[0].detail


@pytest.mark.parametrize("character", ["a", '"', "\n", "\x01", "é", "😀"])
def test_metadata_is_as_long_as_its_json(character: str) -> None:
    room = METADATA_BYTES_MAX - len('{"k":""}')
    count = room // (len(orjson.dumps(character)) - 2)

    assert terms_of(a_payment(metadata={"k": character * count}))
    with pytest.raises(Rejected) as refused:
        terms_of(a_payment(metadata={"k": character * (count + 1)}))
    assert [error.pointer for error in refused.value.errors] == ["/metadata"]
    assert "as JSON" in refused.value.errors[0].detail


def test_the_event_of_a_disabled_endpoint_is_below_20_kb() -> None:
    longest = "http://127.0.0.1/" + '"' * 2031

    notice = render_notice("whe_" + "Z" * 26, longest, DisabledReason.FAILING, NOW, 10**6)

    assert EventSchema.model_validate_json(notice).data["url"] == longest
    assert len(notice) < EVENT_BYTES_MAX


def test_the_description_of_an_endpoint_has_the_same_limit() -> None:
    body = {"url": "http://127.0.0.1/"}

    assert new_endpoint({**body, "description": "😀" * 500}, TARGETS).description == "😀" * 500
    with pytest.raises(Rejected) as refused:
        new_endpoint({**body, "description": "\x01" * 500}, TARGETS)
    assert [error.pointer for error in refused.value.errors] == ["/description"]
