"""Secrets of webhooks: made, sealed, rotated. Their clear text leaves only in the answer to who asked for a new one.

At most two of a scheme sign at any time: the current one and, until the overlap of a rotation is over, the one before.
What was before that signs no more from the moment of the rotation.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from engine.contracts.signature import SECRET_BYTES, SEED_BYTES, public_text, secret_text
from engine.contracts.webhooks import SecretRotation
from engine.ledger.transaction import Transaction
from engine.security.encryption import Vault

HMAC, ED25519 = "v1", "v1a"  # the schemes, as signatures name them


class WebhookSecrets:
    """Those of endpoints and, for endpoint None, the default of a merchant. `chance` gives that many random bytes."""

    def __init__(self, vault: Vault, chance: Callable[[int], bytes] = os.urandom) -> None:
        self._vault, self._chance = vault, chance

    async def replace(
        self, transaction: Transaction, merchant: str, endpoint: str | None, rotation: SecretRotation
    ) -> dict[str, object]:
        """A new secret in place of the current one, if there is one. What the merchant is shown of it, once."""
        secret = rotation.secret or self._chance(SECRET_BYTES)
        await self._retire(transaction, merchant, endpoint, HMAC, rotation.overlap_s)
        await transaction.do(
            "keep_secret",
            merchant=merchant,
            endpoint=endpoint,
            scheme=HMAC,
            sealed=self._vault.seal_secret(secret, endpoint or merchant, HMAC),
            public_key=None,
        )
        return {"secret": secret_text(secret)}

    async def replace_pair(self, transaction: Transaction, merchant: str, endpoint: str, overlap_s: int) -> None:
        """A new key pair in place of the current one, if there is one. Its public half is there for everybody."""
        seed = self._chance(SEED_BYTES)
        await self._retire(transaction, merchant, endpoint, ED25519, overlap_s)
        await transaction.do(
            "keep_secret",
            merchant=merchant,
            endpoint=endpoint,
            scheme=ED25519,
            sealed=self._vault.seal_secret(seed, endpoint, ED25519),
            public_key=public_text(seed),
        )

    async def drop_pair(self, transaction: Transaction, merchant: str, endpoint: str) -> None:
        """No v1a signatures any more."""
        await transaction.do("drop_secrets", merchant=merchant, endpoint=endpoint, scheme=ED25519)

    async def _retire(
        self, transaction: Transaction, merchant: str, endpoint: str | None, scheme: str, overlap_s: int
    ) -> None:
        where = {"merchant": merchant, "endpoint": endpoint, "scheme": scheme}
        if overlap_s == 0:
            await transaction.do("drop_secrets", **where)
        else:
            await transaction.do("drop_previous_secret", **where)
            await transaction.do("retire_secret", **where, overlap_s=overlap_s)
