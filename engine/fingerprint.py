"""The fingerprint of a payload: one HMAC per field, so that a reused key can name the fields that differ (I6, I9).

HMACs, because a bare hash of a card number can be guessed; under a permanent key, because keys never forget. Fields
that were left out have no entry. CVV is not part of it: it may not be kept in any form.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

import orjson

_DIGEST_CHARACTERS = 24  # 96 bits: nobody finds a second payload, and the record stays small


class Fingerprinter:
    """Makes fingerprints under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, fields: Mapping[str, object]) -> dict[str, str]:
        """Field name to HMAC-SHA256 over name and canonical JSON value; None means left out."""
        key = self._key
        return {
            name: hmac.digest(key, orjson.dumps([name, value], option=orjson.OPT_SORT_KEYS), "sha256").hex()[
                :_DIGEST_CHARACTERS
            ]
            for name, value in fields.items()
            if value is not None
        }


def differing(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Names of the fields that are not the same in both, sorted."""
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
