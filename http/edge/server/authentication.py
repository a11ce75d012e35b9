"""The key ring: who is calling, by X-API-Key.

All working keys are held in memory (as SHA-256 digests, like in the table), so that the edge accepts while Postgres is
away and asks it nothing on the way of a payment. A revoked or expired key is gone within KEY_CACHE_S plus one read.
A key that is not held is looked up by its digest: one query at a time for everybody who waits, so a flood of wrong keys
costs Postgres one connection; what was not found stays unknown for a moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

import psycopg
import structlog
from psycopg.rows import kwargs_row
from psycopg_pool import AsyncConnectionPool

from edge.server.request import Request
from engine.errors import Rejected, Unavailable

AGAIN_S = 0.5  # twice a second while Postgres is away costs nothing
KEY_CACHE_S = 15.0  # half of the 30 s in which a revocation must work; shorter only means more reads
STORE_WITHIN_S = 2.0  # a merchant with an unknown key learns within this that Postgres is away
AWAY_S = 1.0  # after a failure nobody else waits for the same failure this long
UNKNOWN_S = 5.0  # how long a wrong key is answered from memory
UNKNOWN_MAX = 10_000  # wrong keys remembered; the oldest go first
WAITING_MAX = 1_000  # unknown keys in one query; beyond it callers are told to come back

_SECRET = re.compile(rb"(?:sk|ok)_[!-~]{1,200}\Z")
_USED = files("edge").joinpath("sql/keys_used.sql").read_bytes()
_ALL = files("edge").joinpath("sql/keys_all.sql").read_bytes()
_BY_DIGEST = files("edge").joinpath("sql/keys_by_digest.sql").read_bytes()

_log = structlog.get_logger("penstock.edge")


class Scope(StrEnum):
    MERCHANT = "merchant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What one working key allows. `merchant` is "" for an operator's key that belongs to none; `ends_at` is in seconds
    since the epoch."""

    key_id: str
    merchant: str
    scope: Scope
    digest: bytes
    disabled: bool
    ends_at: float | None


class Authenticator:
    """The keys of all merchants over a pool; `run` keeps them fresh, `clock` gives seconds since the epoch."""

    def __init__(self, pool: AsyncConnectionPool, *, clock: Callable[[], float] = time.time) -> None:
        self._pool, self._clock = pool, clock
        self._held: dict[bytes, ApiKey] = {}
        self._unknown: dict[bytes, float] = {}  # digest to the moment until which it is answered from memory
        self._wanted: set[bytes] = set()
        self._used: set[str] = set()  # ids of keys, since the last round
        self._asking = asyncio.Lock()
        self._away_until = 0.0
        self.read_once = False  # until then no key is known

    async def run(self, cache_s: float = KEY_CACHE_S) -> None:
        """Read all keys again and again, for ever. Postgres being away changes nothing that is held.

        After a failure soon again: each of a pool's connections may have been cut off, and a revoked key must not live
        on for as many rounds.
        """
        fresh = True
        while True:
            await asyncio.sleep(cache_s if fresh else min(cache_s, AGAIN_S))
            try:
                fresh = await self.run_once()
            except Exception as error:  # the boundary of this loop: keys that are held stay, and it looks again
                _log.exception("loop_failed", loop="keys", error=type(error).__name__)
                fresh = False

    async def run_once(self) -> bool:
        """Read all keys; False when Postgres did not answer."""
        try:
            rows = await self._read(_ALL, {})
        except (psycopg.Error, TimeoutError) as error:
            _log.warning("keys_not_refreshed", error=type(error).__name__, held=len(self._held))
            return False
        self._held = {row.digest: row for row in rows}
        self.read_once = True
        await self._tell_used()
        return True

    async def guard(self, call: Request) -> None:
        """Let the call pass with its merchant, or raise: 401, 403, or Unavailable when only Postgres could tell."""
        grant = await self._granted(call)
        if grant.scope is not Scope.MERCHANT:
            raise Rejected("scope_missing", "This call needs a merchant's key (sk_...); this one is an operator's.")
        call.merchant = grant.merchant

    async def guard_operator(self, call: Request) -> None:
        """The same for calls that only operators of the gateway may make."""
        grant = await self._granted(call)
        if grant.scope is not Scope.OPERATOR:
            raise Rejected("scope_missing", "This call needs an operator's key (ok_...); this one is a merchant's.")
        call.merchant, call.actor = grant.merchant, grant.key_id

    async def _granted(self, call: Request) -> ApiKey:
        secret = call.headers.get(b"x-api-key", b"")
        if not secret:
            raise Rejected("api_key_missing", "X-API-Key is missing. Send your secret key in this header.")
        grant = await self.identify(secret)
        if grant.disabled:
            raise Rejected("merchant_disabled", "This merchant is disabled. Ask the operator of this gateway.")
        return grant

    async def identify(self, secret: bytes) -> ApiKey:
        """The grant of this key. Raises Rejected(api_key_invalid) and Unavailable."""
        digest = hashlib.sha256(secret).digest()
        grant = self._held.get(digest)
        if grant is None and _SECRET.match(secret) is not None:
            grant = await self._look_up(digest)
        if grant is None or not hmac.compare_digest(grant.digest, digest):
            raise Rejected(
                "api_key_invalid", "X-API-Key is not a key of this gateway, or it was revoked or has expired."
            )
        if grant.ends_at is not None and grant.ends_at <= self._clock():
            raise Rejected("api_key_invalid", "X-API-Key was revoked or has expired. Use a current key.")
        self._used.add(grant.key_id)
        return grant

    async def _look_up(self, digest: bytes) -> ApiKey | None:
        if self._unknown.get(digest, 0.0) > self._clock():
            return None
        self._unknown.pop(digest, None)
        if len(self._wanted) >= WAITING_MAX:
            raise Unavailable(
                "overloaded", "Too many unknown keys are being looked up. Nothing was accepted; try again."
            )
        self._wanted.add(digest)
        async with self._asking:
            if digest in self._wanted:  # nobody asked for this one while we waited for our turn
                wanted, self._wanted = self._wanted, set()
                await self._ask(wanted)
        if digest not in self._held and digest not in self._unknown:
            raise Unavailable(
                "store_unavailable", "This key cannot be checked right now. Nothing was accepted; try again."
            )
        return self._held.get(digest)

    async def _ask(self, digests: Iterable[bytes]) -> None:
        """Learn what Postgres knows of these keys; on failure nothing is learnt."""
        if self._clock() < self._away_until:
            return
        try:
            rows = await self._read(_BY_DIGEST, {"digests": list(digests)})
        except (psycopg.Error, TimeoutError) as error:
            _log.warning("key_not_checked", error=type(error).__name__)
            self._away_until = self._clock() + AWAY_S
            return
        self._held.update((row.digest, row) for row in rows)
        until = self._clock() + UNKNOWN_S
        for digest in digests:
            self._unknown.pop(digest, None)  # so that it goes to the end of the line
            if digest not in self._held:
                self._unknown[digest] = until
        while len(self._unknown) > UNKNOWN_MAX:
            del self._unknown[next(iter(self._unknown))]

    async def _tell_used(self) -> None:
        """Keep in the ledger which keys were used. It is for people only: where it cannot be, the next round tells."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            async with asyncio.timeout(STORE_WITHIN_S), self._pool.connection() as connection:
                await connection.execute(_USED, {"ids": sorted(used)})
        except (psycopg.Error, TimeoutError) as error:
            self._used |= used
            _log.warning("key_use_not_kept", error=type(error).__name__, keys=len(used))

    async def _read(self, statement: bytes, parameters: dict[str, object]) -> list[ApiKey]:
        async with asyncio.timeout(STORE_WITHIN_S):
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=kwargs_row(_grant)) as cursor,
            ):
                await cursor.execute(statement, parameters)
                return await cursor.fetchall()


def _grant(
    *, id: str, merchant_id: str | None, scope: str, digest: bytes, disabled: bool, ends_at: float | None
) -> ApiKey:
    merchant = merchant_id or ""
    return ApiKey(key_id=id, merchant=merchant, scope=Scope(scope), digest=digest, disabled=disabled, ends_at=ends_at)
