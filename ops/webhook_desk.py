"""What an edge answers merchants from when they ask about webhooks and events, put together over one pool."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg_pool import AsyncConnectionPool

from engine.delivery_log import DeliveryLog
from engine.feed import Feed
from engine.ledger.transaction import Transactions
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter
from engine.stored_answer import StoredAnswers
from engine.webhook_endpoint import WebhookEndpoints
from engine.webhook_secret import WebhookSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDesk:
    """What an edge answers merchants from when they ask about webhooks."""

    endpoints: WebhookEndpoints
    log: DeliveryLog
    feed: Feed


def webhook_desk(
    pool: AsyncConnectionPool, installation: str, vault: Vault, fingerprinter: Fingerprinter
) -> WebhookDesk:
    """All of it over one pool. Endpoints and feed have a `run` of their own."""
    transactions = Transactions(pool)
    answers = StoredAnswers(transactions, vault, fingerprinter)
    return WebhookDesk(
        endpoints=WebhookEndpoints(transactions, answers, WebhookSecrets(vault)),
        log=DeliveryLog(transactions, answers),
        feed=Feed(transactions, installation),
    )
