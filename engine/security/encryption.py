"""Sealing cards and webhook secrets: AES-256-GCM, whose they are as associated data, so they open for no other (I9).

Envelope: version byte, 4 bytes of key id, 12 bytes of nonce, ciphertext with tag; base64. The key id lets retired keys
open what they sealed while new cards use the current one. It also tells an envelope that another process could open
from one that nobody can.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from enum import StrEnum

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.domain.payment import Card
from engine.errors import Broken

_VERSION = b"\x01"
_CHECK = b"penstock master key check"
_NONCE_BYTES = 12
_HEAD_BYTES = 1 + 4


class Access(StrEnum):
    """Who has the key of an envelope."""

    HELD = "held"  # we do
    ELSEWHERE = "elsewhere"  # this installation does, and we do not
    NOBODY = "nobody"  # it was never brought here, or is lost


class Vault:
    """Seals with the first key until told with which, opens with any. Keys are 32 bytes; ids are 8 hex digits."""

    def __init__(self, keys: Sequence[bytes], lost: Iterable[str] = ()) -> None:
        """`lost`: ids of keys that are gone for good."""
        if not keys or any(len(key) != 32 for key in keys):
            raise Broken("the vault needs at least one key of 32 bytes")
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers))
        # By id, in the order given: what tells whether another has the same key, and nothing of it.
        self.checks = {_id_of(key).hex(): hmac.digest(key, _CHECK, hashlib.sha256)[:16].hex() for key in keys}
        self.registered: frozenset[str] = frozenset(self.checks)  # ids of keys that belong to this installation
        self.lost = frozenset(lost)

    @property
    def sealing(self) -> str:
        """The id of the key that seals now."""
        return self._current.hex()

    def use(self, sealing: str, registered: Iterable[str]) -> None:
        """From now on seal with this key; these are the installation's. Raises KeyError for one that is not here."""
        self._ciphers[bytes.fromhex(sealing)]
        self._current, self.registered = bytes.fromhex(sealing), frozenset(registered)

    def access(self, sealed: str) -> Access:
        """Who could open this. An envelope that is none was sealed by nobody."""
        key = key_id(sealed)
        if key in self.checks:
            return Access.HELD
        return Access.ELSEWHERE if key in self.registered - self.lost else Access.NOBODY

    def seal(self, card: Card, operation: str) -> str:
        return self._seal(orjson.dumps([card.number, card.cvv, card.expiry_month, card.expiry_year]), operation)

    def open(self, sealed: str, operation: str) -> Card:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another operation."""
        try:
            number, cvv, month, year = orjson.loads(self._open(sealed, operation))
        except ValueError:
            raise Broken(f"the sealed card of {operation} cannot be opened") from None
        return Card(number=number, cvv=cvv, expiry_month=month, expiry_year=year)

    def seal_secret(self, secret: bytes, owner: str, scheme: str) -> str:
        """A webhook secret (v1) or an ed25519 seed (v1a). `owner`: an endpoint's id, or a merchant's for a default."""
        return self._seal(secret, secret_subject(owner, scheme))

    def open_secret(self, sealed: str, owner: str, scheme: str) -> bytes:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another owner or scheme."""
        try:
            return self._open(sealed, secret_subject(owner, scheme))
        except ValueError:
            raise Broken(f"the webhook secret of {owner} cannot be opened") from None

    def seal_answer(self, body: bytes, answer: str) -> str:
        """An answer that may show a secret."""
        return self._seal(body, answer_subject(answer))

    def open_answer(self, sealed: str, answer: str) -> bytes:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another answer."""
        try:
            return self._open(sealed, answer_subject(answer))
        except ValueError:
            raise Broken(f"the stored answer {answer} cannot be opened") from None

    def resealed(self, sealed: str, subject: str) -> str:
        """The same under the key that seals now. Raises ValueError when it is not ours to open."""
        return self._seal(self._open(sealed, subject), subject)

    def _seal(self, clear: bytes, subject: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        head = _VERSION + self._current
        sealed = self._ciphers[self._current].encrypt(nonce, clear, head + subject.encode())
        return base64.b64encode(head + nonce + sealed).decode()

    def _open(self, sealed: str, subject: str) -> bytes:
        """Raises ValueError."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            head = raw[:_HEAD_BYTES]
            cipher = self._ciphers[head[1:]]
            nonce, text = raw[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], raw[_HEAD_BYTES + _NONCE_BYTES :]
            return cipher.decrypt(nonce, text, head + subject.encode())
        except (KeyError, InvalidTag):
            raise ValueError("sealed by somebody else, or for another") from None


def secret_subject(owner: str, scheme: str) -> str:
    """Whose a sealed webhook secret is."""
    return f"webhook secret {scheme} of {owner}"


def answer_subject(answer: str) -> str:
    """Whose a sealed answer is."""
    return f"answer {answer}"


def key_id(sealed: str) -> str:
    """The id of the key that an envelope names; "" for what is no envelope."""
    try:
        head = base64.b64decode(sealed[:8], validate=True)
    except (ValueError, binascii.Error):
        return ""
    return head[1:_HEAD_BYTES].hex() if head[:1] == _VERSION and len(head) > _HEAD_BYTES else ""


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"penstock key id" + key).digest()[: _HEAD_BYTES - 1]


_BRANDS = (
    ("visa", ("4",)),
    ("mastercard", ("51", "52", "53", "54", "55")),
    ("amex", ("34", "37")),
    ("discover", ("6011", "65")),
)


def brand_of(number: str) -> str:
    """The card scheme by its leading digits (ISO/IEC 7812 ranges); "unknown" when none fits."""
    for brand, prefixes in _BRANDS:
        if number.startswith(prefixes):
            return brand
    return "mastercard" if "2221" <= number[:4] <= "2720" else "unknown"
