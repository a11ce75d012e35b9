"""One trial of the webhook bench: events at a steady rate into the ledger, and when each came out at its endpoint.

Events are written as the payment path writes them, by commits of a few dozen, but without payments: these would take
the machine that is to be measured. Two trials of one stack tell what a dead endpoint does to the others.
"""

from __future__ import annotations

import math
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from engine.domain.ids import endpoint_id, event_id, payment_id
from ops.bench import usage
from ops.bench.load import percentiles
from ops.stack.ephemeral_stack import EphemeralAddresses
from ops.statement import statement

_TICK_S = 0.02  # between commits: what a worker's group commit comes to under load
_DRAIN_PATIENCE_S = 60.0
_LOOK_S = 0.2
_PAYLOAD = orjson.dumps({"note": "x" * 900}).decode()  # a payment object has about a thousand characters

Progress = Callable[[float, str], None]  # share done, what is going on


@dataclass(frozen=True, slots=True, kw_only=True)
class HookLoad:
    """Events for `endpoints` that live, at `rate_per_s` in all; with `dead`, one more gets its share on top."""

    rate_per_s: float
    seconds: float
    warmup_s: float
    endpoints: int
    dead: bool
    ordered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTrial:
    """What the living endpoints got of the events that count.

    Latencies in ms, from the moment each event was due. `delivered_per_s`: between the first arrival and the last.
    """

    load: HookLoad
    events: int
    delivered: int
    delivered_per_s: float
    repeated: int
    latency_ms: dict[str, float]
    worst_endpoint_p99_ms: float
    drain_s: float
    cpu_s_per_1000: dict[str, float]
    dead_attempts: int
    dead_waiting: int


def run_hook_trial(load: HookLoad, stack: EphemeralAddresses, tell: Progress) -> HookTrial:
    """Offer this load to the stack's dispatchers. Events are of merchants of this trial alone."""
    run = secrets.token_hex(4)
    with (
        _sink() as sink,
        closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as silent,
        psycopg.connect(stack.database, autocommit=True) as ledger,
    ):
        url = f"http://127.0.0.1:{_first_line(sink)}"
        merchants = [f"mer_{run}_{number}" for number in range(load.endpoints)]
        for number, merchant in enumerate(merchants):
            _register(ledger, merchant, f"{url}/{number}", load.ordered)
        dead = f"mer_{run}_dead"
        # It takes connections and never answers: the worst that an endpoint can do to a dispatcher.
        dead_endpoint = _register(ledger, dead, f"http://127.0.0.1:{silent.getsockname()[1]}/", load.ordered)
        before: dict[str, float] = {}
        began = time.time()
        # Half way between two events, so that rounding puts none on the other side.
        first = math.ceil(load.warmup_s * load.rate_per_s)
        counts_from = began + (first - 0.5) / load.rate_per_s
        events = _Events(merchants, dead if load.dead else None, load.rate_per_s, began)
        while (elapsed_s := time.time() - began) < load.warmup_s + load.seconds:
            if not before and elapsed_s >= load.warmup_s:
                before = _cpu_s(stack)
            _write(ledger, events.due_by(time.time()))
            tell(elapsed_s / (load.warmup_s + load.seconds), f"{events.written} events")
            time.sleep(_TICK_S)
        drain_s = _drain(ledger, dead_endpoint, tell)
        attempts, waiting = _row(ledger, "bench_dead", dead_endpoint)
        spent = _cpu_s(stack)
        figures = _figures(sink)
    counted = [[(due, latency) for due, latency in came if due >= counts_from] for came in figures["came"].values()]
    latencies = [latency * 1000 for came in counted for _, latency in came]
    ends = sorted(due + latency for came in counted for due, latency in came)
    cost = usage.per_thousand(before, spent, len(latencies))
    cost["receiver"] = round(figures["cpu_s"] * 1000 / max(1, events.written), 4)
    return HookTrial(
        load=load,
        events=events.written - first,
        delivered=len(latencies),
        delivered_per_s=round((len(ends) - 1) / max(0.001, ends[-1] - ends[0]), 1) if ends else 0.0,
        repeated=figures["repeated"],
        latency_ms=percentiles(latencies),
        worst_endpoint_p99_ms=max(
            (percentiles([latency * 1000 for _, latency in came])["p99"] for came in counted if came), default=0.0
        ),
        drain_s=drain_s,
        cpu_s_per_1000=cost,
        dead_attempts=attempts,
        dead_waiting=waiting,
    )


class _Events:
    """Events that are due by the clock, one merchant after the other, two to a payment."""

    def __init__(self, merchants: list[str], dead: str | None, rate_per_s: float, began: float) -> None:
        self._merchants = merchants
        self._dead = dead
        self._rate_per_s, self._began = rate_per_s, began
        self.written = 0

    def due_by(self, now: float) -> list[dict[str, object]]:
        due: list[dict[str, object]] = []
        while (at := self._began + self.written / self._rate_per_s) <= now:
            number, merchant = divmod(self.written, len(self._merchants))
            due.append(self._event(self._merchants[merchant], number, at))
            if self._dead is not None and merchant == 0:
                due.append(self._event(self._dead, number, at))
            self.written += 1
        return due

    def _event(self, merchant: str, number: int, at: float) -> dict[str, object]:
        payment = payment_id("bench", merchant, str(number // 2))
        sequence = number % 2 + 1
        kind = "payment.created" if sequence == 1 else "payment.authorized"
        return {
            "event_id": event_id(payment, sequence),
            "payment": payment,
            "sequence": sequence,
            "merchant": merchant,
            "type": kind,
            "payload": f'{{"type":"{kind}","data":{_PAYLOAD},"due":{at:.6f},"sequence":{sequence}}}',
        }


def _register(ledger: psycopg.Connection, merchant: str, url: str, ordered: bool) -> str:
    endpoint = endpoint_id(secrets.token_bytes(16))
    ledger.execute(statement("bench_merchant"), {"id": merchant})
    ledger.execute(statement("bench_endpoint"), {"id": endpoint, "merchant": merchant, "url": url, "ordered": ordered})
    return endpoint


def _write(ledger: psycopg.Connection, events: list[dict[str, object]]) -> None:
    if events:
        ledger.execute(statement("bench_events"), {"events": orjson.dumps(events).decode()})


def _drain(ledger: psycopg.Connection, dead: str, tell: Progress) -> float:
    began = time.monotonic()
    while time.monotonic() - began < _DRAIN_PATIENCE_S:
        (left,) = _row(ledger, "bench_undelivered", dead)
        if not left:
            break
        tell(1.0, "draining")
        time.sleep(_LOOK_S)
    return round(time.monotonic() - began, 2)


def _row(ledger: psycopg.Connection, name: str, dead: str) -> tuple[int, ...]:
    row = ledger.execute(statement(name), {"dead": dead}).fetchone()
    return tuple(row or ())


def _cpu_s(stack: EphemeralAddresses) -> dict[str, float]:
    name = psycopg.conninfo.conninfo_to_dict(stack.bank_database).get("dbname")
    return usage.cpu_s(stack.processes, str(name))


@contextmanager
def _sink() -> Iterator[subprocess.Popen[bytes]]:
    sink = subprocess.Popen(
        [sys.executable, "-m", "ops.bench.webhook_sink"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield sink
    finally:
        sink.kill()
        sink.wait()


def _first_line(sink: subprocess.Popen[bytes]) -> int:
    if sink.stdout is None:
        raise RuntimeError("the sink has no pipes")
    return int(sink.stdout.readline())


def _figures(sink: subprocess.Popen[bytes]) -> dict[str, Any]:
    if sink.stdin is None or sink.stdout is None:
        raise RuntimeError("the sink has no pipes")
    sink.stdin.close()
    return dict(orjson.loads(sink.stdout.readline()))
