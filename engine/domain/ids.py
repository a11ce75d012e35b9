"""Ids that a retry lands on again: derived by hash from who asks for what under which key.

So the same key reaches the same payment, partition and actor, even with Redis empty (I6, I11). The installation id
keeps two installations apart at one bank. Encoding: 128 bits as 26 characters of Crockford base32 after a prefix.
"""

from __future__ import annotations

import hashlib
import re

from engine.domain.payment import Verb

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TO_BASE_32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits that int(text, 32) reads
_SHAPE = re.compile(r"(pay|op|evt|whe)_([0-7][0-9A-HJKMNP-TV-Z]{25})\Z")
_DELIVERY = re.compile(r"dlv_((?:pay|whe)_[0-7][0-9A-HJKMNP-TV-Z]{25})_([1-9][0-9]{0,8})\Z")


def _digest(*parts: str) -> int:
    """First 128 bits of SHA-256 over the length-prefixed parts, as an integer."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hashed.update(len(data).to_bytes(4, "big") + data)
    return int.from_bytes(hashed.digest()[:16], "big")


def _encode(number: int) -> str:
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def payment_id(installation: str, merchant: str, key: str) -> str:
    """`pay_...` of the payment that this merchant creates under this idempotency key."""
    return "pay_" + _encode(_digest(installation, merchant, "payment", key))


def operation_id(payment: str, verb: Verb, key: str) -> str:
    """`op_...` of this verb under this key on this payment."""
    return "op_" + _encode(_digest(payment, verb.value, key))


def release_key(installation: str, hold: str) -> str:
    """`rel_...`: the bank key under which a hold that no receipt names is given back, however often that is tried."""
    return "rel_" + _encode(_digest(installation, "release", hold))


def event_id(payment: str, sequence: int) -> str:
    """`evt_...` of one journal row."""
    return "evt_" + _encode(_digest(payment, "event", str(sequence)))


def endpoint_id(chance: bytes) -> str:
    """`whe_...` of a webhook endpoint, out of 16 random bytes."""
    return "whe_" + _encode(int.from_bytes(chance[:16], "big"))


def answer_id(merchant: str, path: str, key: str) -> str:
    """`ans_...` of the answer that this merchant gets at this path under this idempotency key."""
    return "ans_" + _encode(_digest(merchant, path, key))


def delivery_id(payment: str, sequence: int) -> str:
    """`dlv_...` of this event's delivery, at whichever endpoint: made of the event, so nothing need be stored."""
    return f"dlv_{payment}_{sequence}"


def event_of_delivery(text: str) -> tuple[str, int] | None:
    """Payment and sequence of the event that `dlv_...` delivers; None for what is no such id."""
    match = _DELIVERY.match(text)
    return None if match is None else (match[1], int(match[2]))


def is_id(text: str, prefix: str) -> bool:
    """Whether this is a well-formed id with this prefix ("pay", "op", "evt", "whe")."""
    match = _SHAPE.match(text)
    return match is not None and match[1] == prefix


def partition_of(payment: str, partitions: int) -> int:
    """The payment's partition: the first 8 bytes of its id as an integer, mod P (never Python's hash())."""
    return (int(payment[4:30].translate(_TO_BASE_32), 32) >> 64) % partitions
