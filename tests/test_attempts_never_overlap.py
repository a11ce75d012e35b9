"""Attempts of one operation never overlap at the bank, whoever makes them and whatever befell their makers (I7)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.bank_harness import fresh_cards
from support.gateway import Gateway, a_gateway, eventually


@dataclass(kw_only=True)
class SilentBank:
    """Answers reads, and says nothing to attempts until it is told to; knows when each attempt came."""

    port: int = 0
    came: list[float] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def silent() -> Iterator[SilentBank]:
    with _serving(SilentBank()) as bank:
        yield bank


def test_each_owner_waits_for_the_end_of_the_attempt_before(
    database: str, redis_url: str, silent: SilentBank, tmp_path: Path
) -> None:
    card = next(fresh_cards)
    with a_gateway(database, redis_url, f"http://127.0.0.1:{silent.port}", tmp_path, workers=0) as gateway:
        killed = gateway.start("worker")
        gateway.pay(card)
        first = _attempt(gateway, 1)
        eventually(lambda: len(silent.came) == 1, "the first attempt is at the bank")
        killed.kill()

        # This one commits its attempt and is stopped before it sends it.
        stopped = gateway.start("worker", PENSTOCK_FAILPOINTS="before-bank:stop")
        second = _attempt(gateway, 2)
        eventually(lambda: b"T" in _state(stopped.pid), "it is stopped")

        # This one takes over, and meets silence in hand.
        gateway.start("worker")
        third = _attempt(gateway, 3)
        eventually(lambda: len(silent.came) == 2, "the third attempt is at the bank", 20)
        silent.answers.set()  # from the next one on
        _attempt(gateway, 4)
        stopped.send(signal.SIGCONT)
        gateway.settled()
        fourth = _attempt(gateway, 4)  # as it was answered: one that came too late to be sent is committed anew
        eventually(lambda: "partition_fenced" in stopped.log.read_text(), "the one that slept knows that it lost")

    began, ended = zip(*(first, second, third, fourth), strict=True)
    between_s = [start - end for start, end in zip(began[1:], ended[:-1], strict=True)]
    assert min(between_s) >= 0
    assert [any(start <= came <= end for came in silent.came) for start, end in zip(began, ended, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    assert len(silent.came) == 3, "what was not sent in time was never sent"


def _attempt(gateway: Gateway, number: int) -> tuple[float, float]:
    """When this attempt was committed, at the earliest, and when it is over at the bank."""
    statement = "SELECT send_by, deadline FROM operations WHERE attempts = %s"
    ((send_by, deadline),) = eventually(lambda: gateway.sql(statement, number), f"attempt {number} is committed", 30)
    return (send_by - timedelta(milliseconds=500)).timestamp(), deadline.timestamp()


def _state(pid: int) -> bytes:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]


@contextmanager
def _serving(bank: SilentBank) -> Iterator[SilentBank]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(404)
            self._say(b'{"error":"not_found"}')

        def do_POST(self) -> None:
            bank.came.append(time.time())
            asked = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not bank.answers.is_set():
                bank.closing.wait(30)
                return
            now = datetime.now(UTC)
            body = orjson.dumps(
                {
                    "authorization_id": "auth_00000000-0000-4000-8000-000000000000",
                    "status": "approved",
                    "amount": asked["amount"],
                    "currency": "USD",
                    "created_at": now,
                    "expires_at": now + timedelta(days=7),
                }
            )
            self.send_response(200)
            self._say(body)

        def _say(self, body: bytes) -> None:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bank.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield bank
    finally:
        bank.closing.set()
        server.shutdown()
        server.server_close()
        serving.join()
