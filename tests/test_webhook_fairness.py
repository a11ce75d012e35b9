"""One merchant's slow endpoints, or silent names, never hold up another merchant's webhooks."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from engine.domain.ids import payment_id
from engine.webhooks.resolver import SystemResolver, on_behalf_of
from support.gateway import eventually
from support.webhook_stand import Ledger, a_shop, dispatchers, silent_port

ORIGINS = 300
PLACES = 40
PATIENT = {  # nothing ends by itself while the test looks
    "PENSTOCK_WEBHOOK_TIMEOUT_MS": "50000",
    "PENSTOCK_WEBHOOK_LEASE_MS": "60000",
    "PENSTOCK_WEBHOOK_CONNECTIONS": str(PLACES),
}
THREADS = 8


def test_a_second_merchants_webhook_goes_out_while_the_first_has_hundreds_of_slow_origins(
    database: str, tmp_path: Any
) -> None:
    ledger = Ledger(dsn=database)
    with ExitStack() as dead, a_shop() as shop:
        ports = [dead.enter_context(silent_port()).getsockname()[1] for _ in range(ORIGINS)]
        payments = slow(ledger, ports)
        with dispatchers(database, "redis://127.0.0.1:9", tmp_path, **PATIENT):
            eventually(lambda: under_way(ledger) >= PLACES // 2, "the first merchant's are under way", 30)
            modest = ledger.register(shop.url("/modest"), merchant="mer_local")

            payment = ledger.happen("payment.created", merchant="mer_local")
            eventually(lambda: ledger.delivery(payment, modest)["state"] == "delivered", "the second's arrives", 40)

            ended = ledger.sql("SELECT count(*) FROM delivery_attempts WHERE payment = ANY(%s)", payments)
            assert ended == [(0,)], "it waited for none of the first merchant's attempts"
            assert under_way(ledger) == PLACES // 2


def slow(ledger: Ledger, ports: list[int]) -> list[str]:
    """Payments of the other merchant, each with an event for an origin of its own that never answers."""
    payments = [payment_id("tests", "mer_other", f"slow-{port}") for port in ports]
    with psycopg.connect(ledger.dsn) as connection:
        connection.execute(
            """INSERT INTO payments (id, partition, merchant, amount, currency, order_id, customer_id, metadata, method,
                   connector, webhook_url, state, version, sequence, amount_captured, amount_refunded, created_at,
                   operation_id, journal_head, write_id)
               SELECT p.id, 0, 'mer_other', 1, 'USD', 'o', 'c', '{}', '{}', 'instant', p.url, 'pending', 1, 1, 0, 0,
                   now(), 'op', '', ''
               FROM unnest(%s::text[], %s::text[]) AS p (id, url)""",
            [payments, [f"http://127.0.0.1:{port}/hook" for port in ports]],
        )
        for payment in payments:
            ledger.happen("payment.created", payment=payment, merchant="mer_other", connection=connection)
    return payments


def under_way(ledger: Ledger) -> int:
    return int(ledger.sql("SELECT count(*) FROM deliveries WHERE state = 'sending'")[0][0])


class Names:
    """Name servers: those of `silent` names say nothing until they are let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def look_up(self, host: str, port: int, *_: object) -> list[Any]:
        self.asked.append(host)
        if host.startswith("silent"):
            assert self.let_go.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]


def test_a_name_is_looked_up_while_another_merchants_names_are_silent() -> None:
    names = Names()

    async def wanted(merchant: str, host: str) -> None:
        on_behalf_of(merchant)
        await resolver.resolve(host, 443)

    async def scene() -> None:
        nonlocal resolver
        resolver = SystemResolver(lookups_max=THREADS, getaddrinfo=names.look_up)
        greedy = [asyncio.create_task(wanted("greedy", f"silent-{number}")) for number in range(100)]
        await asyncio.to_thread(eventually, lambda: len(names.asked) == THREADS // 2, "they take what they may")
        async with asyncio.timeout(30):
            await asyncio.gather(*(wanted("modest", f"shop-{number}") for number in range(20)))
        assert names.asked[: THREADS // 2] == [f"silent-{number}" for number in range(THREADS // 2)]
        assert sum(name.startswith("silent") for name in names.asked) == THREADS // 2
        names.let_go.set()
        await asyncio.gather(*greedy)
        await resolver.close()

    resolver: SystemResolver
    asyncio.run(scene())
    assert len(names.asked) == 120


@pytest.mark.parametrize("gone", [0, 1, 5])
def test_a_thread_that_nobody_waits_for_any_more_is_given_to_the_next_only_when_it_is_free(gone: int) -> None:
    names = Names()

    async def scene() -> list[str]:
        resolver = SystemResolver(lookups_max=2, getaddrinfo=names.look_up)
        tasks = [asyncio.create_task(resolver.resolve(f"silent-{number}")) for number in range(gone + 2)]
        await asyncio.to_thread(eventually, lambda: names.asked, "the thread is taken")
        for task in tasks[: gone + 1]:  # the one that holds the thread, and some in line
            task.cancel()
        await asyncio.gather(*tasks[: gone + 1], return_exceptions=True)
        await asyncio.sleep(0.05)
        before = list(names.asked)
        names.let_go.set()
        async with asyncio.timeout(30):
            await tasks[-1]
        await resolver.close()
        return before

    assert asyncio.run(scene()) == ["silent-0"]
    assert names.asked == ["silent-0", f"silent-{gone + 1}"]
