"""An operator's retry waits for the end of the attempt that may still be at the bank, like any other attempt (I7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson

from engine.domain.payment import Verb
from support.bank_harness import fresh_cards
from support.ficmart_asks import SUCCESS
from support.gateway import a_gateway, eventually

TIMEOUT_S = 3  # of an attempt at the bank


@dataclass(kw_only=True)
class CurtBank:
    """Approves authorizations, and hangs up on the first capture: who knows what became of it."""

    port: int = 0
    captures: list[float] = field(default_factory=list)  # when each came


def test_a_retry_of_a_parked_capture_waits_until_its_attempt_cannot_be_at_the_bank(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    environ = {"PENSTOCK_ATTEMPTS_IN_HAND": "1", "PENSTOCK_ATTEMPT_TIMEOUT_MS": str(TIMEOUT_S * 1000)}
    with (
        a_curt_bank() as bank,
        a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, **environ) as gateway,
    ):
        payment = gateway.pay(next(fresh_cards), wait=10).json()["id"]
        operation = gateway.post(f"/v1/payments/{payment}/capture").json()["operation"]["id"]
        parked = "SELECT 1 FROM operations WHERE status = 'in_doubt' AND next_attempt_at IS NOT NULL"
        eventually(lambda: gateway.sql(parked), "it is parked")

        operator = {"X-API-Key": "ok_local_operator", "Idempotency-Key": "again", "Prefer": "wait=20"}
        wanted = {"operation_id": operation, "reason": "a test"}
        asked_at = time.monotonic()
        act = gateway.request("POST", f"/v1/payments/{payment}/retry", json=wanted, headers=operator)
        eventually(lambda: gateway.get(payment)["status"] == "captured", "it is captured", 20)

    assert act.status_code == 200, act.text
    first, second = bank.captures
    assert asked_at < first + TIMEOUT_S, "or nothing is tested here"
    assert second - first >= TIMEOUT_S


@contextmanager
def a_curt_bank() -> Iterator[CurtBank]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "21")
            self.end_headers()
            self.wfile.write(b'{"error":"not_found"}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            verb = Verb.CAPTURE if self.path.endswith("/captures") else Verb.AUTHORIZE
            if verb is Verb.CAPTURE:
                bank.captures.append(time.monotonic())
                if len(bank.captures) == 1:
                    self.close_connection = True
                    return
            held_until = {"expires_at": datetime.now(UTC) + timedelta(days=7)} if verb is Verb.AUTHORIZE else {}
            body = orjson.dumps(SUCCESS[verb] | held_until)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bank = CurtBank(port=server.server_address[1])
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield bank
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
