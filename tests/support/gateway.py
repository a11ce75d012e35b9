"""A real gateway for the tests: edges and workers as processes over real Redis, Postgres and a real bank."""

from __future__ import annotations

import base64
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
import redis

from engine.domain.ids import partition_of, payment_id
from ops.stack.address import any_free_port
from support.nursery import NURSERY, Child

MASTER_KEY = base64.b64encode(b"m" * 32).decode()
FINGERPRINT_KEY = base64.b64encode(b"f" * 32).decode()
# Short, so that a take-over takes a second and an unanswered attempt two.
HASTE = {
    "PENSTOCK_LEASE_MS": "1000",
    "PENSTOCK_ATTEMPT_TIMEOUT_MS": "1500",
    "PENSTOCK_SEND_WINDOW_MS": "500",
    "PENSTOCK_RETRY_BASE_MS": "20",
    "PENSTOCK_RETRY_CAP_MS": "100",
    "PENSTOCK_PARK_BASE_MS": "200",
    "PENSTOCK_PARK_CAP_MS": "500",
    "PENSTOCK_SWEEP_MS": "100",
    "PENSTOCK_BREAKER_REST_MS": "200",
    "PENSTOCK_BREAKER_REST_CAP_MS": "500",
    "PENSTOCK_DRAIN_MS": "5000",
    "PENSTOCK_EDGE_LINGER_S": "0",  # nobody has to hear of the end
    "PENSTOCK_EXPIRY_NOTICE_S": "0",  # holds of seconds would all be about to expire
}


@dataclass(kw_only=True)
class Running:
    """One process of the gateway."""

    role: str
    process: Child
    port: int
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> bool:
        """Dead or stopped."""
        return self.process.poll() is not None or psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def end(self, timeout_s: float = 20) -> int:
        """Stop in good order; its exit code."""
        with suppress(ProcessLookupError):
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def died(self, timeout_s: float = 15) -> int:
        """Wait for the process to end by itself."""
        return self.process.wait(timeout_s)


@dataclass(kw_only=True)
class Gateway:
    """Starts processes and speaks to the first edge as the local merchant."""

    database: str
    redis_url: str
    bank_url: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    processes: list[Running] = field(default_factory=list)
    # One client: making one takes longer than a payment. No kept connections: an edge may be another one by then.
    http: httpx.Client = field(
        default_factory=lambda: httpx.Client(timeout=40, limits=httpx.Limits(max_keepalive_connections=0))
    )

    @property
    def edge(self) -> str:
        edges = [running for running in self.processes if running.role == "edge" and running.process.poll() is None]
        return f"http://127.0.0.1:{edges[0].port}"

    @property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def start(self, role: str, **environ: str) -> Running:
        """Start an edge or a worker and wait until it is ready."""
        running = self.launch(role, **environ)
        self.wait_for(running)
        return running

    def wait_for(self, *launched: Running) -> None:
        for running in launched:
            eventually(lambda running=running: _ready(running), f"{running.role} is ready", 30)

    def launch(self, role: str, **environ: str) -> Running:
        """Start an edge or a worker, which may die at once; several that start together are ready sooner."""
        port = any_free_port()
        number = len(self.processes)
        variables = {
            "PENSTOCK_DATABASE_URL": self.database,
            "PENSTOCK_REDIS_URL": self.redis_url,
            "PENSTOCK_BANK_URL": self.bank_url,
            "PENSTOCK_MASTER_KEY": MASTER_KEY,
            "PENSTOCK_FINGERPRINT_KEY": FINGERPRINT_KEY,
            f"PENSTOCK_{role.upper()}_PORT": str(port),
            **({"PENSTOCK_WORKER_NAME": f"worker-{number}"} if role == "worker" else {}),
            **HASTE,
            **self.environ,
            **environ,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        log = self.folder / f"{role}-{number}.log"
        process = NURSERY.start(role, {**inherited, **variables}, log)
        running = Running(role=role, process=process, port=port, log=log)
        self.processes.append(running)
        return running

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-API-Key": "sk_local_merchant", **options.pop("headers", {})}
        return self.http.request(method, self.edge + path, headers=headers, **options)

    def pay(self, card: str, *, key: str | None = None, wait: int = 0, **changes: Any) -> httpx.Response:
        return self.post("/v1/payments", a_payment(card, **changes), key=key, wait=wait)

    def post(self, path: str, body: Any = None, *, key: str | None = None, wait: int = 0) -> httpx.Response:
        headers = {"Idempotency-Key": key or uuid4().hex, **({"Prefer": f"wait={wait}"} if wait else {})}
        return self.request("POST", path, json=body, headers=headers)

    def get(self, payment: str) -> dict[str, Any]:
        return dict(self.request("GET", f"/v1/payments/{payment}").json())

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def keys_in(self, partition: int, merchant: str = "mer_local") -> Iterator[str]:
        """Idempotency keys whose payments fall into a partition."""
        ((installation,),) = self.sql("SELECT id FROM installation")
        return (
            key
            for key in (uuid4().hex for _ in count())
            if partition_of(payment_id(installation, merchant, key), 16) == partition
        )

    def owned(self) -> dict[int, list[int]]:
        """The partitions of each living worker that says it is ready, by its pid."""
        owned: dict[int, list[int]] = {}
        for running in self.processes:
            if running.role == "worker" and not running.out:
                with suppress(httpx.HTTPError):
                    owned[running.pid] = self.http.get(f"http://127.0.0.1:{running.port}/readyz").json()["partitions"]
        return owned

    def shared(self, workers: int) -> dict[int, list[int]]:
        """Wait until so many workers share all partitions, each once."""

        def settled() -> dict[int, list[int]] | None:
            owned = self.owned()
            everyone = len(owned) == workers and all(owned.values())
            return owned if everyone and sorted(chain(*owned.values())) == list(range(16)) else None

        return dict(eventually(settled, f"{workers} workers share all partitions", 30))

    def unsettled(self) -> int:
        return int(self.sql("SELECT count(*) FROM operations WHERE settled_at IS NULL")[0][0])

    def backlog(self) -> int:
        return sum(int(self.redis.xlen(f"penstock:{{p{partition}}}:commands")) for partition in range(16))  # type: ignore[arg-type]

    def dead(self) -> list[dict[bytes, bytes]]:
        """The dead letters of all partitions."""
        streams = [self.redis.xrange(f"penstock:{{p{partition}}}:dead") for partition in range(16)]
        return [fields for stream in streams for _, fields in stream]  # type: ignore[union-attr]

    def settled(self, within_s: float = 30) -> None:
        """Wait until nothing is open anywhere."""
        eventually(lambda: self.backlog() == 0 and self.unsettled() == 0, "everything is settled", within_s)

    def close(self) -> None:
        """Nothing that was started stays, and nothing that it started."""
        for running in self.processes:
            if running.process.poll() is None:
                below: list[psutil.Process] = []
                with suppress(psutil.NoSuchProcess):
                    below = psutil.Process(running.pid).children(recursive=True)
                running.process.kill()
                running.process.wait(10)
                for child in below:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
                psutil.wait_procs(below, timeout=10)
        self.http.close()

    def logs(self) -> str:
        return "\n".join(f"--- {running.log.name}\n{running.log.read_text()[-4000:]}" for running in self.processes)


@contextmanager
def a_gateway(
    database: str, redis_url: str, bank_url: str, folder: Path, *, workers: int = 1, **environ: str
) -> Iterator[Gateway]:
    """A gateway with one edge and some workers; everything it started is gone afterwards."""
    gateway = Gateway(database=database, redis_url=redis_url, bank_url=bank_url, folder=folder, environ=environ)
    try:
        gateway.start("edge")
        for _ in range(workers):
            gateway.start("worker")
        yield gateway
    finally:
        gateway.close()


def a_payment(card: str, **changes: Any) -> dict[str, Any]:
    """The body of a payment that the bank approves, with changes."""
    method = {"type": "card", "number": card, "cvv": "123", "expiry_month": 12, "expiry_year": 2030}
    usual = {"amount": 5000, "currency": "USD", "order_id": "order-1", "customer_id": "customer-1"}
    return {**usual, "payment_method": method, **changes}


def eventually(check: Callable[[], Any], claim: str, within_s: float = 10.0) -> Any:
    """The check's first true result. Fails the test when there is none in time."""
    until = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s} s: {claim}")
        time.sleep(0.02)


def _ready(running: Running) -> bool:
    if running.process.poll() is not None:
        raise AssertionError(f"{running.role} ended at once:\n{running.log.read_text()[-3000:]}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
