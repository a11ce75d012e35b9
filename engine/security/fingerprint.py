"""The fingerprint of a payload: one keyed hash per field, so that a reused key can name the fields that differ (I6).

Keyed (BLAKE2b's own keying, RFC 7693), because a bare hash of a card number can be guessed (I9); under a permanent key,
because keys never forget. Fields that were left out have no entry. The CVV is not part of it: it may not be kept in any
form.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import orjson

_SORTED = orjson.OPT_SORT_KEYS
_DIGEST_BYTES = 12  # 96 bits: nobody finds a second payload, and the record stays small


class Fingerprinter:
    """Makes fingerprints under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, fields: Mapping[str, object]) -> dict[str, str]:
        """Field name to keyed BLAKE2b over name and canonical JSON value; None means left out."""
        key = self._key
        return {
            name: blake2b(orjson.dumps([name, value], option=_SORTED), key=key, digest_size=_DIGEST_BYTES).hexdigest()
            for name, value in fields.items()
            if value is not None
        }


def differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names of the fields that are not the same in both, sorted."""
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
