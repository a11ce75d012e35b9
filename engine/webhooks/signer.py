"""The signer: an endpoint's secrets out of the vault, and the headers that a delivery carries by them.

Whoever has no secret yet gets one: a merchant's default is made at its first use, so that nothing ever goes unsigned.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from msgspec import Struct
from psycopg_pool import AsyncConnectionPool

from engine.contracts.signature import SECRET_BYTES, signatures
from engine.errors import Broken
from engine.ledger.database import borrowed
from engine.ledger.statement import statement
from engine.security.encryption import Vault
from engine.webhooks.delivery import ClaimedDelivery

log = structlog.get_logger()

_OPENED_MAX = 10_000  # opened secrets kept: some megabytes


class SigningKeys(Struct, frozen=True, kw_only=True):
    """HMAC secrets and ed25519 seeds of one endpoint, the current ones first."""

    secrets: tuple[bytes, ...]
    seeds: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "SigningKeys(…)"


class Signer:
    """Reads secrets anew for each batch of claims, so a rotation holds at once; opens each of them once."""

    def __init__(self, pool: AsyncConnectionPool, vault: Vault) -> None:
        self._pool, self._vault = pool, vault
        self._opened: dict[str, bytes] = {}

    async def keys(self, endpoints: Sequence[str]) -> dict[str, SigningKeys]:
        """Of each endpoint that can be signed for; one whose secret no key of ours opens is left out, and said."""
        rows = await self._rows(endpoints)
        if bare := {row[0]: row for row in rows if row[3] is None}:
            for endpoint, merchant, by_payment, _, _ in bare.values():
                await self._add(merchant, None if by_payment else endpoint)
            rows = await self._rows(endpoints)
        found: dict[str, tuple[list[bytes], list[bytes]]] = {}
        closed: set[str] = set()
        for endpoint, merchant, by_payment, scheme, sealed in rows:
            secrets, seeds = found.setdefault(endpoint, ([], []))
            try:
                opened = self._open(sealed, merchant if by_payment else endpoint, scheme)
            except Broken as error:
                log.error("webhook_secret_closed", endpoint=endpoint, error=str(error))
                closed.add(endpoint)
                continue
            (secrets if scheme == "v1" else seeds).append(opened)
        return {
            endpoint: SigningKeys(secrets=tuple(secrets), seeds=tuple(seeds))
            for endpoint, (secrets, seeds) in found.items()
            if endpoint not in closed
        }

    async def _rows(self, endpoints: Sequence[str]) -> list[tuple[str, str, bool, str, str]]:
        async with borrowed(self._pool) as connection:
            cursor = await connection.execute(statement("signing_secrets"), {"endpoints": list(endpoints)})
            return await cursor.fetchall()

    async def _add(self, merchant: str, endpoint: str | None) -> None:
        sealed = self._vault.seal_secret(os.urandom(SECRET_BYTES), endpoint or merchant, "v1")
        async with borrowed(self._pool) as connection:
            arguments = {"merchant": merchant, "endpoint": endpoint, "sealed": sealed}
            await connection.execute(statement("add_secret"), arguments)

    def _open(self, sealed: str, owner: str, scheme: str) -> bytes:
        opened = self._opened.get(sealed)
        if opened is None:
            if len(self._opened) >= _OPENED_MAX:
                self._opened.clear()
            opened = self._opened[sealed] = self._vault.open_secret(sealed, owner, scheme)
        return opened


def headers_of(claimed: ClaimedDelivery, keys: SigningKeys, now: datetime) -> Mapping[str, str]:
    """The headers of one attempt; the timestamp is the attempt's, the id the event's."""
    timestamp_s = int(now.timestamp())
    headers = {
        "webhook-id": claimed.event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signatures(claimed.event_id, timestamp_s, claimed.body, keys.secrets, keys.seeds),
    }
    if claimed.traceparent is not None:
        headers["traceparent"] = claimed.traceparent
    return headers
