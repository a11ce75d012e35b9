"""A slow read fails alone, a lost one shows nothing old, and lists stay on their index however long they grow."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from engine.ledger.statement import statement
from ops.stack.embedded import EmbeddedPostgres
from support.gateway import Gateway
from support.lossy_wire import LossyWire, a_lossy_wire

CARD = "4111111111111111"


@pytest.fixture(scope="module")
def wire(postgres: EmbeddedPostgres) -> Iterator[LossyWire]:
    with a_lossy_wire(postgres.port) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, wire: LossyWire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Its edge reaches Postgres through the wire."""
    folder = tmp_path_factory.mktemp("reads")
    through = urlsplit(module_database)
    wired = through._replace(netloc=through.netloc.replace(f":{through.port}", f":{wire.port}")).geturl()
    running = Gateway(
        database=module_database, redis_url=module_redis_url, bank_url="http://127.0.0.1:1", folder=folder
    )
    running.environ["PENSTOCK_CONNECTOR"] = "instant"
    try:
        running.start("edge", PENSTOCK_DATABASE_URL=wired)
        yield running
    finally:
        running.close()


def test_a_list_that_takes_too_long_fails_alone(gateway: Gateway) -> None:
    worker = gateway.start("worker")
    first = gateway.pay(CARD, key="answered", wait=10)
    worker.end()

    def listed(_: int) -> int:
        return gateway.request("GET", "/v1/payments?order_id=order-1").status_code

    with psycopg.connect(gateway.database) as migration, ThreadPoolExecutor(8) as pool:
        migration.execute("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE")
        lists = [pool.submit(listed, number) for number in range(8)]
        replays = []
        while not all(found.done() for found in lists):
            gateway.redis.flushall()  # so that only the ledger knows the answer
            replays.append(gateway.pay(CARD, key="answered"))

    assert {found.result() for found in lists} == {503}
    assert len(replays) > 2
    assert {(replay.status_code, replay.content) for replay in replays} == {(201, first.content)}


def test_a_payment_whose_second_look_up_is_lost_is_not_shown_as_it_was(gateway: Gateway, wire: LossyWire) -> None:
    worker = gateway.start("worker")
    payment = gateway.pay(CARD, wait=10).json()["id"]
    worker.end()
    operation = gateway.post(f"/v1/payments/{payment}/capture").json()["operation"]["id"]

    wire.lose(operation.encode())
    lost = gateway.request("GET", f"/v1/payments/{payment}")
    broken = wire.lost.is_set()

    assert broken
    assert (lost.status_code, lost.json()["code"], lost.headers["retry-after"]) == (503, "store_unavailable", "1")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("receipts_of_order", "payments_by_order"),
        ("receipts_of_customer", "payments_by_customer"),
        ("receipts_of_merchant", "payments_by_time"),
    ],
)
def test_a_list_walks_its_index_also_by_a_plan_made_for_anything(
    name: str, index: str, module_database: str, many_payments: None
) -> None:
    wanted = ("merchant", "order_id", "customer_id", "status", "before_at", "before_id", "limit")
    with psycopg.connect(module_database) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        query = f"EXPLAIN {statement(name).decode()}"
        for parameter in wanted:
            query = query.replace(f"%({parameter})s", f"${wanted.index(parameter) + 1}")
        types = "text, text, text, text, timestamptz, text, int"
        connection.execute(f"PREPARE page ({types}) AS {query.removeprefix('EXPLAIN ')}")  # type: ignore[arg-type]
        values = "'m', 'order-7', 'customer-7', NULL, NULL, NULL, 11"
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE page ({values})"))  # type: ignore[arg-type]

    assert f"Index Scan Backward using {index} on payments" in plan
    assert "Seq Scan" not in plan
    assert "created_at" in plan.split("Index Cond:")[1].split("\n")[0], "the position is looked up, not counted to"


@pytest.fixture(scope="module")
def many_payments(module_database: str) -> None:
    """Receipts of one merchant, fifty for an order and for a customer, each with its operation."""
    with psycopg.connect(module_database, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO payments (id, partition, merchant, amount, currency, order_id, customer_id, metadata, method,
                   connector, state, version, sequence, amount_captured, amount_refunded, created_at, operation_id,
                   journal_head, write_id)
               SELECT 'pay_' || n, n % 16, 'm', 5000, 'USD', 'order-' || n % 400, 'customer-' || n % 400, '{}', '{}',
                   'instant', 'pending', 1, 1, 0, 0, now() - n * interval '1 minute', 'op_' || n, '', ''
               FROM generate_series(1, 20000) AS n"""
        )
        connection.execute(
            """INSERT INTO operations (id, payment, merchant, partition, verb, key, sale, amount, fingerprint,
                   accept_order, status, attempts, request_id, created_at, settled_at)
               SELECT 'op_' || n, 'pay_' || n, 'm', n % 16, 'authorize', 'key-' || n, false, 5000, '{}', n,
                   'succeeded', 1, '', now(), now()
               FROM generate_series(1, 20000) AS n"""
        )
        connection.execute("ANALYZE payments, operations")
