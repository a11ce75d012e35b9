"""The mock bank's idempotency: what it promises, and above all what it does not."""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from bank.simulator.instant import NS_PER_HOUR
from bank.simulator.key_sweeper import KeySweeper
from bank.simulator.lanes import ConnectionWorkers
from support.bank_harness import Bank, a_bank, a_card_request

pytest_plugins = ["support.bank_fixtures"]


def test_a_repeated_key_gets_the_first_answer_byte_for_byte_whatever_its_body(bank: Bank) -> None:
    key = uuid4().hex
    first = bank.authorize(key)

    again, other = bank.authorize(key), bank.post("authorizations", b"no json", key)

    assert again.content == other.content == first.content
    for replay in (again, other):
        assert (replay.status_code, replay.headers["content-type"]) == (200, "application/json")
        assert replay.headers["x-idempotent-replayed"] == "true"


def test_a_key_is_scoped_to_its_path(bank: Bank) -> None:
    key = uuid4().hex
    auth = bank.authorize(key).json()["authorization_id"]

    capture = bank.post("captures", {"authorization_id": auth, "amount": 5000}, key)
    refund = bank.post("refunds", {"capture_id": capture.json()["capture_id"], "amount": 5000}, key)

    assert (capture.status_code, refund.status_code) == (200, 200)
    assert not {"x-idempotent-replayed"} & {*capture.headers, *refund.headers}


def test_a_decline_does_not_stick(bank: Bank) -> None:
    key, card = uuid4().hex, a_card_request()["card_number"]
    bank.sql("UPDATE accounts SET available_balance_cents = 0 WHERE account_number = %s", card)
    declined = bank.authorize(key, card_number=card)

    bank.sql("UPDATE accounts SET available_balance_cents = 5000 WHERE account_number = %s", card)

    assert (declined.status_code, bank.authorize(key, card_number=card).status_code) == (402, 200)


def test_a_kept_first_key_is_replayed_even_if_the_header_came_twice(bank: Bank) -> None:
    key = uuid4().hex
    first = bank.authorize(key)

    again = bank.http.post("/api/v1/authorizations", headers=[("Idempotency-Key", key), ("Idempotency-Key", "b")])

    assert again.content == first.content


def test_a_key_is_taken_verbatim(bank: Bank) -> None:
    key = f"a, b; {uuid4()} = ü".encode()
    request = ("POST", "/api/v1/authorizations")

    answers = [bank.http.request(*request, json=a_card_request(), headers={b"Idempotency-Key": key}) for _ in range(2)]

    assert answers[0].content == answers[1].content
    assert bank.sql("SELECT count(*) FROM idempotency_keys WHERE key = %s", key.decode()) == [(1,)]


@pytest.mark.parametrize("key", [b"x" * 256, b"\xff\xfe not text"])
def test_a_key_that_cannot_be_kept_is_executed_every_time(bank: Bank, key: bytes) -> None:
    headers = {b"Idempotency-Key": key}

    answers = [bank.http.post("/api/v1/authorizations", json=a_card_request(), headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content != answers[1].content


def test_the_longest_key_is_kept(bank: Bank) -> None:
    key = uuid4().hex.ljust(255, "x")

    assert bank.authorize(key).content == bank.authorize(key).content


def test_a_replay_skips_the_chaos(bank: Bank) -> None:
    key = uuid4().hex
    bank.authorize(key)
    bank.http.put("/control/chaos", json={"failure_rate": 1, "min_latency_ms": 60_000, "max_latency_ms": 60_000})
    try:
        assert bank.authorize(key).status_code == 200
    finally:
        bank.http.put("/control/chaos", json={"failure_rate": 0, "min_latency_ms": 0, "max_latency_ms": 0})


@pytest.mark.parametrize("round_", range(20))
def test_the_same_key_twice_at_once_places_two_holds_and_keeps_one_answer(bank: Bank, round_: int) -> None:
    key, request = uuid4().hex, a_card_request()
    bank.fault("latency", latency_ms=30, card_number=request["card_number"])

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: bank.post("authorizations", request, key), range(2))

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["authorization_id"] != second.json()["authorization_id"]
    assert bank.post("authorizations", request, key).content in (first.content, second.content)


def test_the_same_key_twice_at_once_refuses_the_second_capture_and_refund(bank: Bank) -> None:
    auth = bank.authorized()

    def twice(noun: str, body: dict[str, object]) -> list[tuple[int, str | None]]:
        key = uuid4().hex
        bank.fault("latency", latency_ms=30, times=2)
        with ThreadPoolExecutor(2) as threads:
            answers = threads.map(lambda _: bank.post(noun, body, key), range(2))
        return sorted((answer.status_code, answer.json().get("error")) for answer in answers)

    captures = twice("captures", {"authorization_id": auth, "amount": 5000})
    [(capture,)] = bank.sql("SELECT id FROM transactions WHERE reference_id = %s", auth[5:])
    refunds = twice("refunds", {"capture_id": f"cap_{capture}", "amount": 5000})

    assert captures == [(200, None), (400, "authorization_already_used")]
    assert refunds == [(200, None), (400, "already_refunded")]


def test_an_abandoned_attempt_still_takes_effect(bank: Bank) -> None:
    request = a_card_request()
    bank.fault("latency", latency_ms=100, times=1)
    start = bank.balances(request["card_number"])[1]
    body = str(request).replace("'", '"')

    with socket.create_connection(("127.0.0.1", bank.port)) as connection:
        head = f"POST /api/v1/authorizations HTTP/1.1\r\nHost: bank\r\nIdempotency-Key: {uuid4()}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    deadline_s = time.monotonic() + 5
    while bank.balances(request["card_number"])[1] == start and time.monotonic() < deadline_s:
        pass
    assert bank.balances(request["card_number"])[1] == start - 5000


def test_a_look_up_or_a_store_that_fails_executes_without_keeping(bank_postgres: str) -> None:
    with a_bank(bank_postgres, "keyless") as bank:
        key = uuid4().hex
        bank.sql("ALTER TABLE idempotency_keys RENAME TO gone")
        looked_up_in_vain = [bank.authorize(key), bank.authorize(key)]
        bank.sql("ALTER TABLE gone RENAME TO idempotency_keys")
        bank.sql("ALTER TABLE idempotency_keys ADD CONSTRAINT broken CHECK (key = '')")
        stored_in_vain = [bank.authorize(key), bank.authorize(key)]

    assert [answer.status_code for answer in looked_up_in_vain + stored_in_vain] == [200] * 4
    assert len({answer.content for answer in looked_up_in_vain + stored_in_vain}) == 4


def test_keys_older_than_a_day_are_forgotten_by_the_sweep_and_not_before(bank: Bank) -> None:
    old, young = uuid4().hex, uuid4().hex
    for key, age in ((old, "24 hours 1 minute"), (young, "23 hours 59 minutes")):
        bank.authorize(key)
        bank.sql("UPDATE idempotency_keys SET created_at = now() - %s::interval WHERE key = %s", age, key)
    assert "x-idempotent-replayed" in bank.authorize(old).headers

    async def sweep() -> None:
        lanes = ConnectionWorkers(bank.dsn, count=1, lifetime_s=60)
        running = asyncio.create_task(lanes.run())
        await KeySweeper(lanes, clock_ns=time.time_ns).run_once()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(sweep())
    assert 24 * NS_PER_HOUR == 86_400 * 10**9
    assert "x-idempotent-replayed" not in bank.authorize(old).headers
    assert "x-idempotent-replayed" in bank.authorize(young).headers
