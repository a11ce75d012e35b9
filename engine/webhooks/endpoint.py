"""Webhook endpoints as their merchants manage them. To tell, sign and give up is the dispatcher's.

One URL is registered once by a merchant. An endpoint of kind payment_url stands for the `webhook_url` of payments: it
is not listed and not changed, but can be looked at, disabled and enabled. A deleted one is not found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import UNSET, structs

from engine.batching import Batcher
from engine.contracts.url_policy import normal_form
from engine.contracts.webhooks import (
    ENDPOINTS_MAX,
    EndpointChange,
    EndpointStatus,
    KeyedRequest,
    KeyedResponse,
    NewEndpoint,
    SecretRotation,
)
from engine.domain.ids import endpoint_id, is_id
from engine.domain.rendering import render
from engine.errors import FieldError, Rejected
from engine.ledger.transaction import Transaction, Transactions
from engine.pagination import cursor, parts, strange
from engine.webhooks.idempotent_response import IdempotentResponses
from engine.webhooks.secret import WebhookSecrets

_BATCH_MAX = 200
_ID_BYTES = 16


class WebhookEndpoints:
    """Implements Subscribing (webhooks.py). Run `run` for life."""

    def __init__(self, transactions: Transactions, answers: IdempotentResponses, secrets: WebhookSecrets) -> None:
        self._transactions, self._answers, self._secrets = transactions, answers, secrets
        self._keys: Batcher[str, bytes | None] = Batcher(self._public_keys, _BATCH_MAX)

    async def run(self) -> None:
        await self._keys.run()

    async def create(self, asked: KeyedRequest, new: NewEndpoint) -> KeyedResponse:
        """A new endpoint, with its secret. Raises Rejected: this URL is registered, or there are enough endpoints."""

        async def create(transaction: Transaction) -> bytes:
            endpoint = endpoint_id(os.urandom(_ID_BYTES))
            await transaction.rows("lock_merchant", merchant=asked.merchant)
            await _refuse_twice(transaction, asked.merchant, endpoint, new.url)
            added = await transaction.row(
                "add_endpoint",
                id=endpoint,
                merchant=asked.merchant,
                url=new.url,
                description=new.description,
                events=_list(new.events),
                ordered=new.ordered,
                retry_schedule=_list(new.retry_schedule),
                most=ENDPOINTS_MAX,
            )
            if added is None:
                raise Rejected("webhook_endpoint_limit", f"A merchant has at most {ENDPOINTS_MAX} webhook endpoints.")
            first = SecretRotation(secret=new.secret, overlap_s=0)
            shown = await self._secrets.replace(transaction, asked.merchant, endpoint, first)
            if new.ed25519:
                await self._secrets.replace_pair(transaction, asked.merchant, endpoint, 0)
            return await _rendered(transaction, asked.merchant, endpoint, shown)

        return await self._answers.once(asked, create, status=201)

    async def endpoints(self, merchant: str, limit: int, cursor: str | None) -> bytes:
        """A page of registered ones, newest first."""
        at, endpoint = (None, None) if cursor is None else _position(cursor)
        async with self._transactions.begin() as transaction:
            as_of = await transaction.time()
            found = await transaction.rows(
                "endpoints_of_merchant", merchant=merchant, before_at=at, before_id=endpoint, limit=limit + 1
            )
        shown, has_more = found[:limit], len(found) > limit
        return render(
            {
                "object": "list",
                "data": [_document(row) for row in shown],
                "has_more": has_more,
                "next_cursor": _cursor(shown[-1]) if has_more else None,
                "as_of": as_of,
            }
        )

    async def endpoint(self, merchant: str, endpoint: str) -> bytes:
        async with self._transactions.begin() as transaction:
            return await _rendered(transaction, merchant, endpoint)

    async def change(self, merchant: str, endpoint: str, change: EndpointChange) -> bytes:
        """What was sent is changed, the rest stays. What is under way is sent as it was."""
        wanted = {name: value for name, value in structs.asdict(change).items() if value is not UNSET}
        async with self._transactions.begin() as transaction:
            await transaction.rows("lock_merchant", merchant=merchant)
            row = _registered(await locked(transaction, merchant, endpoint))
            if "url" in wanted:
                await _refuse_twice(transaction, merchant, endpoint, wanted["url"])
            await transaction.do(
                "change_endpoint",
                id=endpoint,
                **{name: _list(wanted.get(name, row[name])) for name in _CHANGEABLE},
            )
            if change.ed25519 is True:
                await self._begin_pair(transaction, merchant, endpoint)
            elif change.ed25519 is False:
                await self._secrets.drop_pair(transaction, merchant, endpoint)
            return await _rendered(transaction, merchant, endpoint)

    async def switch(self, asked: KeyedRequest, endpoint: str, *, on: bool) -> KeyedResponse:
        """Enable or disable. What waits for a disabled one is given up; enabling brings nothing back by itself."""

        async def switch(transaction: Transaction) -> bytes:
            row = await locked(transaction, asked.merchant, endpoint)
            wanted = EndpointStatus.ENABLED if on else EndpointStatus.DISABLED
            if row["status"] != wanted:
                await _set_status(transaction, endpoint, wanted)
            return await _rendered(transaction, asked.merchant, endpoint)

        return await self._answers.once(asked, switch)

    async def delete(self, merchant: str, endpoint: str) -> bytes:
        """Afterwards it is not found, and its URL may be registered anew."""
        async with self._transactions.begin() as transaction:
            _registered(await locked(transaction, merchant, endpoint))
            await _set_status(transaction, endpoint, EndpointStatus.DELETED)
        return render({"object": "webhook_endpoint", "id": endpoint, "status": EndpointStatus.DELETED})

    async def rotate(self, asked: KeyedRequest, endpoint: str, rotation: SecretRotation) -> KeyedResponse:
        """A new secret and, where there is one, a new key pair."""

        async def rotate(transaction: Transaction) -> bytes:
            _registered(await locked(transaction, asked.merchant, endpoint))
            shown = await self._secrets.replace(transaction, asked.merchant, endpoint, rotation)
            if await _has_pair(transaction, asked.merchant, endpoint):
                await self._secrets.replace_pair(transaction, asked.merchant, endpoint, rotation.overlap_s)
            return await _rendered(transaction, asked.merchant, endpoint, shown)

        return await self._answers.once(asked, rotate)

    async def rotate_default(self, asked: KeyedRequest, rotation: SecretRotation) -> KeyedResponse:
        """A new default secret, the first one included: it signs what goes to the `webhook_url` of payments."""

        async def rotate(transaction: Transaction) -> bytes:
            await transaction.rows("lock_merchant", merchant=asked.merchant)
            shown = await self._secrets.replace(transaction, asked.merchant, None, rotation)
            return await _rendered_default(transaction, asked.merchant, shown)

        return await self._answers.once(asked, rotate)

    async def default_secret(self, merchant: str) -> bytes:
        """Whether there is a default secret, and since when. Not the secret."""
        async with self._transactions.begin() as transaction:
            return await _rendered_default(transaction, merchant)

    async def public_keys(self, endpoint: str) -> bytes:
        """The keys that verify what is signed for this endpoint, for everybody."""
        found = await self._keys(endpoint)
        if found is None:
            raise Rejected("not_found", "There are no keys of a webhook endpoint with this id.")
        return found

    async def _begin_pair(self, transaction: Transaction, merchant: str, endpoint: str) -> None:
        if not await _has_pair(transaction, merchant, endpoint):
            await self._secrets.replace_pair(transaction, merchant, endpoint, 0)

    async def _public_keys(self, endpoints: Sequence[str]) -> list[bytes | None]:
        async with self._transactions.begin() as transaction:
            rows = await transaction.rows("public_keys", endpoints=list(set(endpoints)))
        keys: dict[str, list[dict[str, object]]] = {}
        for row in rows:
            key = {"scheme": "v1a", "public_key": row["public_key"], "role": row["role"]}
            keys.setdefault(row["endpoint"], []).append({**key, "expires_at": row["expires_at"]})
        return [render({"object": "list", "data": keys[each]}) if each in keys else None for each in endpoints]


_CHANGEABLE = ("url", "description", "events", "ordered", "retry_schedule")


async def locked(transaction: Transaction, merchant: str, endpoint: str) -> dict[str, Any]:
    """The endpoint, for a change. Raises Rejected(not_found)."""
    row = await transaction.row("lock_endpoint", merchant=merchant, id=endpoint)
    if row is None:
        raise not_found()
    return row


def not_found() -> Rejected:
    return Rejected("not_found", "There is no such webhook endpoint.")


def _registered(row: dict[str, Any]) -> dict[str, Any]:
    if row["kind"] != "registered":
        raise Rejected(
            "webhook_endpoint_derived", "This endpoint stands for the webhook_url of payments; change it there."
        )
    return row


async def _refuse_twice(transaction: Transaction, merchant: str, endpoint: str, url: str) -> None:
    """Two spellings of one URL are one URL; each is called and shown as it was registered."""
    form = normal_form(url)
    others = await transaction.rows("urls_of_merchant", merchant=merchant, id=endpoint)
    twin = next((other["id"] for other in others if normal_form(other["url"]) == form), None)
    if twin is not None:
        detail = f"is registered already, as {twin}: everything would arrive there twice"
        raise Rejected("validation_failed", f"/url {detail}.", errors=(FieldError(pointer="/url", detail=detail),))


async def _set_status(transaction: Transaction, endpoint: str, status: EndpointStatus) -> None:
    await transaction.do("switch_endpoint", id=endpoint, status=status.value)
    await transaction.do("announce_deliveries")


async def _has_pair(transaction: Transaction, merchant: str, endpoint: str) -> bool:
    row = await transaction.row("endpoint_of_merchant", merchant=merchant, id=endpoint)
    return row is not None and row["public_key"] is not None


async def _rendered(
    transaction: Transaction, merchant: str, endpoint: str, shown: Mapping[str, object] | None = None
) -> bytes:
    row = await transaction.row("endpoint_of_merchant", merchant=merchant, id=endpoint)
    if row is None:
        raise not_found()
    return render(_document(row) | dict(shown or {}))


async def _rendered_default(
    transaction: Transaction, merchant: str, shown: Mapping[str, object] | None = None
) -> bytes:
    row = await transaction.row("default_secret", merchant=merchant) or {}
    document = {
        "object": "webhook_secret",
        "created_at": row["created_at"],
        "previous_secret_expires_at": row["previous_ends_at"],
    }
    return render(document | dict(shown or {}))


def _document(row: Mapping[str, Any]) -> dict[str, object]:
    return {
        "object": "webhook_endpoint",
        "id": row["id"],
        "kind": row["kind"],
        "url": row["url"],
        "description": row["description"],
        "events": row["events"],
        "ordered": row["ordered"],
        "retry_schedule": row["retry_schedule"],
        "status": row["status"],
        "disabled_reason": row["disabled_reason"],
        "disabled_at": row["disabled_at"],
        "failing_since": row["failing_since"],
        "ed25519": row["public_key"] is not None,
        "public_key": row["public_key"],
        "previous_secret_expires_at": row["previous_ends_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _cursor(row: Mapping[str, Any]) -> str:
    return cursor(row["created_at"].isoformat(), row["id"])


def _position(text: str) -> tuple[datetime, str]:
    moment, endpoint = parts(text, 2)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        raise strange() from None
    if at.tzinfo is None or not is_id(endpoint, "whe"):
        raise strange()
    return at, endpoint
