"""Doing a thing once under an idempotency key: act and answer commit together, a repetition gets the same bytes (I6).

For acts that are done in one transaction, unlike those of payments (acceptance.py). Answers may show a secret: they are
kept sealed, like the secret itself. Refusals are not kept: nothing happened, and the same key may try again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from engine.contracts.webhooks import KeyedRequest, KeyedResponse
from engine.domain.ids import answer_id
from engine.errors import FieldError, Rejected
from engine.ledger.transaction import Transaction, Transactions
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter, differing


class IdempotentResponses:
    """Carries acts out, or repeats what they came to."""

    def __init__(self, transactions: Transactions, vault: Vault, fingerprinter: Fingerprinter) -> None:
        self._transactions, self._vault, self._fingerprinter = transactions, vault, fingerprinter

    async def once(
        self, asked: KeyedRequest, act: Callable[[Transaction], Awaitable[bytes]], *, status: int = 200
    ) -> KeyedResponse:
        """The answer of `act`, which returns its body, or of the first use of the key. Raises what `act` raises, and
        Rejected(idempotency_key_reused)."""
        answer = answer_id(asked.merchant, asked.path, asked.key)
        fingerprint = self._fingerprinter.of(asked.payload)
        async with self._transactions.begin() as transaction:
            await transaction.rows("lock_answer", id=answer)
            known = await transaction.row("stored_answer", id=answer)
            if known is not None:
                return self._replayed(answer, known, fingerprint)
            body = await act(transaction)
            await transaction.do(
                "store_answer",
                id=answer,
                merchant=asked.merchant,
                fingerprint=orjson.dumps(fingerprint).decode(),
                status=status,
                sealed=self._vault.seal_answer(body, answer),
            )
        return KeyedResponse(status=status, body=body, replayed=False)

    def _replayed(self, answer: str, known: dict[str, Any], fingerprint: dict[str, str]) -> KeyedResponse:
        names = differing(fingerprint, known["fingerprint"])
        if names:
            raise Rejected(
                "idempotency_key_reused",
                "This Idempotency-Key was first used with another payload.",
                errors=tuple(FieldError(pointer=f"/{name}", detail="differs from the first use") for name in names),
            )
        body = self._vault.open_answer(known["sealed"], answer)
        return KeyedResponse(status=known["status"], body=body, replayed=True)
