"""`penstock listen` prints what arrives, verified, misbehaves when told to, and leaves no endpoint behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import psycopg
import pytest

from engine.contracts.signature import signatures
from ops.stack.embedded import EmbeddedRedis
from support.event_stand import ENDPOINTS, a_payment_id, an_edge, ask, merchant_of, tell
from support.gateway import Gateway, eventually
from support.webhook_stand import HASTE

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "WEBHOOK_"))}
SECRET, OTHERS = b"\x01" * 32, b"\x02" * 32
TOLD = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="  # SECRET, as a merchant is shown it


@dataclass(kw_only=True)
class Listener:
    """A running `penstock listen`."""

    process: subprocess.Popen[str]
    out: Path
    errors: Path
    as_json: bool
    _ids: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def text(self) -> str:
        return self.out.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def arrivals(self) -> list[dict[str, Any]]:
        return self.lines[1:]

    @property
    def url(self) -> str:
        if self.as_json:
            return str(self.lines[0]["url"])
        return self.text.split()[2]

    def began(self) -> bool:
        assert self.process.poll() is None, self.errors.read_text()
        return "\n" in self.text

    def send(self, *, id: str = "", key: bytes = SECRET, age_s: int = 0, tampered: bool = False, **event: Any) -> int:
        """One signed request. The status of its answer."""
        content, headers = self._signed(id, key, age_s, tampered, event)
        return httpx.post(self.url, content=content, headers=headers, timeout=10).status_code

    def begin(self) -> http.client.HTTPConnection:
        """One signed request that it has read whole, and not answered."""
        content, headers = self._signed("", SECRET, 0, False, {})
        url = httpx.URL(self.url)
        connection = http.client.HTTPConnection(url.host, url.port, timeout=10)
        connection.request("POST", url.raw_path.decode(), content, headers)
        ports = f":{url.port:04X}", f":{connection.sock.getsockname()[1]:04X}"
        eventually(lambda: _unread(*ports) == 0, "it has read the request")
        return connection

    def _signed(
        self, id: str, key: bytes, age_s: int, tampered: bool, event: dict[str, Any]
    ) -> tuple[bytes, dict[str, str]]:
        id, at = id or f"evt_{next(self._ids)}", int(time.time()) - age_s
        body = json.dumps({"type": "payment.created", "data": {"id": "pay_1"}, "sequence": 1, **event}).encode()
        signature = signatures(id, at, body, [key], [])
        headers = {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signature}
        return body + b" " * tampered, headers

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def a_listener(folder: Path, *options: str, as_json: bool = True, ready: bool = True) -> Iterator[Listener]:
    out, errors = folder / f"{token_hex(4)}.out", folder / f"{token_hex(4)}.err"
    command = [sys.executable, "-P", "-m", "ops.cli.main", "listen", "--port", "0", *options]
    with out.open("w") as sink, errors.open("w") as complaints:
        process = subprocess.Popen(
            [*command, *(["--json"] if as_json else [])],
            env={**PLAIN, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
            stdout=sink,
            stderr=complaints,
            text=True,
        )
    running = Listener(process=process, out=out, errors=errors, as_json=as_json)
    try:
        if ready:
            eventually(running.began, "it listens", 20)
        yield running
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def gateway(
    module_database: str, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """An edge and a dispatcher; events are told by the tests."""
    with an_edge(module_database, redis_server, tmp_path_factory.mktemp("edge"), **HASTE) as running:
        running.start("dispatcher")
        yield running


def happen(gateway: Gateway, payment: str, *types: str) -> None:
    with psycopg.connect(gateway.database) as connection:
        for sequence, type in enumerate(types, 1):
            tell(connection, merchant_of(gateway), payment, sequence, type)


def living(gateway: Gateway) -> list[str]:
    return [endpoint["id"] for endpoint in ask(gateway, "GET", f"{ENDPOINTS}?limit=100").json()["data"]]


def test_what_happens_is_printed_verified_and_the_endpoint_is_gone_at_the_end(gateway: Gateway, tmp_path: Path) -> None:
    payment, types = a_payment_id(), ["payment.created", "payment.authorized", "payment.captured"]

    with a_listener(tmp_path, "--register", "--ordered", "--edge", gateway.edge) as listener:
        registered = living(gateway)
        happen(gateway, payment, *types)
        eventually(lambda: len(listener.arrivals) == 3, "all three are printed")
        code = listener.end()

    assert registered == [listener.lines[0]["endpoint_id"]]
    assert [arrival["type"] for arrival in listener.arrivals] == types
    assert {(arrival["signature"], arrival["verified"], arrival["status"]) for arrival in listener.arrivals} == {
        ("v1", True, 200)
    }
    assert (code, living(gateway)) == (0, [])


def test_failures_are_repeated_on_the_schedule_under_one_id(gateway: Gateway, tmp_path: Path) -> None:
    options = ("--register", "--edge", gateway.edge, "--schedule", "1,1,1", "--fail", "2", "--count", "1", "--ed25519")

    with a_listener(tmp_path, *options) as listener:
        happen(gateway, a_payment_id(), "payment.created")
        code = listener.process.wait(15)  # by itself: that was one event

    assert [arrival["status"] for arrival in listener.arrivals] == [500, 500, 200]
    assert [arrival["attempt"] for arrival in listener.arrivals] == [1, 2, 3]
    assert listener.arrivals[0]["waited_s"] is None
    assert all(0.7 < arrival["waited_s"] < 5 for arrival in listener.arrivals[1:])
    assert len({arrival["id"] for arrival in listener.arrivals}) == 1
    assert (code, living(gateway)) == (0, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_registration_is_taken_back(gateway: Gateway, tmp_path: Path, number: signal.Signals) -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(gateway.database) as holder:
        holder.execute("SELECT FROM merchants WHERE id = %s FOR UPDATE", [merchant_of(gateway)])
        with a_listener(tmp_path, "--register", "--edge", gateway.edge, ready=False) as listener:
            eventually(lambda: gateway.sql(waits)[0][0] or listener.process.poll(), "the edge is registering it", 20)
            listener.process.send_signal(number)
            eventually(lambda: not _pending(listener.process.pid, number), "the signal has come")
            before = gateway.sql("SELECT count(*) FROM webhook_endpoints")[0][0]
            holder.rollback()
            code = listener.process.wait(10)

    assert (code, listener.errors.read_text()) == (0, "")
    assert gateway.sql("SELECT count(*) FROM webhook_endpoints")[0][0] == before + 1
    assert living(gateway) == []


def test_a_kept_endpoint_stays_and_its_events_reach_the_next_listener(gateway: Gateway, tmp_path: Path) -> None:
    payment, types = a_payment_id(), ["payment.created", "payment.authorized", "payment.captured", "payment.refunded"]
    options = ("--register", "--keep", "--ordered", "--schedule", ",".join(["1"] * 20), "--edge", gateway.edge)

    with a_listener(tmp_path, *options, as_json=False) as first:
        port, [endpoint] = first.url.split(":")[2].split("/")[0], living(gateway)
        code = first.end()
    secret = first.text.split()[-1]
    happen(gateway, payment, *types)
    eventually(
        lambda: gateway.sql("SELECT 1 FROM delivery_attempts WHERE payment = %s", payment), "it was tried in vain"
    )
    with a_listener(tmp_path, "--port", port, "--secret", secret, "--count", "4") as second:
        second.process.wait(15)
    ask(gateway, "DELETE", f"{ENDPOINTS}/{endpoint}")

    assert code == 0 and f"listen again with: penstock listen --host 127.0.0.1 --port {port}" in first.text
    assert [(arrival["type"], arrival["order"]) for arrival in second.arrivals] == [
        (type, "in order") for type in types
    ]
    assert len({arrival["id"] for arrival in second.arrivals}) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--events", "payment.exploded"), "/events/0"),
        (("--schedule", "0"), "/retry_schedule/0"),
        (("--api-key", "sk_of_nobody"), "key"),
    ],
)
def test_what_the_edge_refuses_is_told_in_its_words(
    gateway: Gateway, tmp_path: Path, options: tuple[str, str], words: str
) -> None:
    with a_listener(tmp_path, "--register", "--edge", gateway.edge, *options, ready=False) as listener:
        code = listener.process.wait(20)

    said = listener.errors.read_text()
    assert (code, listener.text) == (1, "")
    assert words in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--register", "--edge", "http://127.0.0.1:1"), 1, "no edge answers"),
        (("--secret", "whsec_not-base64"), 1, "whsec_"),
        (("--public-key", "whpk_AQEB"), 1, "whpk_"),
        (("--status", "99"), 2, "--status"),
        (("--schedule", "soon", "--register"), 2, "--schedule"),
        (("--ordered",), 2, "--register"),
    ],
)
def test_what_cannot_be_is_told_at_once(tmp_path: Path, options: tuple[str, ...], code: int, words: str) -> None:
    with a_listener(tmp_path, *options, ready=False) as listener:
        ended = listener.process.wait(20)

    said = listener.errors.read_text()
    assert (ended, listener.text) == (code, "")
    assert words in said and "Traceback" not in said


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """One that was told a secret, for all tests that send to it by themselves."""
    with a_listener(tmp_path_factory.mktemp("strict"), "--secret", TOLD) as listener:
        yield listener


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ({"key": OTHERS}, "wrong"),
        ({"tampered": True}, "wrong"),
        ({"age_s": 301}, "too old or too young"),
        ({"age_s": -310}, "too old or too young"),
    ],
    ids=str,
)
def test_a_signature_that_does_not_hold_is_refused_and_said(
    strict: Listener, wrong: dict[str, Any], verdict: str
) -> None:
    before = len(strict.arrivals)

    status = strict.send(**wrong)
    arrival = eventually(lambda: strict.arrivals[before:], "it is printed")[0]

    assert (status, arrival["status"]) == (401, 401)
    assert (arrival["verified"], arrival["signature"], arrival["order"]) == (False, verdict, "")


def test_a_request_without_a_signature_is_refused_and_said(strict: Listener) -> None:
    before = len(strict.arrivals)

    answer = httpx.post(strict.url, content=b"\x00 not even JSON")
    arrival = eventually(lambda: strict.arrivals[before:], "it is printed")[0]

    assert (answer.status_code, arrival["signature"], arrival["event"]) == (401, "headers missing", None)


def test_repeats_gaps_and_late_ones_are_marked(strict: Listener) -> None:
    before = len(strict.arrivals)
    data = {"data": {"id": f"pay_{token_hex(4)}"}}

    for id, sequence in (("a", 1), ("b", 2), ("a", 1), ("d", 4), ("c", 3)):
        strict.send(id=f"evt_{data['data']['id']}_{id}", sequence=sequence, **data)
    marked = eventually(lambda: len(strict.arrivals) == before + 5 and strict.arrivals[before:], "all are printed")

    assert [arrival["order"] for arrival in marked] == ["in order", "in order", "again", "gap before", "late"]


def test_given_codes_are_answered_one_after_the_other_and_the_last_for_ever(tmp_path: Path) -> None:
    with a_listener(tmp_path, "--secret", TOLD, "--fail", "1", "--status", "503,410,204") as listener:
        answered = [listener.send() for _ in range(6)]

    assert answered == [500, 503, 410, 204, 204, 204]


def test_a_slow_one_is_slow_and_ends_at_once_all_the_same(tmp_path: Path) -> None:
    with a_listener(tmp_path, "--secret", TOLD, "--slow", "0.4") as listener:
        began = time.monotonic()
        status, took_s = listener.send(), time.monotonic() - began
    with a_listener(tmp_path, "--secret", TOLD, "--slow", "60") as sleeper, closing(sleeper.begin()) as pending:
        code = sleeper.end()  # long before the minute is over, or this raises
        answered = pending.getresponse().status

    assert status == 200 and took_s >= 0.4
    assert (code, answered) == (0, 200)


def test_a_person_sees_a_line_each_and_a_sum_at_the_end(tmp_path: Path) -> None:
    with a_listener(tmp_path, "--secret", TOLD, as_json=False) as listener:
        listener.send(id="evt_seen")
        listener.send(id="evt_seen")
        listener.send(key=OTHERS, type="payment.\x1b[31mred")
        code = listener.end()

    assert code == 0
    assert "payment.created" in listener.text and "again" in listener.text and "wrong" in listener.text
    assert "\x1b" not in listener.text  # what arrives does not obey a terminal
    assert "3 requests, 1 events; again: 1, late: 0, gaps: 0, wrong signatures: 1" in listener.text


def test_without_a_secret_it_says_that_it_checks_nothing(tmp_path: Path) -> None:
    with a_listener(tmp_path, as_json=False) as listener:
        listener.send(key=OTHERS)
        listener.end()

    assert "signatures are not checked" in listener.text and "not checked" in listener.text.splitlines()[-2]


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal that was sent has not reached the process yet."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(lines["ShdPnd"], 16) | int(lines["SigPnd"], 16)) >> (number - 1) & 1)


def _unread(listener: str, client: str) -> int | None:
    """Bytes that have come to the listener and that it has not read, by the kernel's table; None: no connection yet."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4] for row in rows if row[1].endswith(listener) and row[2].endswith(client)]
    return int(queues[0].partition(":")[2], 16) if queues else None
