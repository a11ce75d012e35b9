"""Sealing cards and webhook secrets: AES-256-GCM, whose they are as associated data, so they open for no other (I9).

Envelope: version byte, 4 bytes of key id, 12 bytes of nonce, ciphertext with tag; base64. The key id lets retired keys
open what they sealed while new cards use the current one.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import Broken
from engine.payment import Card

_VERSION = b"\x01"
_NONCE_BYTES = 12
_HEAD_BYTES = 1 + 4


class Vault:
    """Seals with the first key, opens with any. Keys are 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise Broken("the vault needs at least one key of 32 bytes")
        self._ciphers = {hashlib.sha256(b"penstock key id" + key).digest()[:4]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers))

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
        return self._seal(secret, f"webhook secret {scheme} of {owner}")

    def open_secret(self, sealed: str, owner: str, scheme: str) -> bytes:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another owner or scheme."""
        try:
            return self._open(sealed, f"webhook secret {scheme} of {owner}")
        except ValueError:
            raise Broken(f"the webhook secret of {owner} cannot be opened") from None

    def seal_answer(self, body: bytes, answer: str) -> str:
        """An answer that may show a secret."""
        return self._seal(body, f"answer {answer}")

    def open_answer(self, sealed: str, answer: str) -> bytes:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another answer."""
        try:
            return self._open(sealed, f"answer {answer}")
        except ValueError:
            raise Broken(f"the stored answer {answer} cannot be opened") from None

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
