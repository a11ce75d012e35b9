"""Bytes from Redis become records here, and records become bytes: orjson, versioned.

There are three shapes: the command in a stream entry, the idempotency record, and the public payment in the hash of its
open operations. Card data travels only in `sealed` (I9). Unreadable bytes raise Broken: the reader dead-letters them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
import orjson
from msgspec import Struct

from engine.domain.command import Command, IdempotencyRecord, OpenOperation, terms_to_json
from engine.domain.ids import is_id
from engine.domain.money import AMOUNT_MAX, Money
from engine.domain.payment import Details, MaskedCard, Terms, Verb, details_of
from engine.errors import Broken

VERSION = b"1"
# Twice what the largest honest request (64 KiB) can become, and far more fields than the five of an entry.
ENTRY_BYTES_MAX = 128 * 1024
ENTRY_FIELDS_MAX = 64


def encode_command(command: Command) -> list[bytes | str]:
    """Fields and values of the stream entry, flat, readable with redis-cli. Card data only sealed."""
    terms = command.terms
    body: dict[str, object] = {
        "merchant": command.merchant,
        "key": command.key,
        "amount": command.amount,
        "sealed": command.sealed,
        "sale": command.sale,
        "fingerprint": command.fingerprint,
        "request_id": command.request_id,
        "traceparent": command.traceparent,
        "reply_to": command.reply_to,
        "accepted_at": command.accepted_at,
        "terms": None if terms is None else terms_to_json(terms),
    }
    return [
        "v",
        VERSION,
        "operation",
        command.operation,
        "payment",
        command.payment,
        "verb",
        command.verb.value,
        "body",
        orjson.dumps(body),
    ]


def beginning(merchant: str, key: str | None = None) -> bytes:
    """How the body of each entry of this merchant begins; with a key, of those under it."""
    head: dict[str, object] = {"merchant": merchant} if key is None else {"merchant": merchant, "key": key}
    return orjson.dumps(head)[:-1] + b","


def member(name: str, value: str) -> bytes:
    """How a member of an entry's body is written, wherever in it."""
    return orjson.dumps({name: value})[1:-1]


_Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX)]


class _Terms(Details, frozen=True, kw_only=True):
    amount: _Amount
    currency: str
    method: MaskedCard
    connector: str


class _Body(Struct, frozen=True):
    """The body of an entry as it must be, type by type: what is let in here is worked on."""

    merchant: str
    key: str
    amount: _Amount | None
    sealed: str | None
    sale: bool
    fingerprint: dict[str, str]
    request_id: str
    traceparent: str | None
    reply_to: str | None
    accepted_at: datetime
    terms: _Terms | None


_read_body = msgspec.json.Decoder(_Body).decode
_VERBS = {verb.value.encode(): verb for verb in Verb}


def decode_command(fields: Mapping[bytes, bytes]) -> Command:
    """The command in an entry's fields. Raises Broken for anything that is not exactly one."""
    size = sum(map(len, fields)) + sum(map(len, fields.values()))
    if size > ENTRY_BYTES_MAX or len(fields) > ENTRY_FIELDS_MAX:
        raise Broken(f"an entry of {size} bytes in {len(fields)} fields, of which none is ours")
    try:
        if fields[b"v"] != VERSION:
            raise Broken(f"entry of version {fields[b'v'][:8]!r}, this worker reads {VERSION!r}")
        payment, operation = fields[b"payment"].decode(), fields[b"operation"].decode()
        if not is_id(payment, "pay") or not is_id(operation, "op"):
            raise Broken("an entry without proper ids")
        verb = _VERBS.get(fields[b"verb"])
        if verb is None:  # not quoted: whatever stands there may be a card
            raise Broken("an entry with an unknown verb")
        body = _read_body(fields[b"body"])
    except (KeyError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Broken(f"unreadable entry: {type(error).__name__} at {str(error)[:80]!r}") from error
    if (verb is Verb.AUTHORIZE) is (body.terms is None or body.sealed is None):
        raise Broken(f"an entry whose {verb} does not fit its body")
    if body.accepted_at.tzinfo is None:
        raise Broken("an entry whose time has no zone")
    return Command(
        operation=operation,
        payment=payment,
        verb=verb,
        merchant=body.merchant,
        key=body.key,
        amount=body.amount,
        terms=None if body.terms is None else _terms_of(body.merchant, body.terms),
        sealed=body.sealed,
        sale=body.sale,
        fingerprint=body.fingerprint,
        request_id=body.request_id,
        traceparent=body.traceparent,
        reply_to=body.reply_to,
        accepted_at=body.accepted_at,
    )


def named_in(fields: Mapping[bytes, bytes]) -> tuple[str, str] | None:
    """Payment and operation that an entry names, whatever else is wrong with it."""
    payment = fields.get(b"payment", b"").decode(errors="replace")
    operation = fields.get(b"operation", b"").decode(errors="replace")
    return (payment, operation) if is_id(payment, "pay") and is_id(operation, "op") else None


def _terms_of(merchant: str, terms: _Terms) -> Terms:
    return Terms(
        merchant=merchant,
        money=Money(amount=terms.amount, currency=terms.currency),
        method=terms.method,
        connector=terms.connector,
        **details_of(terms),
    )


def encode_record(record: IdempotencyRecord) -> bytes:
    """Without its entry: only the script that adds one knows its id."""
    return orjson.dumps(
        {
            "v": 1,
            "fingerprint": record.fingerprint,
            "status": record.status,
            "body": None if record.body is None else record.body.decode(),
        }
    )


def decode_record(data: bytes) -> IdempotencyRecord:
    """Raises Broken when the bytes are no record of ours."""
    try:
        row = orjson.loads(data)
        body = row["body"]
        return IdempotencyRecord(
            fingerprint=row["fingerprint"],
            status=row["status"],
            body=None if body is None else body.encode(),
            entry=row.get("entry"),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Broken("unreadable idempotency record") from error


def encode_snapshot(snapshot: OpenOperation) -> bytes:
    head = {"verb": snapshot.verb, "merchant": snapshot.merchant, "accepted_at": snapshot.accepted_at}
    return orjson.dumps(head) + b"\n" + snapshot.body


def decode_snapshot(operation: str, data: bytes) -> OpenOperation:
    """Raises Broken when the bytes are no snapshot of ours."""
    try:
        head_bytes, _, body = data.partition(b"\n")
        head = orjson.loads(head_bytes)
        return OpenOperation(
            operation=operation,
            verb=Verb(head["verb"]),
            merchant=head["merchant"],
            accepted_at=datetime.fromisoformat(head["accepted_at"]),
            body=body,
            dead_letter=head.get("dead_letter"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise Broken("unreadable open entry") from error
