"""The audit of Redis: streams that somebody trimmed, leases, dead letters, and what is accepted, lost or answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from redis import Redis

from engine.domain.command import IdempotencyRecord, OpenOperation
from engine.domain.payment import Verb
from engine.streams import keys
from engine.streams.encoding import encode_record, encode_snapshot
from ops.audit.breach import Breach
from ops.audit.streams import look
from support.audit_stand import Ledger, named

pytest_plugins = ["support.bank_fixtures", "support.audit_fixtures"]

STREAM = keys.commands(3)
LONG_AGO = datetime.now(UTC) - timedelta(minutes=10)
OPERATION = "op_00000000000000000000000001"
PAYMENT = "pay_00000000000000000000000001"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        client.set(keys.lease(3), "worker-1:token", px=60_000)
        yield client


def entries(redis: Redis, number: int, *, at: datetime | None = None) -> list[str]:
    """Commands in the stream, with its group."""
    moment = int((at or datetime.now(UTC)).timestamp() * 1000)
    found = [redis.xadd(STREAM, {"operation": OPERATION}, id=f"{moment}-{n + 1}") for n in range(number)]
    if not redis.xinfo_groups(STREAM):
        redis.xgroup_create(STREAM, keys.GROUP, "0")
    return [entry.decode() for entry in found]  # type: ignore[union-attr]


def read(redis: Redis, number: int, consumer: str = "worker-1") -> None:
    redis.xreadgroup(keys.GROUP, consumer, {STREAM: ">"}, count=number)


def settle(redis: Redis, *ids: str) -> None:
    redis.xack(STREAM, keys.GROUP, *ids)
    redis.xdel(STREAM, *ids)


def against(ledger: Ledger, invariant: str, *, grace_s: float = 60) -> list[Breach]:
    """What a whole look finds against this invariant; it must find nothing against others of Redis."""
    report = ledger.audited(grace_s=grace_s)
    assert named(report) <= {invariant}
    return [each for found in report.found for each in found.breaches]


def test_a_stream_that_is_worked_on_as_it_should_breaches_nothing(ledger: Ledger, redis: Redis) -> None:
    first = entries(redis, 6)
    assert named(ledger.audited()) == set()
    read(redis, 4)
    assert named(ledger.audited()) == set()
    settle(redis, first[2], first[0])  # in any order
    assert named(ledger.audited()) == set()
    read(redis, 9)
    settle(redis, *first)

    assert named(ledger.audited()) == set()
    assert redis.xlen(STREAM) == 0


def test_no_order_of_reading_and_settling_looks_like_a_trim(redis: Redis) -> None:
    draw, pending = Random(20), []
    entries(redis, 1)
    for step in range(400):
        what = draw.choice(("add", "add", "read", "settle", "settle", "lose the group"))
        if what == "add":
            redis.xadd(STREAM, {"operation": OPERATION})
        elif what == "read":
            read(redis, draw.randint(1, 5))
        elif what == "settle" and (pending := redis.xpending_range(STREAM, keys.GROUP, "-", "+", 50)):
            settle(redis, *(each["message_id"] for each in draw.sample(pending, min(3, len(pending)))))
        elif what == "lose the group" and not redis.xlen(STREAM):
            redis.delete(STREAM)  # as Redis does when it is flushed; the group is made again
            entries(redis, 1)

        assert [each.detail for each in look(redis, 4, grace_s=60, limit=5)] == [], f"after step {step}, {what}"


TRIMS: dict[str, Any] = {
    # how an entry is lost                       # six entries, of which the first three are pending
    "unread, by name": lambda redis, ids: redis.xdel(STREAM, ids[4]),
    "the last unread, by name": lambda redis, ids: redis.xdel(STREAM, ids[5]),
    "pending, by name": lambda redis, ids: redis.xdel(STREAM, ids[1]),
    "pending, by XTRIM MAXLEN": lambda redis, ids: redis.xtrim(STREAM, maxlen=4, approximate=False),
    "pending and unread, by XTRIM MAXLEN": lambda redis, ids: redis.xtrim(STREAM, maxlen=1, approximate=False),
    "all, by XTRIM MINID": lambda redis, ids: redis.xtrim(STREAM, minid="9999999999999-0", approximate=False),
    "acknowledged and not deleted": lambda redis, ids: redis.xack(STREAM, keys.GROUP, ids[0]),
    "the group set ahead": lambda redis, ids: redis.xgroup_setid(STREAM, keys.GROUP, ids[5]),
}


@pytest.mark.parametrize("how", TRIMS)
def test_an_entry_that_leaves_its_stream_in_another_way_is_noticed(ledger: Ledger, redis: Redis, how: str) -> None:
    ids = entries(redis, 6)
    read(redis, 3)

    TRIMS[how](redis, ids)

    assert "nothing_is_trimmed" in named(ledger.audited())
    assert "nothing_is_trimmed" in named(ledger.glanced_at())


def test_entries_that_nobody_has_are_counted_with_who_takes_them_in_hand(ledger: Ledger, redis: Redis) -> None:
    entries(redis, 6)
    read(redis, 3)

    redis.xgroup_setid(STREAM, keys.GROUP, "$")

    (found,) = against(ledger, "nothing_is_trimmed")
    assert "3 of 6 entries are neither pending nor unread" in found.detail
    assert "the owner takes them in hand" in found.detail


def test_unread_entries_trimmed_from_a_stream_with_nothing_pending_are_noticed(ledger: Ledger, redis: Redis) -> None:
    settled = entries(redis, 3)
    read(redis, 3)
    settle(redis, *settled)
    entries(redis, 5, at=datetime.now(UTC) + timedelta(seconds=1))

    redis.xtrim(STREAM, maxlen=2, approximate=False)

    (found,) = against(ledger, "nothing_is_trimmed")
    assert STREAM in found.detail


def test_pending_entries_that_are_gone_are_named(ledger: Ledger, redis: Redis) -> None:
    ids = entries(redis, 6)
    read(redis, 3)

    redis.xdel(STREAM, ids[1])

    (found,) = against(ledger, "nothing_is_trimmed")
    assert ids[1] in found.detail


def test_entries_that_wait_in_a_partition_without_an_owner_are_told_after_the_grace(
    ledger: Ledger, redis: Redis
) -> None:
    redis.delete(keys.lease(3))
    entries(redis, 2)
    assert named(ledger.audited()) == set()

    redis.delete(STREAM)
    entries(redis, 2, at=LONG_AGO)

    (found,) = against(ledger, "waiting_entries_have_an_owner")
    assert "nobody owns it" in found.detail


def test_an_entry_pending_for_a_worker_that_is_gone_is_told_after_the_grace(ledger: Ledger, redis: Redis) -> None:
    entries(redis, 2)
    read(redis, 1, "worker-1")
    read(redis, 1, "worker-gone")

    assert against(ledger, "waiting_entries_have_an_owner", grace_s=60) == []
    (found,) = against(ledger, "waiting_entries_have_an_owner", grace_s=0)
    assert "worker-gone" in found.detail
    assert "worker-1" in found.detail


def test_a_lease_without_an_end_is_named(ledger: Ledger, redis: Redis) -> None:
    redis.persist(keys.lease(3))

    (found,) = against(ledger, "leases_lapse")

    assert "partition 3" in found.detail


def test_dead_letters_are_named_with_their_reason(ledger: Ledger, redis: Redis) -> None:
    redis.xadd(keys.dead(3), {"reason": "nobody can read it", "payment": PAYMENT, "operation": OPERATION})
    redis.xadd(keys.dead(4), {"by": b"\xff\xfe"})

    known, unknown = against(ledger, "no_dead_letters")

    assert (known.payment, known.operation) == (PAYMENT, OPERATION)
    assert "nobody can read it" in known.detail
    assert "without a reason" in unknown.detail


def opened(redis: Redis, operation: str, payment: str, at: datetime = LONG_AGO, partition: int = 3) -> None:
    snapshot = OpenOperation(operation=operation, verb=Verb.AUTHORIZE, merchant="mer_local", accepted_at=at, body=b"{}")
    redis.hset(keys.open_operations(partition, payment), operation, encode_snapshot(snapshot))  # type: ignore[arg-type]


def test_what_was_accepted_and_is_nowhere_is_lost(ledger: Ledger, redis: Redis) -> None:
    opened(redis, OPERATION, PAYMENT)

    (found,) = against(ledger, "accepted_is_not_lost")

    assert (found.payment, found.operation) == (PAYMENT, OPERATION)


def test_a_record_whose_entry_is_gone_is_lost_though_nothing_shows_it_open(ledger: Ledger, redis: Redis) -> None:
    (entry,) = entries(redis, 1, at=LONG_AGO)
    redis.set(
        keys.record(3, OPERATION),
        b'{"entry":"%s",%s' % (entry.encode(), encode_record(IdempotencyRecord(fingerprint={}))[1:]),
    )
    read(redis, 1)
    assert "accepted_is_not_lost" not in named(ledger.audited())

    settle(redis, entry)

    (found,) = against(ledger, "accepted_is_not_lost")
    assert found.operation == OPERATION
    assert "repeat the key" in found.invariant.remedy


def test_what_is_lost_is_named_once_with_its_payment(ledger: Ledger, redis: Redis) -> None:
    record = b'{"entry":"1700000000000-0",' + encode_record(IdempotencyRecord(fingerprint={}))[1:]
    redis.set(keys.record(3, OPERATION), record)
    opened(redis, OPERATION, PAYMENT)

    (found,) = against(ledger, "accepted_is_not_lost")

    assert found.payment == PAYMENT


def test_what_was_accepted_a_moment_ago_is_not_lost(ledger: Ledger, redis: Redis) -> None:
    opened(redis, OPERATION, PAYMENT, datetime.now(UTC))

    assert named(ledger.audited()) == set()


@pytest.mark.parametrize("where", [keys.commands(3), keys.dead(3)])
def test_what_waits_in_a_stream_is_not_lost(ledger: Ledger, redis: Redis, where: str) -> None:
    opened(redis, OPERATION, PAYMENT)
    for number in range(450):  # more than one page
        redis.xadd(where, {"operation": OPERATION if number == 449 else "op_other"})

    assert "accepted_is_not_lost" not in named(ledger.audited())


def test_what_the_ledger_settled_long_ago_and_redis_holds_open_is_counted_apart(ledger: Ledger, redis: Redis) -> None:
    operation = ledger.one("SELECT id FROM operations WHERE verb = 'refund'")
    ledger.write("UPDATE operations SET settled_at = settled_at - interval '5 min' WHERE verb = 'refund'")
    opened(redis, operation, PAYMENT)

    report = ledger.audited()

    assert named(report) == {"open_is_unsettled"}
    assert report.breached == ()


def test_an_open_operation_that_nobody_can_read_is_named(ledger: Ledger, redis: Redis) -> None:
    redis.hset(keys.open_operations(3, PAYMENT), OPERATION, "by hand")
    redis.set(keys.open_operations(4, PAYMENT), "not even a hash")

    found = against(ledger, "accepted_is_not_lost")

    assert len(found) == 2
    assert all(PAYMENT in each.detail for each in found)


@pytest.mark.parametrize("change", ["another status", "other bytes", "unsettled in the ledger", "not in the ledger"])
def test_an_answer_that_is_not_the_ledgers_is_named(ledger: Ledger, redis: Redis, change: str) -> None:
    operation = ledger.one("SELECT id FROM operations WHERE verb = 'refund' AND response_status = 200")
    body = ledger.one(f"SELECT convert_from(response_body, 'UTF8') FROM operations WHERE id = '{operation}'")
    record = IdempotencyRecord(fingerprint={}, status=200, body=body.encode())
    redis.set(keys.record(3, operation), encode_record(record), px=60_000)
    redis.set(keys.record(4, "op_pending"), encode_record(IdempotencyRecord(fingerprint={})))
    assert named(ledger.audited()) == set()

    ledger.write(
        {
            "another status": f"UPDATE operations SET response_status = 201 WHERE id = '{operation}'",
            "other bytes": f"UPDATE operations SET response_body = '{{}}' WHERE id = '{operation}'",
            "unsettled in the ledger": f"UPDATE operations SET settled_at = NULL WHERE id = '{operation}'",
            "not in the ledger": f"DELETE FROM operations WHERE id = '{operation}'",
        }[change]
    )

    report = ledger.audited()
    assert "replays_are_the_ledgers" in named(report)
    (found,) = [each for each in report.found if each.invariant.name == "replays_are_the_ledgers"]
    assert found.breaches[0].operation == operation


def test_a_record_that_nobody_can_read_is_named(ledger: Ledger, redis: Redis) -> None:
    redis.set(keys.record(3, OPERATION), "by hand")

    assert len(against(ledger, "replays_are_the_ledgers")) == 1


def test_keys_of_others_are_left_alone(ledger: Ledger, redis: Redis) -> None:
    redis.set("penstock:{p3}:something", "else")
    redis.set("somebody's", "key")

    assert named(ledger.audited()) == set()


def test_a_heartbeat_that_lies_ahead_of_the_clock_is_told(ledger: Ledger, redis: Redis) -> None:
    ahead = int(datetime.now(UTC).timestamp() * 1000) + 7_200_000
    redis.zadd(keys.WORKERS, {"worker-9": ahead})

    (found,) = against(ledger, "clocks_agree")

    assert "worker-9" in found.detail and "ahead" in found.detail


def test_a_lease_that_was_taken_before_the_clock_stepped_back_is_told(ledger: Ledger, redis: Redis) -> None:
    redis.pexpire(keys.lease(3), 7_200_000)

    (found,) = against(ledger, "leases_lapse")

    assert "partition 3" in found.detail
