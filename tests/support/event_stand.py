"""An edge over real stores, and events as a worker would commit them: for tests of what merchants see of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import orjson
import psycopg
from redis import Redis

from engine.domain.ids import event_id, payment_id
from ops.stack.embedded import EmbeddedRedis
from support.gateway import Gateway

MERCHANT, OTHER = "sk_local_merchant", "sk_local_other"
ENDPOINTS = "/v1/webhook-endpoints"
_REDIS = 7  # the database of these edges


@contextmanager
def an_edge(database: str, redis_server: EmbeddedRedis, folder: Path, **environ: str) -> Iterator[Gateway]:
    """One edge and no worker: nothing happens but what the test does. In a Redis of its own installation."""
    with Redis(port=redis_server.port, db=_REDIS) as client:
        client.flushdb()
    gateway = Gateway(
        database=database,
        redis_url=f"redis://127.0.0.1:{redis_server.port}/{_REDIS}",
        bank_url="http://127.0.0.1:1",
        folder=folder,
        environ={"PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8", **environ},
    )
    try:
        gateway.start("edge")
        yield gateway
    finally:
        for running in gateway.processes:
            running.process.kill()
            running.process.wait(10)
        gateway.http.close()


def ask(
    gateway: Gateway, method: str, path: str, body: object = None, *, by: str = MERCHANT, **headers: str
) -> httpx.Response:
    """A request of one of the two merchants, with a fresh key for POST unless one is given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if method == "POST":
        named = {"Idempotency-Key": token_hex(8), **named}
    content = None if body is None else orjson.dumps(body)
    return gateway.http.request(
        method,
        gateway.edge + path,
        content=content,
        headers={"X-API-Key": by, **({} if body is None else {"Content-Type": "application/json"}), **named},
    )


def an_endpoint(gateway: Gateway, *, by: str = MERCHANT, **changes: object) -> dict[str, Any]:
    """A fresh endpoint, with its secret."""
    body = {"url": f"http://127.0.0.1:9/{token_hex(6)}", **changes}
    made = ask(gateway, "POST", ENDPOINTS, body, by=by)
    assert made.status_code == 201, made.text
    return dict(made.json())


def merchant_of(gateway: Gateway, key: str = MERCHANT) -> str:
    statement = "SELECT merchant_id FROM api_keys WHERE digest = sha256(%s::bytea)"
    return str(gateway.sql(statement, key.encode())[0][0])


def tell(
    connection: psycopg.Connection, merchant: str, payment: str, sequence: int, type: str = "payment.authorized"
) -> str:
    """One event into the outbox, as the group commit writes it. Its id."""
    event = event_id(payment, sequence)
    payload = orjson.dumps({"type": type, "timestamp": "2030-01-01T00:00:00Z", "data": {}, "sequence": sequence})
    connection.execute(
        "INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp())",
        (event, payment, sequence, merchant, type, payload.decode()),
    )
    return event


def a_payment_id() -> str:
    return payment_id("test", "test", token_hex(8))
