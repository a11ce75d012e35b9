"""A receiver of webhooks as a careful shop has one: verifies, knows what it has seen, and sees what is out of order.

Written against Standard Webhooks 1.0.0 alone and not with our own signing code, so that it would notice our mistakes.
It can be told to misbehave: fail the first few, answer given codes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_S = 300  # older or younger ones may be replays of somebody who listened in
SEEN_MAX = 100_000  # ids and payments remembered; the oldest go first
OK, UNVERIFIED, FAILED = 200, 401, 500


class SequencePlace(StrEnum):
    """Where an event stands among those of its payment that were acknowledged before."""

    NEXT = "in order"
    FIRST = "first seen"  # of a payment that began before we listened
    AGAIN = "again"
    LATE = "late"
    GAP = "gap before"
    NONE = ""  # not acknowledged, so it does not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How it behaves: fail the first so many, then answer these codes one after the other (the last one for ever)."""

    fail: int = 0
    codes: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request, and what was made of it. `signature` is the scheme that held, or why none did; `waited_s` has passed
    since the attempt before."""

    id: str
    type: str
    subject: str
    sequence: int | None
    previous: int | None
    attempt: int
    waited_s: float | None
    signature: str
    verified: bool
    place: SequencePlace
    status: int
    event: Any


class Receiver:
    """Judges requests one after the other. Without secrets and keys nothing is verified, and that is said."""

    def __init__(self, secrets: Sequence[str], public_keys: Sequence[str], manners: Manners) -> None:
        self._secrets = [_raw(secret, "whsec_") for secret in secrets]
        self._keys = [Ed25519PublicKey.from_public_bytes(_raw(key, "whpk_")) for key in public_keys]
        self._fail, self._codes = manners.fail, list(manners.codes)
        self._attempts: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last one was
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._last: OrderedDict[str, int] = OrderedDict()

    def receive(self, headers: Mapping[str, str], body: bytes, now_s: float) -> Arrival:
        """What to answer, and all there is to say about it. Header names are in small letters."""
        id = headers.get("webhook-id", "")
        signature, verified = self._verify(headers, body, now_s)
        event = _parsed(body)
        about = event if isinstance(event, dict) else {}
        data = about.get("data") if isinstance(about.get("data"), dict) else {}
        subject, sequence, previous = (
            str((data or {}).get("id", "")),
            _whole(about.get("sequence")),
            _whole(about.get("previous_sequence")),
        )
        attempts, before_s = self._attempts.pop(id, (0, None))
        _remember(self._attempts, id, (attempts + 1, now_s))
        status = self._status() if verified else UNVERIFIED
        place = self._place(id, subject, sequence, previous) if 200 <= status < 300 else SequencePlace.NONE
        return Arrival(
            id=id,
            type=str(about.get("type", "")),
            subject=subject,
            sequence=sequence,
            previous=previous,
            attempt=attempts + 1,
            waited_s=None if before_s is None else now_s - before_s,
            signature=signature,
            verified=verified,
            place=place,
            status=status,
            event=event,
        )

    def _verify(self, headers: Mapping[str, str], body: bytes, now_s: float) -> tuple[str, bool]:
        id, timestamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        if not self._secrets and not self._keys:
            return "not checked", True
        if not (id and timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 15 and given):
            return "headers missing", False
        if abs(now_s - int(timestamp)) > TOLERANCE_S:
            return "too old or too young", False
        signed = f"{id}.{timestamp}.".encode() + body
        for word in given.split():
            scheme, _, text = word.partition(",")
            try:
                signature = base64.b64decode(text, validate=True)
            except binascii.Error:
                continue
            if scheme == "v1" and any(_same(secret, signed, signature) for secret in self._secrets):
                return "v1", True
            if scheme == "v1a" and any(_signed_by(key, signed, signature) for key in self._keys):
                return "v1a", True
        return "wrong", False

    def _status(self) -> int:
        if self._fail:
            self._fail -= 1
            return FAILED
        if len(self._codes) > 1:
            return self._codes.pop(0)
        return self._codes[0] if self._codes else OK

    def _place(self, id: str, subject: str, sequence: int | None, previous: int | None) -> SequencePlace:
        if id in self._seen:
            return SequencePlace.AGAIN
        _remember(self._seen, id, None)
        if sequence is None:
            return SequencePlace.NONE
        last, before = self._last.pop(subject, None), sequence - 1 if previous is None else previous
        _remember(self._last, subject, max(sequence, last or 0))
        if last is None:
            return SequencePlace.FIRST if before else SequencePlace.NEXT
        if sequence < last:
            return SequencePlace.LATE
        return SequencePlace.NEXT if before <= last else SequencePlace.GAP


def _raw(text: str, prefix: str) -> bytes:
    """The bytes of `whsec_...` or `whpk_...`. Raises ValueError."""
    if not text.startswith(prefix):
        raise ValueError(f"it does not begin with {prefix}")
    return base64.b64decode(text.removeprefix(prefix), validate=True)


def _same(secret: bytes, signed: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret, signed, hashlib.sha256), signature)


def _signed_by(key: Ed25519PublicKey, signed: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _remember(where: OrderedDict[str, Any], name: str, value: object) -> None:
    where[name] = value
    if len(where) > SEEN_MAX:
        where.popitem(last=False)
