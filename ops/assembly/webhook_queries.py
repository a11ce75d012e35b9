"""What an edge answers merchants from when they ask about webhooks and events, put together over one pool."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg_pool import AsyncConnectionPool

from engine.ledger.transaction import Transactions
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter
from engine.webhooks.delivery_log import DeliveryLog
from engine.webhooks.endpoint import WebhookEndpoints
from engine.webhooks.event_feed import EventFeed
from engine.webhooks.idempotent_response import IdempotentResponses
from engine.webhooks.secret import WebhookSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDesk:
    """What an edge answers merchants from when they ask about webhooks."""

    endpoints: WebhookEndpoints
    log: DeliveryLog
    feed: EventFeed


def webhook_desk(
    pool: AsyncConnectionPool, installation: str, vault: Vault, fingerprinter: Fingerprinter
) -> WebhookDesk:
    """All of it over one pool. Endpoints and feed have a `run` of their own."""
    transactions = Transactions(pool)
    answers = IdempotentResponses(transactions, vault, fingerprinter)
    return WebhookDesk(
        endpoints=WebhookEndpoints(transactions, answers, WebhookSecrets(vault)),
        log=DeliveryLog(transactions, answers),
        feed=EventFeed(transactions, installation),
    )
