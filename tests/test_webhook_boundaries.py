"""Whatever one receiver answers, or one row holds, it harms its own delivery alone: the others' go out."""

from __future__ import annotations

import asyncio
import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import orjson
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import CollectorRegistry
from psycopg_pool import AsyncConnectionPool

from engine.contracts.url_policy import UrlPolicy
from engine.webhooks.dispatcher import Dispatcher, DispatchLimits, DispatchTools
from engine.webhooks.metrics import DispatchMetrics
from engine.webhooks.outbox import Outbox
from engine.webhooks.sender import WebhookSender
from engine.webhooks.signer import Signer
from support.gateway import Gateway, eventually
from support.webhook_stand import Endpoint, Ledger, Shop, a_shop, dispatchers

EMPTY = b"content-length: 0\r\n\r\n"
DRIP_S = 0.05


def refusing(*headers: bytes) -> bytes:
    return b"HTTP/1.1 503 No\r\n" + b"".join(header + b"\r\n" for header in headers) + EMPTY


RETRY_AFTER = [
    b"Fri, 31 Dec 99999999999 23:59:59 GMT", b"Fri, 31 Dec 2030 23:59:59 +99999999999999",
    b"Mon, 01 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359", b"Fri, 99 Dec 2030 99:99:99 GMT",
    b"Fri, 31 Dec 2030 23:59:59 -0000", b"9" * 60, b"9" * 6000, b"-5", b"1e9", b"NaN", b"inf", b"0x10", b"1_000",
    b"+5", b"", b" ", b",", b"\xff\xfe", "٣".encode(), b"Fri, 31 Dec 2030", b"31", b"120, 240", b"(((((((((((",
]  # fmt: skip
ANSWERS: dict[str, bytes | list[bytes]] = {
    **{f"retry-after/{number}": refusing(b"retry-after: " + value) for number, value in enumerate(RETRY_AFTER)},
    "retry-after/twice": refusing(b"retry-after: 5", b"retry-after: Fri, 31 Dec 99999999999 23:59:59 GMT"),
    "status/0": b"HTTP/1.1 0 No\r\n" + EMPTY,
    "status/99": b"HTTP/1.1 99 No\r\n" + EMPTY,
    "status/101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "status/999": b"HTTP/1.1 999 No\r\n" + EMPTY,
    "status/1000": b"HTTP/1.1 1000 No\r\n" + EMPTY,
    "status/negative": b"HTTP/1.1 -200 No\r\n" + EMPTY,
    "status/endless-100": [b"HTTP/1.1 100 Continue\r\n\r\n"] * 10_000,
    "version": b"HTTP/9.9 200 OK\r\n" + EMPTY,
    "reason": b"HTTP/1.1 500 \xff\xfe\x00 \r\n" + EMPTY,
    "redirect": b"HTTP/1.1 302 No\r\nlocation: \xff://[::1/%\r\n" + EMPTY,
    "headers/flood": b"HTTP/1.1 500 No\r\n" + b"x: y\r\n" * 20_000 + EMPTY,
    "headers/long": refusing(b"x: " + b"y" * 200_000),
    "headers/bytes": refusing(b"x\xff: \x00\x01\xff"),
    "headers/name": refusing(b"no colon at all"),
    "cookies": refusing(*(b"set-cookie: \xff[=;;=%00; expires=Fri, 99 Foo 99999999999; max-age=1e999; domain=."
                          for _ in range(50))),
    "length/two": refusing(b"content-length: 5"),
    "length/negative": b"HTTP/1.1 500 No\r\ncontent-length: -1\r\n\r\n",
    "length/huge": b"HTTP/1.1 500 No\r\ncontent-length: " + b"9" * 40 + b"\r\n\r\nx",
    "length/short": b"HTTP/1.1 500 No\r\ncontent-length: 100\r\n\r\nx",
    "chunks/garbage": b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nx",
    "chunks/huge": b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx",
    "chunks/negative": b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nx",
    "chunks/and-length": refusing(b"transfer-encoding: chunked"),
    "encoding/gzip": b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\xff\xff",
    "encoding/unknown": b"HTTP/1.1 500 No\r\ncontent-encoding: \xff, br, br\r\ncontent-length: 1\r\n\r\nx",
    "type/charset": refusing(b"content-type: text/html; charset=\xff\xfe"),
    "body/utf-8": b"HTTP/1.1 500 No\r\ncontent-length: 6\r\n\r\n\xed\xa0\x80\x00\xff\xc3",
    "body/endless": [b"HTTP/1.1 500 No\r\n\r\n", *[b"z" * 65_536] * 2000],
    "drip/status": [b"HTTP/1.1 5", *[b"0"] * 1000],
    "drip/headers": [b"HTTP/1.1 500 No\r\nx: ", *[b"y"] * 1000],
    "drip/body": [b"HTTP/1.1 500 No\r\ncontent-length: 1000\r\n\r\n", *[b"y"] * 1000],
    "nothing": b"",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "bytes": bytes(range(256)) * 10,
}  # fmt: skip


@contextmanager
def a_receiver() -> Iterator[int]:
    """Sends each path its bytes, and hangs up; the pieces of a list one by one, slowly where they drip. Its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split(b" ")[1].decode().removeprefix("/")
            while self.rfile.readline().strip():
                pass
            answer = ANSWERS[path]
            with suppress(OSError):
                for piece in answer if isinstance(answer, list) else [answer]:
                    self.wfile.write(piece)
                    time.sleep(DRIP_S if path.startswith("drip") else 0)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 512

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with a_shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def running(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with dispatchers(module_database, "redis://127.0.0.1:9", tmp_path_factory.mktemp("hooks")) as gateway:
        yield gateway


@pytest.fixture
def ledger(running: Gateway) -> Ledger:
    ledger = Ledger(dsn=running.database)
    ledger.forget_endpoints()
    return ledger


def delivered_to_others(ledger: Ledger, shop: Shop, path: str) -> None:
    """Another merchant's event arrives, in the time in which a healthy dispatcher sends it many times over."""
    endpoint = ledger.register(shop.url(path), merchant="mer_other")
    payment = ledger.happen("payment.created", merchant="mer_other")
    eventually(lambda: ledger.delivery(payment, endpoint)["state"] == "delivered", "the other's arrives", 20)


def complaints(running: Gateway) -> list[dict[str, Any]]:
    """What the dispatcher says of failures that it did not expect."""
    (dispatcher,) = running.processes
    lines = map(orjson.loads, dispatcher.log.read_bytes().splitlines())
    return [line for line in lines if line["event"] in ("loop_failed", "postgres_away", "attempt_not_recorded")]


def test_whatever_a_receiver_answers_is_one_failed_attempt_and_the_others_go_out(
    ledger: Ledger, shop: Shop, running: Gateway
) -> None:
    with a_receiver() as port:
        bad = {path: ledger.register(f"http://127.0.0.1:{port}/{path}", retry_schedule=[3600]) for path in ANSWERS}

        payment = ledger.happen("payment.created")
        delivered_to_others(ledger, shop, "/others/answers")

        failed = "SELECT count(*) FROM deliveries WHERE payment = %s AND failures = 1 AND state = 'pending'"
        eventually(lambda: ledger.sql(failed, payment) == [(len(bad),)], "each has failed once", 60)
    assert {path for path, endpoint in bad.items() if len(ledger.attempts(payment, endpoint)) != 1} == set()
    later = "SELECT max(due_at) - now() <= interval '25 hours', min(due_at) > now() FROM deliveries WHERE payment = %s"
    assert ledger.sql(later, payment) == [(True, True)]
    assert complaints(running) == []
    assert running.processes[0].process.poll() is None


UPDATES = {
    "deliveries": "UPDATE deliveries SET {} WHERE endpoint = %s",
    "outbox": "UPDATE outbox SET {} WHERE payment = (SELECT payment FROM deliveries WHERE endpoint = %s)",
    "webhook_endpoints": "UPDATE webhook_endpoints SET {} WHERE id = %s",
    "webhook_secrets": "UPDATE webhook_secrets SET {} WHERE endpoint = %s",
}
REFUSED = "url = 'http://127.0.0.1:9/'"  # nobody listens there
ROWS = {
    "due at no time": ("deliveries", "due_at = '-infinity'"),
    "due before all years": ("deliveries", "due_at = '4000-01-01 BC'"),
    "due never": ("deliveries", "due_at = 'infinity'"),
    "due after all years": ("deliveries", "due_at = '200000-01-01'"),
    "claimed for ever": ("deliveries", "state = 'sending', claimed_until = 'infinity'"),
    "attempted too often to count": ("deliveries", "attempts = 2147483647"),
    "failed too often to count": ("deliveries", "attempts = 2147483646, failures = 2147483646"),
    "happened at no time": ("outbox", "created_at = '-infinity'"),
    "happened after all years": ("outbox", "created_at = '200000-01-01'"),
    "a payload that is none": ("outbox", "payload = ''"),
    "an id that is no header": ("outbox", "event_id = E'evt\\r\\nx: y'"),
    "an id beyond Latin": ("outbox", "event_id = 'evt_☃'"),
    "an event that is another's": ("outbox", "payment = 'pay_gone' || id"),
    "a URL that is none": ("webhook_endpoints", "url = E'http://[::1/\\r\\n'"),
    "a URL of no scheme": ("webhook_endpoints", "url = 'gopher:'"),
    "a schedule of nothing": ("webhook_endpoints", f"retry_schedule = ARRAY[NULL]::integer[], {REFUSED}"),
    "a schedule in two dimensions": ("webhook_endpoints", f"retry_schedule = '{{{{1,2}},{{3,4}}}}', {REFUSED}"),
    "a secret that is none": ("webhook_secrets", "sealed = ''"),
    "a secret beyond ASCII": ("webhook_secrets", "sealed = '☃☃☃☃'"),
    "a secret of another scheme": ("webhook_secrets", "scheme = 'v1a', public_key = 'whpk_'"),
}


@pytest.mark.parametrize(("table", "spoil"), ROWS.values(), ids=ROWS)
def test_whatever_a_row_holds_the_others_go_out(
    ledger: Ledger, shop: Shop, running: Gateway, table: str, spoil: str
) -> None:
    spoilt = spoilt_endpoint(ledger, shop, UPDATES[table].format(spoil))

    for number in range(2):
        delivered_to_others(ledger, shop, f"/others/{spoilt.id}/{number}")

    assert [line for line in complaints(running) if line["event"] == "postgres_away"] == []
    ended = """UPDATE deliveries SET state = 'dead', claimed_until = NULL, finished_at = now(), failures = 0,
                   attempts = 0, dead_reason = 'exhausted' WHERE endpoint = %s"""
    ledger.sql(ended, spoilt.id)


def spoilt_endpoint(ledger: Ledger, shop: Shop, spoil: str) -> Endpoint:
    """With a delivery that is due, after the spoiling."""
    endpoint = ledger.register(shop.url("/spoilt"))
    payment = ledger.happen("payment.created", merchant="mer_nobody")
    due = "INSERT INTO deliveries (payment, endpoint, sequence, due_at) VALUES (%s, %s, 1, now() + interval '1 hour')"
    ledger.sql(due, payment, endpoint.id)
    ledger.sql(spoil, endpoint.id)
    soon = (
        "UPDATE deliveries SET due_at = now() WHERE endpoint = %s AND due_at BETWEEN now() AND now() + interval '1 h'"
    )
    ledger.sql(soon, endpoint.id)
    ledger.sql("SELECT pg_notify('penstock_deliveries', %s)", endpoint.id)
    return endpoint


class Exploding(AbstractResolver):
    """Fails as nothing may."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise RuntimeError("nobody expected this")

    async def close(self) -> None:
        pass


def test_a_delivery_that_fails_as_nothing_may_has_failed_like_any_other(database: str) -> None:
    ledger = Ledger(dsn=database)
    endpoint = ledger.register("http://shop.example/hooks", retry_schedule=[3600])
    payment = ledger.happen("payment.created")
    ledger.sql("INSERT INTO deliveries (payment, endpoint, sequence, due_at) VALUES (%s, %s, 1, now())",
               payment, endpoint.id)  # fmt: skip

    async def dispatched() -> None:
        async with (
            AsyncConnectionPool(database, min_size=1, open=False, kwargs={"autocommit": True}) as pool,
            WebhookSender(UrlPolicy(https_only=False), timeout_ms=500, resolver=Exploding()) as sender,
            anyio.create_task_group() as tasks,
        ):
            context = DispatchTools(
                outbox=Outbox(pool, _now, lease_ms=600_000, patience=timedelta(days=5)),
                signer=Signer(pool, ledger.vault),
                sender=sender,
                clock=_now,
                draw=random.Random(7),
                meters=DispatchMetrics(CollectorRegistry()),
            )
            dispatcher = Dispatcher(DispatchLimits(places=10, lane_places=2, send_ms=500_000), context)
            tasks.start_soon(context.outbox.run)
            tasks.start_soon(dispatcher.run)
            await asyncio.to_thread(
                eventually, lambda: ledger.delivery(payment, endpoint)["failures"], "its failure is recorded", 30
            )
            dispatcher.stop()
            tasks.cancel_scope.cancel()

    asyncio.run(dispatched())

    [attempt] = ledger.attempts(payment, endpoint)
    assert (attempt["outcome"], ledger.delivery(payment, endpoint)["state"]) == ("unreachable", "pending")


def _now() -> datetime:
    return datetime.now(UTC)
