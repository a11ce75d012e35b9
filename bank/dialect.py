"""What FicMart's bodies look like: an Ask as JSON, a 2xx as an Approved, an error as the bank's word.

Pure. An approval counts only if it says what was asked: the bank compares no bodies, so a key used twice would be
answered with another payment's success. Nothing of a body but ids, times and codes of a known shape leaves this module
(I9).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from bank.classification import NO_WORD, TEXT
from engine.contracts.connector import BankRequest
from engine.domain.bank_answer import Approved, Found
from engine.domain.payment import Verb
from engine.errors import Broken

CURRENCY = "USD"  # The bank has no currency field: what it is asked for is dollars.
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class BankEndpoint(NamedTuple):
    """One verb at the bank: where it is asked, and which fields and words a success answers with."""

    path: str
    id: str
    shape: re.Pattern[str]  # of the id
    at: str
    status: str
    of: str | None  # the field that names what is captured, voided or refunded


def _id(prefix: str) -> re.Pattern[str]:
    return re.compile(prefix + r"_[0-9A-Za-z-]{1,64}\Z")


V = Verb
AUTHORIZATION, CAPTURE = "authorization_id", "capture_id"

# fmt: off
ENDPOINTS: Mapping[Verb, BankEndpoint] = {
    #                     path              id             shape        at             status      of
    V.AUTHORIZE: BankEndpoint("authorizations", AUTHORIZATION, _id("auth"), "created_at",  "approved", None),
    V.CAPTURE:   BankEndpoint("captures",       CAPTURE,       _id("cap"),  "captured_at", "captured", AUTHORIZATION),
    V.VOID:      BankEndpoint("voids",          "void_id",     _id("void"), "voided_at",   "voided",   AUTHORIZATION),
    V.REFUND:    BankEndpoint("refunds",        "refund_id",   _id("ref"),  "refunded_at", "refunded", CAPTURE),
}
# fmt: on


NOT_SHOWN = frozenset({V.VOID})  # the bank has no look-up of these


class Unreadable(ValueError):
    """A 2xx that is not the success of this endpoint's shape."""


class Mismatch(ValueError):
    """A readable success, but of something else than was asked. The text names the fields, never their values."""


def request(ask: BankRequest) -> bytes:
    """The JSON body of this attempt. Raises Broken for what the edge should never have let through."""
    if ask.money.currency != CURRENCY:
        raise Broken(f"this bank takes {CURRENCY} only, and was to be asked for {ask.money.currency}")
    endpoint = ENDPOINTS[ask.verb]
    fields: dict[str, object] = {"amount": ask.money.amount} if ask.verb is not V.VOID else {}
    if endpoint.of is not None:
        if ask.reference is None:
            raise Broken(f"a {ask.verb} needs the bank's reference")
        fields[endpoint.of] = ask.reference
        return orjson.dumps(fields)
    if ask.card is None:
        raise Broken("an authorization at this bank needs a card")
    fields["card_number"] = ask.card.number
    fields["cvv"] = ask.card.cvv
    fields["expiry_month"] = ask.card.expiry_month
    fields["expiry_year"] = ask.card.expiry_year
    return orjson.dumps(fields)


def approval(ask: BankRequest, body: bytes, evidence: Mapping[str, object]) -> Approved:
    """The success this 2xx body tells of. Raises Unreadable or Mismatch."""
    endpoint = ENDPOINTS[ask.verb]
    said = _object(body)
    reference = said.get(endpoint.id)
    if not isinstance(reference, str) or not endpoint.shape.match(reference):
        raise Unreadable(f"no usable {endpoint.id}")
    at = _time(said, endpoint.at)
    expires_at = _time(said, "expires_at") if endpoint.of is None else None
    if said.get("status") != endpoint.status:
        raise Mismatch("status")
    if endpoint.of is not None and said.get(endpoint.of) != ask.reference:
        raise Mismatch(endpoint.of)
    if ask.verb is not V.VOID:
        amount = said.get("amount")
        if amount != ask.money.amount or type(amount) is not int:  # In Python, 1.0 and True equal 1.
            raise Mismatch("amount")
        if said.get("currency") != ask.money.currency:
            raise Mismatch("currency")
    return Approved(reference=reference, at=at, expires_at=expires_at, evidence=evidence)


def found(verb: Verb, body: bytes) -> Found:
    """What the bank shows of an id. Raises Unreadable."""
    endpoint = ENDPOINTS[verb]
    said = _object(body)
    reference, amount, currency = said.get(endpoint.id), said.get("amount"), said.get("currency")
    parent = None if endpoint.of is None else said.get(endpoint.of)
    if not isinstance(reference, str) or not endpoint.shape.match(reference):
        raise Unreadable(f"no usable {endpoint.id}")
    if type(amount) is not int or not isinstance(currency, str) or not (parent is None or isinstance(parent, str)):
        raise Unreadable("no usable amount, currency or reference")
    return Found(
        reference=reference,
        amount=amount,
        currency=currency,
        parent=parent,
        at=_time(said, endpoint.at),
        expires_at=_time(said, "expires_at") if endpoint.of is None else None,
    )


def word(content_type: str, body: bytes) -> str:
    """The bank's error code; TEXT for its plain text, NO_WORD for anything else."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == TEXT:
        return TEXT
    if media_type != "application/json":
        return NO_WORD
    try:
        code = _object(body).get("error")
    except Unreadable:
        return NO_WORD
    return code if isinstance(code, str) and _CODE.match(code) else NO_WORD


def _object(body: bytes) -> dict[str, object]:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise Unreadable("not JSON") from fault
    if not isinstance(said, dict):
        raise Unreadable("not a JSON object")
    return said


def _time(said: Mapping[str, object], field: str) -> datetime:
    """RFC 3339 with any number of decimals and any offset, as UTC cut to microseconds."""
    text = said.get(field)
    try:
        at = datetime.fromisoformat(text.upper() if isinstance(text, str) else "")
        if at.tzinfo is None:
            raise ValueError("no offset")
        return at if at.tzinfo is UTC else at.astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise Unreadable(f"no usable {field}") from fault
