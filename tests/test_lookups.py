"""What a 202 named is found at once by every look-up, once, by its merchant alone; or they say that they cannot."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from engine.domain.ids import partition_of
from engine.gateway.accepted_work import ENTRIES_MAX
from engine.streams import keys
from ops.stack.embedded import EmbeddedRedis
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, a_payment, eventually

pytest_plugins = ["support.bank_fixtures"]

OTHER = {"X-API-Key": "sk_local_other"}
AWKWARD = 'o "1", \\ é \' $.*%'


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    bank_url = f"http://127.0.0.1:{calm_bank.port}"
    with a_gateway(module_database, module_redis_url, bank_url, tmp_path_factory.mktemp("lookups")) as running:
        yield running


@contextmanager
def halted(gateway: Gateway) -> Iterator[None]:
    """The worker does nothing; afterwards it does everything."""
    worker = next(running for running in gateway.processes if running.role == "worker")
    worker.send(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.send(signal.SIGCONT)
    gateway.settled()


def looked_up(gateway: Gateway, path: str, **options: Any) -> httpx.Response:
    return gateway.request("GET", f"/v1/{path}", **options)


def listed(gateway: Gateway, path: str, **options: Any) -> list[dict[str, Any]]:
    answer = looked_up(gateway, path, **options)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def paths(made: dict[str, Any], key: str) -> list[str]:
    """Every list that a payment is in."""
    return [
        f"operations?idempotency_key={key}",
        f"payments?order_id={quote(made['order_id'])}",
        f"payments?customer_id={quote(made['customer_id'])}",
        f"payments?customer_id={quote(made['customer_id'])}&order_id={quote(made['order_id'])}&status=pending",
    ]


def test_what_was_accepted_is_found_before_the_worker_has_seen_it_and_once_afterwards(gateway: Gateway) -> None:
    key, mine = uuid4().hex, uuid4().hex

    with halted(gateway):
        made = gateway.pay(next(fresh_cards), key=key, order_id=AWKWARD + mine, customer_id=f"c-{mine}").json()
        operation = looked_up(gateway, f"operations/{made['operation']['id']}")
        found = [listed(gateway, path) for path in paths(made, key)]
        elsewhere = listed(gateway, f"payments?order_id={quote(AWKWARD + mine)}&customer_id=another")

    assert operation.status_code == 200
    assert {name: operation.json()[name] for name in ("id", "payment_id", "verb", "status", "amount", "attempts")} == {
        "id": made["operation"]["id"],
        "payment_id": made["id"],
        "verb": "authorize",
        "status": "accepted",
        "amount": 5000,
        "attempts": 0,
    }
    assert found == [[operation.json()], [made], [made], [made]]
    assert elsewhere == []
    after = [listed(gateway, path) for path in paths(made, key)]
    assert [[entry["id"] for entry in entries] for entries in after] == [
        [made["operation"]["id"]],
        [made["id"]],
        [made["id"]],
        [],
    ]


def test_what_is_journaled_and_not_yet_acknowledged_is_shown_once(gateway: Gateway) -> None:
    key, mine = uuid4().hex, uuid4().hex
    made = gateway.pay(next(fresh_cards), key=key, wait=20, order_id=mine, customer_id=mine).json()
    with halted(gateway):
        stream = keys.commands(partition_of(made["id"], 16))
        gateway.pay(next(fresh_cards), key=key, order_id=mine, customer_id=mine)  # 422: nothing is added
        entry = copied_entry(gateway, made, key)
        gateway.redis.xadd(stream, entry)
        gateway.redis.hincrby(keys.merchants(partition_of(made["id"], 16)), "mer_local", 1)
        found = [listed(gateway, path) for path in paths(made, key)[:3]]

    assert [[entry["status"] for entry in entries] for entries in found] == [
        ["succeeded"],
        ["authorized"],
        ["authorized"],
    ]


def copied_entry(gateway: Gateway, made: dict[str, Any], key: str) -> dict[bytes, bytes]:
    """An entry like that of a payment that is settled, as its worker had it before it acknowledged it."""
    other = gateway.pay(next(fresh_cards), order_id=made["order_id"], customer_id=made["customer_id"]).json()
    ((_, fields),) = gateway.redis.xrange(keys.commands(partition_of(other["id"], 16)))
    gateway.redis.delete(keys.commands(partition_of(other["id"], 16)))
    gateway.redis.delete(keys.open_operations(partition_of(other["id"], 16), other["id"]))
    renamed = {
        b"operation": made["operation"]["id"].encode(),
        b"payment": made["id"].encode(),
    }
    return {**fields, **renamed}


def test_another_merchant_finds_nothing_of_it(gateway: Gateway) -> None:
    key, mine = uuid4().hex, uuid4().hex

    with halted(gateway):
        made = gateway.pay(next(fresh_cards), key=key, order_id=mine, customer_id=mine).json()
        operation = looked_up(gateway, f"operations/{made['operation']['id']}", headers=OTHER)
        found = [listed(gateway, path, headers=OTHER) for path in paths(made, key)]
        # Also where both have something under the same names, one behind the other.
        partition = partition_of(made["id"], 16)
        theirs = [
            gateway.request(
                "POST",
                "/v1/payments",
                json=a_payment(next(fresh_cards), order_id=mine, customer_id=mine),
                headers={**OTHER, "Idempotency-Key": their_key},
            ).json()["id"]
            for their_key in (key, next(gateway.keys_in(partition, "mer_other")))
        ]
        ours = [[entry["id"] for entry in listed(gateway, path)] for path in paths(made, key)]

    assert operation.status_code == 404
    assert found == [[], [], [], []]
    assert made["id"] not in theirs
    assert ours == [[made["operation"]["id"]], [made["id"]], [made["id"]], [made["id"]]]


def test_names_in_metadata_and_parts_of_names_find_nothing(gateway: Gateway) -> None:
    mine = uuid4().hex

    with halted(gateway):
        gateway.pay(next(fresh_cards), order_id=f"{mine}-1", metadata={"order_id": mine, "customer_id": mine})
        found = [listed(gateway, f"payments?{name}={mine}") for name in ("order_id", "customer_id")]

    assert found == [[], []]


def test_captures_voids_and_refunds_are_found_with_their_amounts(gateway: Gateway) -> None:
    key = uuid4().hex
    made = [gateway.pay(next(fresh_cards), wait=20, amount=amount).json() for amount in (100, 200)]

    with halted(gateway):
        for payment in made:
            assert gateway.post(f"/v1/payments/{payment['id']}/capture", key=key).status_code == 202
        found = listed(gateway, f"operations?idempotency_key={key}")
        one = looked_up(gateway, f"operations/{found[0]['id']}").json()

    assert [(each["verb"], each["amount"], each["status"]) for each in found] == [
        ("capture", 200, "accepted"),
        ("capture", 100, "accepted"),
    ]
    assert one == found[0]


def test_a_look_up_by_key_pages_through_all_newest_first_while_some_of_them_are_being_journaled(
    gateway: Gateway,
) -> None:
    key, count = uuid4().hex, 23
    made = [gateway.pay(next(fresh_cards), amount=100).json()["id"] for _ in range(count)]
    gateway.settled()
    for payment in made[:15]:
        gateway.post(f"/v1/payments/{payment}/capture", key=key, wait=10)

    seen: list[str] = []
    with halted(gateway):
        for payment in made[15:]:
            gateway.post(f"/v1/payments/{payment}/capture", key=key)
        page = looked_up(gateway, f"operations?idempotency_key={key}&limit=5").json()
    while True:
        seen += [operation["payment_id"] for operation in page["data"]]
        if not page["has_more"]:
            break
        assert len(page["data"]) == 5
        page = looked_up(gateway, f"operations?idempotency_key={key}&limit=5&cursor={page['next_cursor']}").json()

    assert seen == made[::-1]
    assert (page["next_cursor"], "as_of" in page) == (None, True)


def test_a_list_of_payments_pages_through_all_newest_first_while_some_of_them_are_being_journaled(
    gateway: Gateway,
) -> None:
    mine, card = uuid4().hex, next(fresh_cards)
    made = [gateway.pay(card, amount=100, customer_id=mine, wait=10).json()["id"] for _ in range(4)]

    seen: list[str] = []
    with halted(gateway):
        made += [gateway.pay(card, amount=100, customer_id=mine).json()["id"] for _ in range(5)]
        page = looked_up(gateway, f"payments?customer_id={mine}&limit=3").json()
        seen += [payment["id"] for payment in page["data"]]
        page = looked_up(gateway, f"payments?customer_id={mine}&limit=3&cursor={page['next_cursor']}").json()
    seen += [payment["id"] for payment in page["data"]]
    page = looked_up(gateway, f"payments?customer_id={mine}&limit=3&cursor={page['next_cursor']}").json()
    seen += [payment["id"] for payment in page["data"]]

    assert (seen, page["has_more"]) == (made[::-1], False)


def test_what_is_journaled_and_acknowledged_between_two_looks_is_found(gateway: Gateway) -> None:
    made = gateway.pay(next(fresh_cards), wait=20).json()["operation"]["id"]
    operation = f"op_0{uuid4().hex[:25].upper()}"  # hexadecimal digits are among those of base 32
    insert = """INSERT INTO operations SELECT (jsonb_populate_record(o, jsonb_build_object(
                  'id', %s::text, 'status', 'rejected', 'key', %s::text))).* FROM operations o WHERE id = %s"""
    looked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '-- Operations by id%%' AND query_start > %s"
    ((now,),) = gateway.sql("SELECT clock_timestamp()")

    with ThreadPoolExecutor(1) as pool:
        gateway.redis.client_pause(800)
        asked = pool.submit(looked_up, gateway, f"operations/{operation}")
        eventually(lambda: gateway.sql(looked, now), "the ledger was asked, and knew nothing")
        gateway.sql(insert, operation, uuid4().hex, made)
        found = asked.result()

    assert (found.status_code, found.json().get("id")) == (200, operation)


def test_a_backlog_of_others_does_not_hide_what_is_ours(gateway: Gateway) -> None:
    mine = uuid4().hex
    with halted(gateway):
        made = gateway.pay(next(fresh_cards), order_id=mine).json()
        partition = partition_of(made["id"], 16)
        with foreign_entries(gateway, partition, ENTRIES_MAX - 1):
            found = listed(gateway, f"payments?order_id={mine}")
        with foreign_entries(gateway, partition, ENTRIES_MAX):
            too_many = [
                looked_up(gateway, path)
                for path in (f"payments?order_id={mine}", f"operations/{made['operation']['id']}")
            ]
            nothing_of_theirs = looked_up(gateway, f"payments?order_id={mine}", headers=OTHER)

    assert [payment["id"] for payment in found] == [made["id"]]
    assert [(answer.status_code, answer.json()["code"]) for answer in too_many] == [(503, "overloaded")] * 2
    assert all("Retry-After" in answer.headers for answer in too_many)
    assert (nothing_of_theirs.status_code, nothing_of_theirs.json()["data"]) == (200, [])


@contextmanager
def foreign_entries(gateway: Gateway, partition: int, count: int) -> Iterator[None]:
    """Newer entries of somebody who has nothing to do with us."""
    stream = keys.commands(partition)
    with gateway.redis.pipeline(transaction=True) as pipeline:
        for _ in range(count):
            pipeline.xadd(stream, {"v": "1", "body": '{"merchant":"mer_flood",'})
        added = pipeline.execute()
    yield
    gateway.redis.xdel(stream, *added)


def test_a_command_that_was_given_up_is_found_among_the_dead_letters(gateway: Gateway) -> None:
    key, mine = uuid4().hex, uuid4().hex
    with halted(gateway):
        made = gateway.pay(next(fresh_cards), key=key, order_id=mine, customer_id=mine).json()
        partition = partition_of(made["id"], 16)
        stream, dead = keys.commands(partition), keys.dead(partition)
        ((entry, fields),) = gateway.redis.xrange(stream)
        letter = {b"cause": b"exception", b"entry": entry, **{b"was." + name: value for name, value in fields.items()}}
        gateway.redis.xadd(dead, letter)
        gateway.redis.xdel(stream, entry)
        gateway.redis.delete(keys.merchants(partition))
        operation = looked_up(gateway, f"operations/{made['operation']['id']}")
        found = [listed(gateway, path) for path in paths(made, key)]
        gateway.redis.delete(dead)

    assert (operation.status_code, operation.json()["status"]) == (200, "review")
    assert [[entry["id"] for entry in entries] for entries in found] == [
        [made["operation"]["id"]],
        [made["id"]],
        [made["id"]],
        [made["id"]],
    ]
    assert found[1][0]["operation"]["status"] == "review"


def test_with_redis_away_only_what_the_ledger_has_for_sure_is_told(
    database: str, store_folder: Any, calm_bank: Bank, tmp_path: Any
) -> None:
    redis = EmbeddedRedis(store_folder / f"lookups-{uuid4().hex}")
    try:
        with a_gateway(database, redis.start(), f"http://127.0.0.1:{calm_bank.port}", tmp_path) as gateway:
            key, mine = uuid4().hex, uuid4().hex
            made = gateway.pay(next(fresh_cards), key=key, wait=20, order_id=mine, customer_id=mine).json()
            redis.kill()
            known = looked_up(gateway, f"operations/{made['operation']['id']}")
            unknown = [looked_up(gateway, path) for path in ("operations/op_" + "0" * 26, *paths(made, key))]
            unknown += [
                looked_up(gateway, f"payments/pay_{'0' * 26}{tail}") for tail in ("", "/timeline", "/shippable")
            ]
            captured = looked_up(gateway, f"payments?order_id={mine}&status=captured")
    finally:
        redis.kill()

    assert known.json()["status"] == "succeeded"
    assert {(answer.status_code, answer.json().get("code")) for answer in unknown} == {(503, "store_unavailable")}
    assert (captured.status_code, captured.json()["data"]) == (200, [])


def test_what_never_was_is_not_found(gateway: Gateway) -> None:
    assert looked_up(gateway, "operations/op_" + "0" * 26).status_code == 404
    for path in (f"operations?idempotency_key={uuid4().hex}", f"payments?order_id={uuid4().hex}"):
        answer = looked_up(gateway, path).json()
        assert (answer["data"], answer["has_more"]) == ([], False)
        assert answer["as_of"].endswith("Z")


def test_a_cursor_of_another_list_is_refused(gateway: Gateway) -> None:
    eventually(lambda: gateway.backlog() == 0, "nothing waits")
    for cursor in ("x", "MXxvcF8x", "MXwyfDM"):
        answer = looked_up(gateway, f"operations?idempotency_key=k&cursor={cursor}")
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
