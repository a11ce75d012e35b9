"""A stand for the tests of the edge: its own Postgres, a real uvicorn on a free port, and a small engine in memory.

The engine remembers what it was asked and answers what a test tells it to; everything else is the real thing.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import orjson
import psycopg
import uvicorn
from prometheus_client import CollectorRegistry
from psycopg_pool import AsyncConnectionPool

from edge.app import create_app
from edge.server.admission import Admission, AdmissionLimits
from edge.server.authentication import Authenticator
from edge.server.protocol import CONNECTIONS_MAX, configuration
from engine.contracts.connector import Capabilities
from engine.contracts.gateway import ActionRequest, NewPayment, RequestContext, StoredResponse
from engine.contracts.url_policy import UrlPolicy, networks
from engine.contracts.webhooks import KeyedRequest, KeyedResponse
from engine.domain.ids import operation_id, payment_id
from engine.domain.payment import Verb
from engine.errors import Rejected
from ops.stack.embedded import EmbeddedPostgres

MERCHANT, OTHER, OPERATOR, DISABLED = "sk_test_merchant", "sk_test_other", "ok_test_operator", "sk_test_disabled"
CARDS = Capabilities(
    methods=frozenset({"card"}), currencies=frozenset({"USD"}), verbs=frozenset(Verb), partial_amounts=False
)
NO_LIMITS = AdmissionLimits()
TARGETS = UrlPolicy(https_only=False, inside=networks("127.0.0.0/8"))
_SCHEMA = sorted((Path(__file__).parent.parent.parent / "engine" / "ledger" / "migrations").glob("[0-9]*.sql"))


class MemoryEngine:
    """Accepting and Enquiring in memory: 202 once, the same reply replayed for the same key."""

    def __init__(self) -> None:
        self.gate = threading.Event()  # while it is not set, commands are heard and not answered
        self.forget()

    def forget(self) -> None:
        self.gate.set()
        self.asked: list[tuple[object, ...]] = []
        self.answer: Callable[[], StoredResponse | Exception] | None = None
        self._replies: dict[tuple[str, str, str], StoredResponse] = {}
        self._payments: dict[tuple[str, str], bytes] = {}

    async def authorize(self, origin: RequestContext, new: NewPayment) -> StoredResponse:
        self.asked.append(("authorize", origin, new))
        if not self.gate.is_set():
            await asyncio.to_thread(self.gate.wait, 10)
        payment = payment_id("stand", origin.merchant, origin.key)
        return self._reply(origin, payment, Verb.AUTHORIZE)

    async def operate(self, origin: RequestContext, payment: str, verb: Verb, amount: int | None) -> StoredResponse:
        self.asked.append((verb.value, origin, payment, amount))
        return self._reply(origin, payment, verb)

    async def payment(self, merchant: str, payment: str) -> bytes:
        self.asked.append(("payment", merchant, payment))
        if (merchant, payment) not in self._payments:
            raise Rejected("not_found", "There is no payment with this id.")
        return self._payments[merchant, payment]

    async def payments(self, merchant: str, **filters: object) -> bytes:
        self.asked.append(("payments", merchant, filters))
        data = [orjson.loads(body) for (owner, _), body in self._payments.items() if owner == merchant]
        return orjson.dumps({"object": "list", "data": data, "has_more": False, "next_cursor": None})

    async def operation(self, merchant: str, operation: str) -> bytes:
        self.asked.append(("operation", merchant, operation))
        raise Rejected("not_found", "There is no operation with this id.")

    async def operations(self, merchant: str, key: str, limit: int, cursor: str | None) -> bytes:
        self.asked.append(("operations", merchant, key))
        return b'{"object":"list","data":[],"has_more":false}'

    async def shippable(self, merchant: str, payment: str) -> bytes:
        self.asked.append(("shippable", merchant, payment))
        return b'{"shippable":false,"reason":"pending","as_of":"2030-01-01T00:00:00Z"}'

    async def timeline(self, merchant: str, payment: str) -> bytes:
        self.asked.append(("timeline", merchant, payment))
        return b'{"object":"list","data":[],"has_more":false}'

    async def dead_letters(self, limit: int, cursor: str | None) -> bytes:
        self.asked.append(("dead_letters", limit, cursor))
        return b'{"object":"list","data":[],"has_more":false,"next_cursor":null}'

    async def dead_letter(self, letter: str) -> bytes:
        self.asked.append(("dead_letter", letter))
        raise Rejected("not_found", "There is no dead letter with this id.")

    async def requeue(self, asked: ActionRequest, letter: str) -> StoredResponse:
        return self._act("requeue", asked, letter)

    async def drop(self, asked: ActionRequest, letter: str) -> StoredResponse:
        return self._act("drop", asked, letter)

    async def retry(self, asked: ActionRequest, payment: str) -> StoredResponse:
        return self._act("retry", asked, payment)

    async def correct(self, asked: ActionRequest, payment: str) -> StoredResponse:
        return self._act("correct", asked, payment)

    async def resolve(self, asked: ActionRequest, payment: str) -> StoredResponse:
        return self._act("resolve", asked, payment)

    def _act(self, act: str, asked: ActionRequest, subject: str) -> StoredResponse:
        self.asked.append((act, asked, subject))
        return StoredResponse(status=200, body=b'{"object":"act"}', payment="", operation="")

    def _reply(self, origin: RequestContext, payment: str, verb: Verb) -> StoredResponse:
        if self.answer is not None:
            given = self.answer()
            if isinstance(given, Exception):
                raise given
            return given
        known = (origin.merchant, payment + verb, origin.key)
        if known in self._replies:
            first = self._replies[known]
            return StoredResponse(
                **{**{name: getattr(first, name) for name in StoredResponse.__slots__}, "replayed": True}
            )
        body = orjson.dumps({"object": "payment", "id": payment, "status": "pending"})
        reply = StoredResponse(
            status=202, body=body, payment=payment, operation=operation_id(payment, verb, origin.key)
        )
        self._replies[known], self._payments[origin.merchant, payment] = reply, body
        return reply


class MemoryWebhooks:
    """Subscribing, Inspecting and Feeding that only remember what they were asked."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[object]]:
        async def remember(*asked: object, **more: object) -> object:
            self._engine.asked.append((verb, *asked, *more.values()))
            if not self._engine.gate.is_set():
                await asyncio.to_thread(self._engine.gate.wait, 10)
            changed = isinstance(asked[0], KeyedRequest)
            return KeyedResponse(status=200, body=b"{}", replayed=False) if changed else b"{}"

        return remember


@contextmanager
def running_postgres() -> Iterator[str]:
    """The DSN of a fresh Postgres with the ledger's tables and the keys above."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # run by root, Postgres is another account
        server = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            dsn = server.start()
            with psycopg.connect(dsn) as connection:
                for migration in _SCHEMA:
                    connection.execute(migration.read_bytes())
                for merchant, status in (("m_1", "active"), ("m_2", "active"), ("m_off", "disabled")):
                    connection.execute("INSERT INTO merchants VALUES (%s, %s, %s)", (merchant, merchant, status))
            for secret, merchant, scope in (
                (MERCHANT, "m_1", "merchant"),
                (OTHER, "m_2", "merchant"),
                (OPERATOR, "m_1", "operator"),
                (DISABLED, "m_off", "merchant"),
            ):
                add_key(dsn, secret, merchant, scope)
            yield dsn
        finally:
            server.stop()


def add_key(dsn: str, secret: str, merchant: str | None = "m_1", scope: str = "merchant", **columns: object) -> None:
    """Store a key as the operator's command would; `columns` are expires_at and revoked_at."""
    digest = hashlib.sha256(secret.encode()).digest()
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO api_keys (id, merchant_id, scope, digest, hint, expires_at, revoked_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                f"key_{secret}",
                merchant,
                scope,
                digest,
                secret[-4:],
                columns.get("expires_at"),
                columns.get("revoked_at"),
            ),
        )


@dataclass
class Stand:
    """A running edge."""

    url: str
    port: int
    dsn: str
    engine: MemoryEngine
    client: httpx.Client
    probes: dict[str, Callable[[], Awaitable[str | None]]]
    _keys: Iterator[int] = field(default_factory=itertools.count)

    def request(self, method: str, path: str, *, without: tuple[str, ...] = (), **arguments: object) -> httpx.Response:
        """A request with a working key and, for POST, a fresh Idempotency-Key, unless `without` them."""
        headers = {"X-API-Key": MERCHANT}
        if method == "POST":
            headers |= {"Idempotency-Key": f"key-{next(self._keys)}", "Content-Type": "application/json"}
        headers |= dict(arguments.pop("headers", {}))  # type: ignore[call-overload]
        for name in without:
            headers.pop(name)
        return self.client.request(method, path, headers=headers, **arguments)  # type: ignore[arg-type]

    def post(self, path: str = "/v1/payments", body: object = None, **arguments: object) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(a_payment() if body is None else body)
        return self.request("POST", path, content=content, **arguments)

    def get(self, path: str, **arguments: object) -> httpx.Response:
        return self.request("GET", path, **arguments)


def a_payment(**changes: object) -> dict[str, object]:
    """A good body of POST /v1/payments; a change to `...` leaves the field out."""
    body: dict[str, object] = {
        "amount": 5000,
        "currency": "USD",
        "order_id": "order-1",
        "customer_id": "customer-1",
        "payment_method": a_card(),
        **changes,
    }
    return {name: value for name, value in body.items() if value is not ...}


def a_card(**changes: object) -> dict[str, object]:
    card = {"type": "card", "number": "4111111111111111", "cvv": "123", "expiry_month": 12, "expiry_year": 2030}
    return {name: value for name, value in (card | changes).items() if value is not ...}


@contextmanager
def running_edge(
    dsn: str,
    *,
    capabilities: Mapping[str, Capabilities] | None = None,
    limits: AdmissionLimits = NO_LIMITS,
    connections_max: int = CONNECTIONS_MAX,
) -> Iterator[Stand]:
    """A real uvicorn in a thread, over this Postgres."""
    engine, probes = MemoryEngine(), {}  # type: ignore[var-annotated]
    webhooks = MemoryWebhooks(engine)
    pool = AsyncConnectionPool(dsn, open=False, min_size=1, max_size=2, reconnect_timeout=1, timeout=2)

    @asynccontextmanager
    async def lifespan(_: object):  # type: ignore[no-untyped-def]
        async with pool:
            yield

    app = create_app(
        acceptor=engine,
        queries=engine,
        timeline=engine,
        operator_actions=engine,
        subscriptions=webhooks,
        deliveries=webhooks,
        feed=webhooks,
        url_policy=TARGETS,
        clock=lambda: datetime.now(UTC),
        keys=Authenticator(pool),
        capabilities={"card": CARDS} if capabilities is None else capabilities,
        probes=probes,
        registry=CollectorRegistry(),
        admission=Admission(limits),
        lifespan=lifespan,
    )
    server = uvicorn.Server(configuration(app, port=0, connections_max=connections_max))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        give_up = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < give_up, "the edge did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=15) as client:
            yield Stand(url=url, port=port, dsn=dsn, engine=engine, client=client, probes=probes)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def assert_refused(edge: Stand, answer: httpx.Response, status: int, code: str) -> None:
    """A whole problem document, and the engine heard nothing."""
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (problem["status"], problem["type"]) == (status, f"/problems/{code}")
    assert problem["detail"] and problem["title"]
    assert edge.engine.asked == []
