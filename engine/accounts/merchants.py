"""Merchants and API keys, theirs and the operators', as an operator administers them.

A secret is random, shown once and stored as SHA-256 with its last four characters; each act leaves one line in the
audit, in the same statement. The local stack's well-known keys are refused in production: everybody knows them.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import dict_row

from engine.errors import Broken
from engine.ledger.session import connect
from engine.ledger.statement import statement

LOCAL_KEYS = ("sk_local_merchant", "sk_local_other", "ok_local_operator")
OVERLAP_S = 24 * 3600  # a day: a deployment of every client of a merchant fits in it
OVERLAP_MAX_S = 90 * 24 * 3600
_SECRET_BYTES = 32
_HINT_CHARACTERS = 4
_CONNECT_TIMEOUT_S = 10
_MERCHANT_ID = re.compile(r"mer_[a-z0-9_]{1,60}")
_TEXT_MAX = 200


class KeyScope(StrEnum):
    MERCHANT = "merchant"
    OPERATOR = "operator"


_PREFIX = {KeyScope.MERCHANT: "sk_", KeyScope.OPERATOR: "ok_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key just made: only now its secret exists outside its owner's hands. An operator's may have no merchant."""

    id: str
    merchant: str | None
    scope: KeyScope
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """The new key, and when the one it replaces ends."""

    key: NewKey
    replaced: str
    replaced_ends_at: datetime


class Register:
    """The merchants of one database, on behalf of `actor`. All methods raise Broken with what to do about it."""

    def __init__(self, dsn: str, *, actor: str | None = None) -> None:
        self._dsn = dsn
        self._actor = actor or os_user()

    def create_merchant(self, name: str, reason: str, merchant: str | None = None) -> str:
        """The id of the new merchant; made up unless given."""
        merchant = merchant or f"mer_{secrets.token_hex(8)}"
        if not _MERCHANT_ID.fullmatch(merchant):
            raise Broken(f"{merchant!r} is no merchant id: use mer_ and up to 60 of a-z, 0-9 and _")
        _check_text("a name", name)
        if self._do("merchant_create", reason, id=merchant, name=name) is None:
            raise Broken(f"there is a merchant {merchant} already: choose another id")
        return merchant

    def disable_merchant(self, merchant: str, reason: str) -> None:
        """Its keys answer 403 from the next refresh of the edges on (15 s by default)."""
        self._switch(merchant, "disabled", reason)

    def enable_merchant(self, merchant: str, reason: str) -> None:
        """Its keys work again from the next refresh of the edges on."""
        self._switch(merchant, "active", reason)

    def merchants(self) -> list[dict[str, Any]]:
        """Each merchant with its working keys: id, name, status, created_at, keys [{id, scope, hint, ends_at}]."""
        with _connected(self._dsn) as connection:
            return connection.execute(statement("merchants")).fetchall()

    def keys(self, *, merchant: str | None, scope: KeyScope | None, ended: bool) -> list[dict[str, Any]]:
        """Keys of a merchant, or of everybody and of nobody: id, scope, merchant, merchant_disabled, hint, created_at,
        ends_at, ended, last_used_at. Those that have ended too, if asked for."""
        asked = {"merchant": merchant, "scope": scope, "all": ended}
        with _connected(self._dsn) as connection:
            found = connection.execute(statement("keys"), asked).fetchall()
            if merchant is not None and not found:
                self._check_merchant(connection, merchant)
            return found

    def create_key(self, merchant: str | None, scope: KeyScope, reason: str) -> NewKey:
        """Only an operator's key may belong to no merchant."""
        if merchant is None and scope is KeyScope.MERCHANT:
            raise Broken("a merchant's key needs its merchant: only an operator's may belong to none")
        key = _new_key(merchant, scope)
        if self._do("key_create", reason, merchant=merchant, **_stored(key)) is None:
            with _connected(self._dsn) as connection:
                self._check_merchant(connection, str(merchant))
            raise Broken(f"merchant {merchant} is disabled: `penstock merchant enable {merchant}` comes first")
        return key

    def revoke_key(self, key: str, reason: str) -> None:
        """It stops working within 30 s everywhere."""
        if self._do("key_revoke", reason, id=key) is None:
            raise _no_such_key(key)

    def rotate_key(self, key: str, overlap_s: int, reason: str) -> KeyRotation:
        """A new key with the same merchant and scope; the old one works for `overlap_s` more."""
        if not 0 <= overlap_s <= OVERLAP_MAX_S:
            raise Broken(f"the overlap must be 0 to {OVERLAP_MAX_S} s, not {overlap_s}")
        with _connected(self._dsn) as connection:
            row = connection.execute(statement("key_scope"), {"id": key}).fetchone()
        if row is None:
            raise _no_such_key(key)
        new = _new_key(None, KeyScope(row["scope"]))
        done = self._do("key_rotate", reason, old=key, overlap_s=overlap_s, **_stored(new))
        if done is None:
            raise _no_such_key(key)
        rotated = NewKey(id=new.id, merchant=done["merchant_id"], scope=new.scope, secret=new.secret)
        return KeyRotation(key=rotated, replaced=key, replaced_ends_at=done["expires_at"])

    def _switch(self, merchant: str, status: str, reason: str) -> None:
        if self._do("merchant_switch", reason, id=merchant, status=status) is None:
            raise _no_such_merchant(merchant)

    @staticmethod
    def _check_merchant(connection: psycopg.Connection[dict[str, Any]], merchant: str) -> None:
        """Raises Broken when there is no such merchant."""
        if connection.execute(statement("merchant_status"), {"id": merchant}).fetchone() is None:
            raise _no_such_merchant(merchant)

    def _do(self, act: str, reason: str, **values: object) -> Mapping[str, Any] | None:
        _check_text("a reason", reason)
        for value in values.values():
            if isinstance(value, str) and "\0" in value:
                raise Broken("a NUL character is part of no id")
        with _connected(self._dsn) as connection:
            return connection.execute(statement(act), {"actor": self._actor, "reason": reason, **values}).fetchone()


def refuse_local_keys(dsn: str) -> None:
    """Raises Broken when a key that everybody knows works in this database: call it before production starts."""
    digests = [_digest(key) for key in LOCAL_KEYS]
    with _connected(dsn) as connection:
        found = [row["id"] for row in connection.execute(statement("keys_working_of"), {"digests": digests})]
    if found:
        raise Broken(
            f"the local stack's keys work in this database ({', '.join(found)}), and everybody knows them: end each "
            "with `penstock key revoke ID --reason ...` before PENSTOCK_ENV=production"
        )


def os_user() -> str:
    """Who acts, for the audit. A container's user may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _connected(dsn: str) -> psycopg.Connection[dict[str, Any]]:
    """As a context it commits and closes."""
    return connect(dsn, connect_timeout=_CONNECT_TIMEOUT_S, row_factory=dict_row)


def _new_key(merchant: str | None, scope: KeyScope) -> NewKey:
    secret = _PREFIX[scope] + secrets.token_urlsafe(_SECRET_BYTES)
    return NewKey(id=f"key_{secrets.token_hex(8)}", merchant=merchant, scope=scope, secret=secret)


def _stored(key: NewKey) -> dict[str, object]:
    return {"id": key.id, "scope": key.scope, "digest": _digest(key.secret), "hint": key.secret[-_HINT_CHARACTERS:]}


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _check_text(what: str, text: str) -> None:
    if not text.strip() or len(text) > _TEXT_MAX or not text.isprintable():
        raise Broken(f"{what} must be 1 to {_TEXT_MAX} printable characters")


def _no_such_key(key: str) -> Broken:
    return Broken(f"there is no working key {key}: `penstock key list` shows them")


def _no_such_merchant(merchant: str) -> Broken:
    return Broken(f"there is no merchant {merchant}: `penstock merchant list` shows them")
