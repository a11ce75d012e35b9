"""Accepting and settling in Redis: whole or not at all, once, within limits, and nothing left behind (I4, I6, I10)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.streams import keys
from engine.streams.encoding import decode_record
from support.scripted import OPEN, PARTITION, SETTLED, STREAM, UNSETTLED, Scripted, scripts_on


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripted]:
    with scripts_on(redis_url) as scripted:
        yield scripted


def test_accepted_work_is_in_all_three_places(scripts: Scripted) -> None:
    word, entry = scripts.accept("op_1")

    plain = scripts.plain
    assert word == b"accepted"
    assert plain.xrange(STREAM) == [(entry, {b"operation": b"op_1"})]
    assert plain.hgetall(OPEN) == {b"op_1": b"snapshot"}
    assert decode_record(scripts.record_of("op_1")).entry == entry.decode(), "the record names its entry"
    assert plain.ttl(keys.record(PARTITION, "op_1")) == -1, "no expiry while unsettled"


def test_the_same_operation_again_is_known_and_adds_nothing(scripts: Scripted) -> None:
    _, entry = scripts.accept("op_1", record=UNSETTLED)

    again = scripts.accept("op_1", record=SETTLED)

    assert again == [b"known", b'{"entry":"%s",%s' % (entry, UNSETTLED[1:].encode()), 1]
    assert scripts.plain.xlen(STREAM) == 1


def test_a_full_partition_refuses_before_it_takes_anything(scripts: Scripted) -> None:
    for number in range(2):
        scripts.accept(f"op_{number}", backlog=2)

    assert scripts.accept("op_new", backlog=2) == [b"full", 2]
    assert scripts.plain.exists(keys.record(PARTITION, "op_new")) == 0
    assert scripts.accept("op_new", backlog=3)[0] == b"accepted", "headroom for what belongs to payments"


def test_a_repeated_key_is_answered_at_full_backlog_too(scripts: Scripted) -> None:
    scripts.accept("op_1", backlog=1)

    assert scripts.accept("op_1", backlog=1) == [b"known", scripts.record_of("op_1"), 1]


def test_one_payment_has_a_limit_of_open_operations(scripts: Scripted) -> None:
    scripts.accept("op_1", mailbox=1)

    assert scripts.accept("op_2", mailbox=1) == [b"busy", 1]
    assert scripts.plain.xlen(STREAM) == 1


def test_a_merchant_with_its_share_in_the_partition_is_refused_and_others_are_not(scripts: Scripted) -> None:
    for number in range(2):
        scripts.accept(f"op_{number}", merchant="greedy", share=2)

    assert scripts.accept("op_new", merchant="greedy", share=2) == [b"share", 2]
    assert scripts.plain.exists(keys.record(PARTITION, "op_new")) == 0
    assert scripts.accept("op_0", merchant="greedy", share=2)[0] == b"known"
    assert scripts.accept("op_new", merchant="greedy", share=3)[0] == b"accepted", "headroom for captures"
    assert scripts.accept("op_other", merchant="modest", share=2)[0] == b"accepted"


def test_a_merchants_share_shrinks_with_each_entry_that_leaves_and_with_none_twice(scripts: Scripted) -> None:
    for number in range(4):
        scripts.accept(f"op_{number}")
    scripts.take_lease()
    settled, journaled, buried, _ = (entry[0].decode() for entry in scripts.read()[1])

    for _ in range(2):
        scripts.settle("op_0", settled)
        scripts.ack(journaled)
        scripts.bury(buried, "reason", "poison")

    assert scripts.entries_of("m") == 1 == scripts.plain.xlen(STREAM)


def test_what_was_taken_out_by_hand_is_not_counted_for_ever(scripts: Scripted) -> None:
    _, by_hand = scripts.accept("op_0")
    _, entry = scripts.accept("op_1", merchant="other")
    scripts.plain.xdel(STREAM, by_hand)

    scripts.settle("op_1", entry.decode(), merchant="other")

    assert scripts.entries_of("m") == 0


def test_settling_leaves_the_record_and_nothing_else(scripts: Scripted) -> None:
    scripts.accept("op_1")
    scripts.take_lease()
    entry = scripts.read()[1][0][0].decode()

    assert scripts.settle("op_1", entry) == 1

    plain, record = scripts.plain, keys.record(PARTITION, "op_1")
    assert (plain.xlen(STREAM), plain.exists(OPEN), scripts.pending()) == (0, 0, 0)
    assert plain.get(record) == SETTLED.encode()
    assert 0 < plain.pttl(record) <= 60_000


def test_settling_again_changes_nothing(scripts: Scripted) -> None:
    scripts.accept("op_1")
    scripts.take_lease()
    entry = scripts.read()[1][0][0].decode()
    scripts.settle("op_1", entry)

    assert scripts.settle("op_1", entry) == 0


def test_settling_works_where_redis_forgot_everything(scripts: Scripted) -> None:
    assert scripts.settle("op_1", "1-1") == 0
    assert scripts.record_of("op_1") == SETTLED.encode()


def test_settling_and_acknowledging_are_allowed_at_full_memory(scripts: Scripted) -> None:
    scripts.accept("op_1")
    scripts.accept("op_2")
    scripts.take_lease()
    first, second = (entry[0].decode() for entry in scripts.read()[1])
    plain = scripts.plain
    plain.config_set("maxmemory", "1")
    try:
        assert scripts.settle("op_1", first) == 1
        assert scripts.ack(second) == 1
    finally:
        plain.config_set("maxmemory", "0")


def test_what_is_journaled_and_unanswered_stays_open_and_known(scripts: Scripted) -> None:
    scripts.accept("op_1")
    scripts.take_lease()
    entry = scripts.read()[1][0][0].decode()

    assert scripts.ack(entry) == 1

    plain = scripts.plain
    assert (plain.xlen(STREAM), scripts.pending()) == (0, 0)
    assert plain.hexists(OPEN, "op_1") and UNSETTLED[1:].encode() in scripts.record_of("op_1")


def test_a_redis_that_forgot_the_scripts_is_taught_again(scripts: Scripted) -> None:
    scripts.accept("op_1")
    scripts.plain.script_flush()

    assert scripts.accept("op_1")[0] == b"known"
