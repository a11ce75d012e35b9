"""What somebody wrote by hand, into Redis or into the ledger, is a dead letter or a named breach; all else flows on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import orjson
import pytest

from engine.domain.ids import operation_id, partition_of, payment_id
from engine.domain.payment import Verb
from engine.streams import keys
from engine.streams.encoding import ENTRY_BYTES_MAX
from support.gateway import Gateway, Running, a_gateway, eventually

CARD = "4111111111111111"
OPERATOR = {"X-API-Key": "ok_local_operator"}


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its bank approves all."""
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(
        module_database, module_redis_url, "http://127.0.0.1:1", folder, PENSTOCK_CONNECTOR="instant"
    ) as running:
        yield running


@pytest.fixture
def flowing(gateway: Gateway) -> Iterator[Gateway]:
    """No dead letters before; afterwards the worker lives on, and a payment in each partition goes through."""
    gateway.redis.delete(*(keys.dead(partition) for partition in range(16)))
    yield gateway
    ((installation,),) = gateway.sql("SELECT id FROM installation")
    wanted: dict[int, str] = {}
    while len(wanted) < 16:
        key = uuid4().hex
        wanted.setdefault(partition_of(payment_id(installation, "mer_local", key), 16), key)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda key: gateway.pay(CARD, key=key, wait=20), wanted.values()))
    assert [answer.status_code for answer in answers] == [201] * 16
    assert _worker(gateway).process.poll() is None


def a_capture(gateway: Gateway, **changes: Any) -> tuple[str, dict[bytes, bytes]]:
    """An authorized payment, and an entry as accept writes it for a capture of it; changes by name of its body."""
    payment = gateway.pay(CARD, wait=10).json()["id"]
    operation = operation_id(payment, Verb.CAPTURE, "by-hand")
    body: dict[str, Any] = {
        **{"merchant": "mer_local", "key": "by-hand", "amount": None, "sealed": None, "sale": False},
        **{"fingerprint": {}, "request_id": "req_1", "traceparent": None, "reply_to": None, "terms": None},
        "accepted_at": "2030-01-01T00:00:00Z",
    }
    fields = {"v": b"1", "operation": operation.encode(), "payment": payment.encode(), "verb": b"capture"}
    return payment, {**{name.encode(): value for name, value in fields.items()}, b"body": orjson.dumps(body | changes)}


def write(gateway: Gateway, fields: dict[bytes, bytes], *, partition: int | None = None, entry: str = "*") -> None:
    """XADD, as with redis-cli."""
    if partition is None:
        partition = partition_of(fields[b"payment"].decode(), 16)
    gateway.redis.xadd(keys.commands(partition), fields, id=entry)  # type: ignore[arg-type]


def letters(gateway: Gateway, expected: int) -> list[dict[str, Any]]:
    """All dead letters with their entries, once there are as many as expected and nothing is left to read."""

    def found() -> list[dict[str, Any]] | None:
        page = gateway.request("GET", "/v1/dead-letters?limit=100", headers=OPERATOR).json()["data"]
        return page if len(page) == expected and gateway.backlog() == 0 else None

    page = eventually(found, f"{expected} dead letters and no backlog", 20)
    return [gateway.request("GET", f"/v1/dead-letters/{each['id']}", headers=OPERATOR).json() for each in page]


def test_a_valid_entry_by_hand_works_so_that_the_others_fail_for_what_is_wrong_with_them(flowing: Gateway) -> None:
    payment, entry = a_capture(flowing)

    write(flowing, entry)
    flowing.settled()

    assert flowing.get(payment)["status"] == "captured"
    assert flowing.dead() == []


def test_corrupt_entries_are_dead_letters_and_their_neighbours_settle(flowing: Gateway) -> None:
    payment, good = a_capture(flowing)
    partition = partition_of(payment, 16)
    nested = b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    corrupt: list[dict[bytes, bytes]] = [
        {b"junk": b"by hand"},
        {b"\0\xff": b"\xfe\0"},
        {b"": b""},
        {name: value for name, value in good.items() if name != b"body"},
        good | {b"v": b"2"},
        good | {b"v": b"\xff" * 100},
        good | {b"verb": b"steal"},
        good | {b"verb": b"authorize"},
        good | {b"payment": b"pay_junk"},
        good | {b"operation": b"\xf0\x9f"},
        good | {b"body": b"[1, 2"},
        good | {b"body": b"\xff\xfe"},
        good | {b"body": nested},
        good | {b"body": good[b"body"].replace(b"2030-01-01T00:00:00Z", b"2030-01-01T00:00:00")},
        *(
            good | {b"body": good[b"body"].replace(b'"amount":null', b'"amount":' + amount)}
            for amount in (b"0", b"-5", b"1000000000001", b"9" * 1000)
        ),
    ]

    for fields in corrupt:
        write(flowing, fields, partition=partition)
    write(flowing, good)
    eventually(lambda: flowing.get(payment)["status"] == "captured", "the good one behind them is captured")
    found = letters(flowing, len(corrupt))

    assert {each["cause"] for each in found} == {"unreadable"}
    assert not any(each["requeueable"] for each in found)
    assert flowing.get(payment)["operation"]["status"] == "succeeded"


def test_an_entry_for_another_partition_is_a_dead_letter_of_this_one(flowing: Gateway) -> None:
    payment, entry = a_capture(flowing)
    elsewhere = (partition_of(payment, 16) + 1) % 16

    write(flowing, entry, partition=elsewhere)
    [letter] = letters(flowing, 1)

    assert (letter["partition"], letter["payment_id"], letter["requeueable"]) == (elsewhere, payment, False)
    assert "another partition" in letter["obstacle"]
    assert flowing.get(payment)["status"] == "authorized"


@pytest.mark.parametrize(
    "wrong",
    [{"merchant": "mer_other"}, {"merchant": "mer_local\0"}, {"key": "k\0"}, {"request_id": "r\0"}],
    ids=str,
)
def test_an_entry_that_nobody_could_have_accepted_is_given_up_after_a_few_tries(
    flowing: Gateway, wrong: dict[str, Any]
) -> None:
    payment, entry = a_capture(flowing, **wrong)

    write(flowing, entry)
    [letter] = letters(flowing, 1)

    assert (letter["cause"], len(letter["history"])) == ("exception", 3)
    assert flowing.get(payment)["status"] == "authorized"
    assert flowing.get(payment)["operation"]["status"] == "review"


def test_an_operation_of_another_payment_is_not_taken_for_ones_own(flowing: Gateway) -> None:
    payment, entry = a_capture(flowing)
    other = flowing.pay(CARD, wait=10).json()

    write(flowing, entry | {b"operation": other["operation"]["id"].encode()})
    [letter] = letters(flowing, 1)

    assert "belongs to" in letter["reason"]
    assert flowing.get(payment)["status"] == "authorized"
    assert flowing.get(other["id"])["status"] == "authorized"


def test_absurd_entries_are_cut_and_say_so(flowing: Gateway) -> None:
    payment, good = a_capture(flowing)
    many = {b"field-%d" % number: b"x" for number in range(20_000)}

    write(flowing, good | {b"body": b"x" * (8 << 20)})
    write(flowing, many, partition=partition_of(payment, 16))
    write(flowing, good | {b"more": b"x" * ENTRY_BYTES_MAX})
    write(flowing, good | {b"n" * 5_000_000: b"x"})
    found = letters(flowing, 4)
    kept = [sum(len(name) + len(value) for name, value in fields.items()) for fields in flowing.dead()]

    assert max(kept) < ENTRY_BYTES_MAX
    assert all(each["cut"] and "bytes in" in each["cut"] and not each["requeueable"] for each in found)
    refused = flowing.request(
        "POST",
        f"/v1/dead-letters/{found[0]['id']}/requeue",
        headers=OPERATOR | {"Idempotency-Key": "absurd"},
        json={"reason": "hope"},
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "act_refused")


def test_a_card_in_clear_is_in_no_dead_letter_and_no_log(flowing: Gateway) -> None:
    payment, good = a_capture(flowing)
    partition = partition_of(payment, 16)

    write(
        flowing, {b"card": CARD.encode(), b"spaced": b"4111 1111 1111 1111", CARD.encode(): b"x"}, partition=partition
    )
    write(flowing, good | {b"verb": CARD.encode()})
    write(flowing, good | {b"v": CARD.encode()})
    found = letters(flowing, 3)

    stored = b"\n".join(value for fields in flowing.dead() for pair in fields.items() for value in pair)
    assert CARD.encode() not in stored and b"4111 1111" not in stored
    assert CARD not in str(found)
    assert all("card number" in each["cut"] for each in found)
    assert CARD not in flowing.logs()


def test_an_entry_with_an_id_of_another_age_does_not_stop_those_after_it(flowing: Gateway) -> None:
    payment, entry = a_capture(flowing)

    write(flowing, entry, entry="99999999999999-5")
    eventually(lambda: flowing.get(payment)["status"] == "captured", "it is captured")
    refunded = flowing.post(f"/v1/payments/{payment}/refund", wait=10)

    assert (refunded.status_code, refunded.json()["status"]) == (200, "refunded")
    assert flowing.dead() == []


def test_a_commands_key_that_is_no_stream_holds_up_its_own_partition_only(flowing: Gateway) -> None:
    payment = flowing.pay(CARD, wait=10).json()["id"]
    partition = partition_of(payment, 16)
    stream = keys.commands(partition)

    flowing.redis.delete(stream)
    flowing.redis.set(stream, "by hand")
    refused = flowing.post(f"/v1/payments/{payment}/capture", key="once it is back")
    others = [answer for answer in (flowing.pay(CARD, wait=20) for _ in range(8)) if answer.status_code != 500]
    flowing.redis.delete(stream)
    captured = flowing.post(f"/v1/payments/{payment}/capture", key="once it is back", wait=20)

    assert refused.status_code == 500
    assert others and {answer.status_code for answer in others} == {201}
    assert partition not in {partition_of(answer.json()["id"], 16) for answer in others}
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")


def test_a_worker_that_finds_no_stream_where_one_should_be_takes_over_all_others(flowing: Gateway) -> None:
    stream = keys.commands(5)
    first, second = _worker(flowing), flowing.start("worker")
    flowing.redis.delete(stream)
    flowing.redis.set(stream, "by hand")
    flowing.redis.set(keys.dead(6), "by hand")

    assert first.end() == 0
    flowing.processes.remove(first)
    eventually(lambda: _owned(flowing) == set(range(16)), "all leases are taken", 20)
    eventually(lambda: b"unreadable_stream" in second.log.read_bytes(), "the breach is named", 10)
    write(flowing, {b"junk": b"by hand"}, partition=6)
    eventually(lambda: b"no_dead_letters" in second.log.read_bytes(), "that breach, too", 10)
    alive = second.process.poll() is None
    flowing.redis.delete(stream, keys.dead(6))
    [letter] = letters(flowing, 1)

    assert alive
    assert letter["partition"] == 6
    assert _consumers(flowing) == {"worker-2"}


@contextmanager
def edited(gateway: Gateway, table: str, column: str, row: str, value: object) -> Iterator[None]:
    """A row as somebody edited it; put right at the end."""
    ((before,),) = gateway.sql(f"SELECT {column}::text FROM {table} WHERE id = %s", row)
    change = f"UPDATE {table} SET {column} = %s WHERE id = %s"
    gateway.sql(change, value, row)
    yield
    gateway.sql(change, before, row)


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("method", "[]", "cannot be read"),
        ("failure", '{"a": 1}', "cannot be read"),
        ("partition", 99, "says partition 99"),
        ("sequence", 0, "the ledger refused"),
    ],
)
def test_a_receipt_that_was_edited_into_nonsense_is_a_named_breach_until_it_is_put_right(
    flowing: Gateway, column: str, value: object, name: str
) -> None:
    payment, entry = a_capture(flowing, key=f"nonsense {column}")

    with edited(flowing, "payments", column, payment, value):
        write(flowing, entry)
        [letter] = letters(flowing, 1)
        neighbour = flowing.pay(CARD, wait=10).status_code
        shown = flowing.request("GET", f"/v1/payments/{payment}")
    act = flowing.request(
        "POST",
        f"/v1/dead-letters/{letter['id']}/requeue",
        headers=OPERATOR | {"Idempotency-Key": letter["id"]},
        json={"reason": "put right"},
    )

    assert (letter["cause"], neighbour, act.status_code) == ("breach", 201, 200), act.text
    assert name in letter["reason"]
    assert shown.status_code in (200, 500) and "Traceback" not in shown.text
    assert b"unworkable_payment" in _worker(flowing).log.read_bytes()
    if column != "sequence":  # there the capture was journaled and asked for before its answer could be written
        eventually(lambda: flowing.get(payment)["status"] == "captured", "it is captured after all")


def test_operations_that_were_edited_elsewhere_rest_and_all_others_are_swept(flowing: Gateway) -> None:
    payments = [flowing.pay(CARD, wait=10).json()["id"] for _ in range(2)]
    doubt = """UPDATE operations SET settled_at = NULL, response_status = NULL, response_body = NULL,
               status = 'in_doubt', next_attempt_at = now() WHERE payment = %s"""
    end = "UPDATE operations SET settled_at = now(), next_attempt_at = NULL, status = 'failed' WHERE settled_at IS NULL"

    elsewhere = (partition_of(payments[0], 16) + 1) % 16
    flowing.sql("UPDATE operations SET partition = %s WHERE payment = %s", elsewhere, payments[0])
    flowing.sql("UPDATE operations SET payment = 'by hand' WHERE payment = %s", payments[1])
    for payment in (payments[0], "by hand"):
        flowing.sql(doubt, payment)
    log = _worker(flowing).log
    eventually(lambda: log.read_bytes().count(b"misplaced_operation") >= 2, "both are named", 10)
    named = log.read_bytes().count(b"misplaced_operation")
    answers = [flowing.pay(CARD, wait=10).status_code for _ in range(5)]

    assert answers == [201] * 5
    assert log.read_bytes().count(b"misplaced_operation") == named, "and they are left alone for a while"
    flowing.sql(end)


def test_a_partition_whose_row_is_gone_rests_and_all_others_are_owned(flowing: Gateway) -> None:
    ((epoch,),) = flowing.sql("SELECT epoch FROM partitions WHERE id = 9")
    flowing.sql("DELETE FROM partitions WHERE id = 9")
    flowing.redis.delete(keys.lease(9))
    worker = _worker(flowing)
    eventually(lambda: b"missing_partition" in worker.log.read_bytes(), "the breach is named", 10)

    reached = {partition_of(flowing.pay(CARD, wait=10).json()["id"], 16) for _ in range(3)}
    alive = worker.process.poll() is None
    flowing.sql("INSERT INTO partitions (id, epoch) VALUES (9, %s)", epoch + 1)

    assert alive and reached


def _worker(gateway: Gateway) -> Running:
    return next(running for running in gateway.processes if running.role == "worker")


def _owned(gateway: Gateway) -> set[int]:
    return {partition for partition in range(16) if gateway.redis.exists(keys.lease(partition))}


def _consumers(gateway: Gateway) -> set[str]:
    streams = [stream for stream in gateway.redis.keys("*commands")]  # type: ignore[union-attr]
    return {one["name"].decode() for stream in streams for one in gateway.redis.xinfo_consumers(stream, keys.GROUP)}  # type: ignore[union-attr]
