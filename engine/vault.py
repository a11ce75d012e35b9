"""Sealing cards: AES-256-GCM with the operation's id as associated data, so a sealed card opens for no other (I9).

Envelope: version byte, 4 bytes of key id, 12 bytes of nonce, ciphertext with tag; base64. The key id lets retired keys
open what they sealed while new cards use the current one.
"""

from __future__ import annotations

import base64
import binascii
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
        nonce = os.urandom(_NONCE_BYTES)
        clear = orjson.dumps([card.number, card.cvv, card.expiry_month, card.expiry_year])
        head = _VERSION + self._current
        sealed = self._ciphers[self._current].encrypt(nonce, clear, head + operation.encode())
        return base64.b64encode(head + nonce + sealed).decode()

    def open(self, sealed: str, operation: str) -> Card:
        """Raises Broken when the envelope is not ours, was altered, or belongs to another operation."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            head = raw[:_HEAD_BYTES]
            cipher = self._ciphers[head[1:]]
            nonce, text = raw[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], raw[_HEAD_BYTES + _NONCE_BYTES :]
            number, cvv, month, year = orjson.loads(cipher.decrypt(nonce, text, head + operation.encode()))
        except (KeyError, ValueError, binascii.Error, InvalidTag):
            raise Broken(f"the sealed card of {operation} cannot be opened") from None
        return Card(number=number, cvv=cvv, expiry_month=month, expiry_year=year)


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
