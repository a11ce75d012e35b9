"""A shop that receives webhooks, and what tests need to send it some: endpoints, events, a dispatcher."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import psycopg
from standardwebhooks import Webhook

from engine.contracts.signature import public_text, secret_text
from engine.domain.ids import endpoint_id, event_id, payment_id
from engine.security.encryption import Vault
from ops.assembly.settings import load_settings
from support.gateway import MASTER_KEY, Gateway

Answer = int | tuple[int, dict[str, str], bytes]  # a status, or a status with headers and a body
_serial = count(1)
# Short, so that a time-out takes half a second and a dead dispatcher's claims come back in one.
HASTE = {
    "PENSTOCK_WEBHOOK_TIMEOUT_MS": "500",
    "PENSTOCK_WEBHOOK_LEASE_MS": "1000",
    "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8",
}


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request, as the shop saw it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    answered: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass(kw_only=True)
class Shop:
    """Answers each request with what `answers` says for its path."""

    port: int
    received: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[dict[str, Any]], Answer]] = field(default_factory=dict)  # by path; 200 for others
    silent: threading.Event = field(default_factory=threading.Event)  # set: takes requests and does not answer

    def url(self, path: str = "/hooks") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def of(self, payment: str) -> list[Received]:
        return [one for one in list(self.received) if one.event["data"].get("id") == payment]

    def ids(self, path: str) -> list[str]:
        return [one.id for one in list(self.received) if one.path == path]


@contextmanager
def a_shop() -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            at = time.monotonic()
            body = self.rfile.read(int(self.headers["content-length"]))
            while shop.silent.is_set():
                time.sleep(0.02)
            said = shop.answers.get(self.path, lambda event: 200)(json.loads(body))
            status, headers, text = (said, {}, b"") if isinstance(said, int) else said
            headers_seen = {name.lower(): value for name, value in self.headers.items()}
            shop.received.append(Received(path=self.path, headers=headers_seen, body=body, at=at, answered=status))
            with suppress(OSError):  # whoever asked may be gone
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    shop = Shop(port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield shop
    finally:
        shop.silent.clear()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A registered endpoint with the secret that its shop was shown."""

    id: str
    secret: str
    seed: bytes | None = None

    def verify(self, one: Received) -> Any:
        """By the published library. Raises its WebhookVerificationError."""
        return Webhook(self.secret).verify(one.body, dict(one.headers))


@dataclass(kw_only=True)
class Ledger:
    """Writes what the payment path and the API would write, and reads what became of it."""

    dsn: str
    vault: Vault = field(default_factory=lambda: Vault(load_settings(_KEYS).vault_keys))

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def register(self, url: str, *, merchant: str = "mer_local", v1a: bool = False, **columns: object) -> Endpoint:
        number = next(_serial)
        endpoint = endpoint_id(number.to_bytes(16, "big"))
        secret = number.to_bytes(32, "big")
        names = ["id", "merchant", "url", *columns]
        with psycopg.connect(self.dsn, autocommit=True) as connection, connection.transaction():
            connection.execute(
                f"INSERT INTO webhook_endpoints ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})",
                [endpoint, merchant, url, *columns.values()],
            )
            add = """INSERT INTO webhook_secrets (merchant, endpoint, scheme, role, sealed, public_key)
                     VALUES (%s, %s, %s, 'current', %s, %s)"""
            sealed = self.vault.seal_secret(secret, endpoint, "v1")
            connection.execute(add, [merchant, endpoint, "v1", sealed, None])
            if v1a:
                sealed = self.vault.seal_secret(secret, endpoint, "v1a")
                connection.execute(add, [merchant, endpoint, "v1a", sealed, public_text(secret)])
        return Endpoint(id=endpoint, secret=secret_text(secret), seed=secret if v1a else None)

    def happen(
        self,
        *types: str,
        payment: str | None = None,
        first: int = 1,
        merchant: str = "mer_local",
        connection: psycopg.Connection | None = None,
    ) -> str:
        """Events of one payment, in one commit, or in somebody's transaction. The payment's id."""
        payment = payment or payment_id("tests", merchant, str(next(_serial)))
        rows = [
            (event_id(payment, sequence), payment, sequence, merchant, kind, _payload(kind, payment, sequence))
            for sequence, kind in enumerate(types, first)
        ]
        with nullcontext(connection) if connection else psycopg.connect(self.dsn) as writer:
            writer.cursor().executemany(
                """INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
                   VALUES (%s, %s, %s, %s, %s, %s, now())""",
                rows,
            )
        return payment

    def forget_endpoints(self) -> None:
        """No endpoint of an earlier test wants anything any more."""
        self.sql("UPDATE webhook_endpoints SET status = 'deleted', disabled_reason = NULL, disabled_at = NULL")

    def rotate(self, endpoint: Endpoint, overlap: str) -> Endpoint:
        """A new secret; the one before signs for the overlap."""
        secret = next(_serial).to_bytes(32, "big")
        sealed = self.vault.seal_secret(secret, endpoint.id, "v1")
        with psycopg.connect(self.dsn) as connection:
            connection.execute("DELETE FROM webhook_secrets WHERE endpoint = %s AND role = 'previous'", [endpoint.id])
            connection.execute(
                """UPDATE webhook_secrets SET role = 'previous', expires_at = now() + %s::interval
                   WHERE endpoint = %s AND role = 'current'""",
                [overlap, endpoint.id],
            )
            connection.execute(
                """INSERT INTO webhook_secrets (merchant, endpoint, scheme, role, sealed)
                   VALUES ('mer_local', %s, 'v1', 'current', %s)""",
                [endpoint.id, sealed],
            )
        return Endpoint(id=endpoint.id, secret=secret_text(secret))

    def default_secret(self, merchant: str) -> str:
        [(sealed,)] = self.sql("SELECT sealed FROM webhook_secrets WHERE merchant = %s AND endpoint IS NULL", merchant)
        return secret_text(self.vault.open_secret(sealed, merchant, "v1"))

    def redeliver(self, payment: str, endpoint: Endpoint) -> None:
        self.sql(
            """WITH again AS (UPDATE deliveries SET state = 'pending', due_at = now(), failures = 0, finished_at = NULL,
                              dead_reason = NULL WHERE payment = %s AND endpoint = %s RETURNING 1)
               SELECT pg_notify('penstock_deliveries', '') FROM again""",
            payment, endpoint.id,
        )  # fmt: skip

    def status(self, endpoint: Endpoint) -> tuple[str, str | None]:
        [row] = self.sql("SELECT status, disabled_reason FROM webhook_endpoints WHERE id = %s", endpoint.id)
        return row[0], row[1]

    def pay(self, webhook_url: str) -> str:
        """A payment with a URL of its own, as far as webhooks care."""
        payment = payment_id("tests", "mer_local", str(next(_serial)))
        self.sql(
            """INSERT INTO payments (id, partition, merchant, amount, currency, order_id, customer_id, metadata, method,
                   connector, webhook_url, state, version, sequence, amount_captured, amount_refunded, created_at,
                   operation_id, journal_head, write_id)
               VALUES (%s, 0, 'mer_local', 1, 'USD', 'o', 'c', '{}', '{}', 'instant', %s, 'pending', 1, 1, 0, 0, now(),
                   'op', '', '')""",
            payment, webhook_url,
        )  # fmt: skip
        return payment

    def delivery(self, payment: str, endpoint: Endpoint, sequence: int = 1) -> dict[str, Any]:
        rows = self.sql(
            "SELECT to_json(d.*) FROM deliveries d WHERE payment = %s AND endpoint = %s AND sequence = %s",
            payment, endpoint.id, sequence,
        )  # fmt: skip
        return dict(rows[0][0]) if rows else {"state": None}

    def attempts(self, payment: str, endpoint: Endpoint) -> list[dict[str, Any]]:
        rows = self.sql(
            "SELECT to_json(a.*) FROM delivery_attempts a WHERE payment = %s AND endpoint = %s ORDER BY attempt",
            payment, endpoint.id,
        )  # fmt: skip
        return [row[0] for row in rows]


def _payload(kind: str, payment: str, sequence: int) -> str:
    data = {"object": "payment", "id": payment, "status": kind.removeprefix("payment."), "sequence": sequence}
    return json.dumps({"type": kind, "timestamp": "2030-01-01T00:00:00Z", "data": data, "sequence": sequence})


_KEYS = {"PENSTOCK_MASTER_KEY": MASTER_KEY, "PENSTOCK_FINGERPRINT_KEY": "Zm" + MASTER_KEY[2:]}


@contextmanager
def dispatchers(database: str, redis_url: str, folder: Any, number: int = 1, **environ: str) -> Iterator[Gateway]:
    """A gateway of dispatchers only."""
    gateway = Gateway(
        database=database,
        redis_url=redis_url,
        bank_url="http://127.0.0.1:9",
        folder=folder,
        environ={**HASTE, **environ},
    )
    try:
        for _ in range(number):
            gateway.start("dispatcher")
        yield gateway
    finally:
        gateway.close()


def silent_port() -> socket.socket:
    """A socket that lets one connect and then says nothing, for ever."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener
