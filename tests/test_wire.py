"""The wire: what goes into Redis comes out the same, and what is not ours is Broken and nothing else."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.domain.command import Command, IdempotencyRecord, OpenOperation, accept_order
from engine.domain.ids import operation_id, payment_id
from engine.domain.money import Money
from engine.domain.payment import MaskedCard, Terms, Verb
from engine.errors import Broken
from engine.streams.encoding import (
    decode_command,
    decode_record,
    decode_snapshot,
    encode_command,
    encode_record,
    encode_snapshot,
)

TEXT = st.text(max_size=60)
MAYBE = st.none() | TEXT
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
FINGERPRINTS = st.dictionaries(TEXT, TEXT, max_size=5)
CARDS = st.builds(MaskedCard, brand=TEXT, last4=TEXT, expiry_month=st.integers(1, 12), expiry_year=st.integers(0, 9999))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
GOOD = Command(
    operation=operation_id(payment_id("i", "m", "k"), Verb.AUTHORIZE, "k"),
    payment=payment_id("i", "m", "k"),
    verb=Verb.AUTHORIZE,
    merchant="m",
    key="k",
    amount=None,
    terms=Terms(
        merchant="m",
        money=Money(amount=5000, currency="USD"),
        order_id="o",
        customer_id="c",
        description="d",
        metadata={"a": "b"},
        method=MaskedCard(brand="visa", last4="1111", expiry_month=12, expiry_year=2030),
        connector="ficmart_bank",
        webhook_url="https://shop.example/hooks",
    ),
    sealed="sealed",
    sale=True,
    fingerprint={"amount": "f"},
    request_id="req_1",
    traceparent="00-0-0-01",
    reply_to="edge",
    accepted_at=datetime(2030, 1, 1, tzinfo=UTC),
)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    merchant, key, verb = draw(TEXT), draw(TEXT), draw(st.sampled_from(Verb))
    payment = payment_id("i", merchant, key)
    terms = Terms(
        merchant=merchant,
        money=Money(amount=draw(st.integers(1, 10**12)), currency=draw(TEXT)),
        order_id=draw(TEXT),
        customer_id=draw(TEXT),
        description=draw(MAYBE),
        metadata=draw(st.dictionaries(TEXT, TEXT, max_size=5)),
        method=draw(CARDS),
        connector=draw(TEXT),
        webhook_url=draw(MAYBE),
    )
    return Command(
        operation=operation_id(payment, verb, key),
        payment=payment,
        verb=verb,
        merchant=merchant,
        key=key,
        amount=draw(st.none() | st.integers(1, 10**12)),
        terms=terms if verb is Verb.AUTHORIZE else None,
        sealed=draw(TEXT) if verb is Verb.AUTHORIZE else None,
        sale=draw(st.booleans()),
        fingerprint=draw(FINGERPRINTS),
        request_id=draw(TEXT),
        traceparent=draw(MAYBE),
        reply_to=draw(MAYBE),
        accepted_at=draw(MOMENTS),
    )


def _entry(command: Command) -> dict[bytes, bytes]:
    """The entry as a reader of the stream gets it."""
    flat = [part.encode() if isinstance(part, str) else part for part in encode_command(command)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _as_read(entry: dict[bytes, bytes]) -> dict[bytes, bytes] | None:
    """The entry of the command that was read in it; None when it is broken."""
    try:
        return _entry(decode_command(entry))
    except Broken:
        return None


@given(commands())
def test_a_command_comes_out_of_the_stream_as_it_went_in(command: Command) -> None:
    assert decode_command(_entry(command)) == command


@pytest.mark.parametrize("field", [b"v", b"operation", b"payment", b"verb", b"body"])
def test_an_entry_without_one_of_its_fields_is_broken(field: bytes) -> None:
    entry = _entry(GOOD)
    del entry[field]

    with pytest.raises(Broken):
        decode_command(entry)


@given(st.sampled_from([b"v", b"operation", b"payment", b"verb", b"body"]), st.binary(max_size=40))
def test_an_entry_with_any_bytes_in_a_field_is_broken_and_nothing_worse(field: bytes, value: bytes) -> None:
    assume(value not in (b"1", *(verb.encode() for verb in Verb)))

    with pytest.raises(Broken):
        decode_command({**_entry(GOOD), field: value})


@given(st.sampled_from(sorted(orjson.loads(_entry(GOOD)[b"body"]))))
def test_a_body_without_one_of_its_members_is_broken(name: str) -> None:
    body = orjson.loads(_entry(GOOD)[b"body"])
    del body[name]

    with pytest.raises(Broken):
        decode_command({**_entry(GOOD), b"body": orjson.dumps(body)})


@pytest.mark.parametrize("value", [None, [], 5, "text", {}, {"terms": None}])
def test_a_body_that_is_no_command_is_broken(value: object) -> None:
    with pytest.raises(Broken):
        decode_command({**_entry(GOOD), b"body": orjson.dumps(value)})


@given(JSON)
def test_any_json_for_a_body_is_broken_and_nothing_worse(value: object) -> None:
    with pytest.raises(Broken):
        decode_command({**_entry(GOOD), b"body": orjson.dumps(value)})


@given(st.sampled_from(["terms", "accepted_at"]), JSON)
def test_any_json_for_a_nested_member_is_broken(name: str, value: object) -> None:
    body = orjson.loads(_entry(GOOD)[b"body"]) | {name: value}

    with pytest.raises(Broken):
        decode_command({**_entry(GOOD), b"body": orjson.dumps(body)})


@given(st.sampled_from(["method", "amount", "metadata"]), JSON)
def test_any_json_within_the_terms_is_a_command_or_broken(name: str, value: object) -> None:
    body = orjson.loads(_entry(GOOD)[b"body"])
    body["terms"][name] = value

    entry = {**_entry(GOOD), b"body": orjson.dumps(body)}

    assert _as_read(entry) in (entry, None)


def test_what_is_broken_is_described_without_its_body() -> None:
    with pytest.raises(Broken) as broken:
        decode_command({**_entry(GOOD), b"body": b'{"sealed": "4111111111111111", "x": ' + b"9" * 500})

    assert "4111111111111111" not in str(broken.value)


@given(FINGERPRINTS, st.none() | st.tuples(st.integers(200, 599), TEXT))
def test_a_record_comes_out_as_it_went_in(fingerprint: dict[str, str], answer: tuple[int, str] | None) -> None:
    status, body = (None, None) if answer is None else (answer[0], answer[1].encode())
    record = IdempotencyRecord(fingerprint=fingerprint, status=status, body=body)

    assert decode_record(encode_record(record)) == record
    assert record.settled is (answer is not None)


@given(st.binary(max_size=60) | JSON.map(orjson.dumps))
def test_what_is_no_record_is_broken_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Broken):
        decode_record(data)


@given(TEXT, st.sampled_from(Verb), TEXT, MOMENTS, JSON)
def test_a_snapshot_comes_out_as_it_went_in(
    operation: str, verb: Verb, merchant: str, accepted_at: datetime, body: object
) -> None:
    snapshot = OpenOperation(
        operation=operation, verb=verb, merchant=merchant, accepted_at=accepted_at, body=orjson.dumps(body)
    )

    assert decode_snapshot(operation, encode_snapshot(snapshot)) == snapshot


@given(st.binary(max_size=60) | JSON.map(orjson.dumps))
def test_what_is_no_snapshot_is_broken_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Broken):
        decode_snapshot("op", data)


ENTRY_IDS = st.tuples(st.integers(0, 9_000_000_000_000), st.integers(0, 999_999))


@given(st.lists(ENTRY_IDS, max_size=20, unique=True))
def test_accept_order_sorts_as_the_stream_does(ids: list[tuple[int, int]]) -> None:
    orders = [accept_order(f"{milliseconds}-{sequence}") for milliseconds, sequence in sorted(ids)]

    assert orders == sorted(set(orders))


def test_accept_order_fits_a_bigint_for_two_centuries() -> None:
    far = int(datetime(2262, 1, 1, tzinfo=UTC).timestamp() * 1000)

    assert accept_order(f"{far}-999999") < 2**63


def test_a_millisecond_with_more_entries_than_the_span_never_overtakes_the_next() -> None:
    assert accept_order("5-18446744073709551615") < accept_order("6-0")
