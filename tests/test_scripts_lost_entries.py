"""Entries that nobody has are found again, and work whose entry is gone is revived once, under the same ids (I10)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.errors import Unavailable
from engine.streams import keys
from engine.streams.command_stream import CommandStreams, StreamEntry
from engine.streams.encoding import decode_record
from engine.streams.scripts import Scripts
from support.scripted import MINE, OPEN, PARTITION, STREAM, THEIRS, UNSETTLED, Scripted, ids, scripts_on

GROUP = keys.GROUP


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripted]:
    with scripts_on(redis_url) as scripted:
        scripted.take_lease()
        yield scripted


def accepted(scripts: Scripted, number: int, first: int = 0) -> list[str]:
    return [scripts.accept(f"op_{first + each}")[1].decode() for each in range(number)]


def delete_all_consumers(plain: Any) -> None:
    for consumer in plain.xinfo_consumers(STREAM, GROUP):
        plain.xgroup_delconsumer(STREAM, GROUP, consumer["name"])


def make_at_the_end(plain: Any) -> None:
    plain.xgroup_destroy(STREAM, GROUP)
    plain.xgroup_create(STREAM, GROUP, "$")


def just_beyond(plain: Any) -> str:
    ms, _, sequence = plain.xinfo_stream(STREAM)["last-generated-id"].decode().partition("-")
    return f"{ms}-{int(sequence) + 7}"


HANDS: dict[str, Callable[[Any], Any]] = {
    "set to the end": lambda plain: plain.xgroup_setid(STREAM, GROUP, "$"),
    "set beyond the end": lambda plain: plain.xgroup_setid(STREAM, GROUP, "9999999999999-0"),
    "set beyond the last of its millisecond": lambda plain: plain.xgroup_setid(STREAM, GROUP, just_beyond(plain)),
    "set beyond what a number can hold": lambda plain: plain.xgroup_setid(STREAM, GROUP, f"{2**64 - 1}-{2**64 - 1}"),
    "its consumers deleted": delete_all_consumers,
    "made anew at the end": make_at_the_end,
}


@pytest.mark.parametrize("how", HANDS)
def test_what_a_hand_at_the_group_left_to_nobody_comes_to_the_owner_in_its_order(scripts: Scripted, how: str) -> None:
    first = accepted(scripts, 4)
    scripts.read(entries=2)
    scripts.ack(first[0])

    HANDS[how](scripts.plain)
    adopted = scripts.adopt()
    new = accepted(scripts, 1, first=4)
    had = ids(scripts.claim(consumer="w1"))
    had += ids(scripts.read())

    assert adopted > 0
    assert had == [*first[1:], *new]
    assert scripts.adopt() == 0


def test_where_all_is_pending_or_unread_nothing_is_adopted(scripts: Scripted) -> None:
    entries = accepted(scripts, 6)
    scripts.read(entries=4)
    scripts.ack(entries[2])

    assert scripts.adopt(entries=2) == 0
    assert scripts.pending() == 3


def test_what_is_adopted_begins_to_be_counted_as_if_it_was_never_delivered(scripts: Scripted) -> None:
    accepted(scripts, 1)
    scripts.read()
    delete_all_consumers(scripts.plain)

    scripts.adopt()

    (entry,) = scripts.plain.xpending_range(STREAM, GROUP, "-", "+", 10)
    assert entry["times_delivered"] == 0


def test_more_than_one_look_finds_all_of_a_long_stream(scripts: Scripted) -> None:
    accepted(scripts, 25)
    scripts.plain.xgroup_create(STREAM, GROUP, "$")

    assert scripts.adopt(entries=10) == 25
    assert scripts.pending() == 25


def test_an_entry_pending_for_somebody_else_is_not_adopted(scripts: Scripted) -> None:
    accepted(scripts, 2)
    scripts.read(consumer="w0", entries=1)
    scripts.plain.xgroup_setid(STREAM, GROUP, "$")

    assert scripts.adopt() == 1
    owners = {row["consumer"] for row in scripts.plain.xpending_range(STREAM, GROUP, "-", "+", 10)}
    assert owners == {b"w0", b"w1"}


def test_what_nobody_had_comes_to_a_new_owner_before_what_was_pending_behind_it(scripts: Scripted) -> None:
    entries = accepted(scripts, 2)
    scripts.read(consumer="w0")
    scripts.plain.xack(STREAM, GROUP, entries[0])

    async def taken_over() -> list[StreamEntry]:
        async with Redis.from_url(scripts.url, protocol=2) as client:
            return await CommandStreams(Scripts(client), "w1").claim(PARTITION, MINE)

    assert [entry.id for entry in asyncio.run(taken_over())] == entries


def test_only_the_holder_of_the_lease_adopts(scripts: Scripted) -> None:
    accepted(scripts, 1)
    scripts.plain.xgroup_create(STREAM, GROUP, "$")

    arguments = (keys.lease(PARTITION), STREAM, THEIRS, GROUP, "w2", "-", 10)
    assert scripts.call("adopt", *arguments) == [b"lost"]
    assert scripts.pending() == 0


@pytest.mark.parametrize("lose", ["DEL", "XTRIM", "XDEL"])
def test_work_whose_entry_is_gone_is_known_as_lost_and_revived_once(scripts: Scripted, lose: str) -> None:
    (entry,) = accepted(scripts, 1)
    plain = scripts.plain
    {
        "DEL": lambda: plain.delete(STREAM),
        "XTRIM": lambda: plain.xtrim(STREAM, maxlen=0, approximate=False),
        "XDEL": lambda: plain.xdel(STREAM, entry),
    }[lose]()

    word, seen, held = scripts.accept("op_0")
    revived, anew = scripts.revive("op_0", seen)
    second = scripts.revive("op_0", seen)

    assert (word, held, revived, second) == (b"known", 0, b"revived", [b"changed"])
    assert decode_record(scripts.record_of("op_0")).entry == anew.decode()
    assert [each for each, _ in plain.xrange(STREAM)] == [anew]
    assert plain.hget(OPEN, "op_0") == b"snapshot", "what was shown stays"
    assert scripts.accept("op_0") == [b"known", scripts.record_of("op_0"), 1]


def test_a_settled_operation_is_never_said_to_be_lost(scripts: Scripted) -> None:
    (entry,) = accepted(scripts, 1)
    seen = scripts.record_of("op_0")
    scripts.read()
    scripts.settle("op_0", entry)

    assert scripts.accept("op_0")[2] == 1
    assert scripts.revive("op_0", seen) == [b"changed"]
    assert scripts.plain.xlen(STREAM) == 0


def test_a_dead_letter_holds_what_its_entry_held(scripts: Scripted) -> None:
    snapshot = '{"verb":"capture"}\n{}'
    where = (keys.record(PARTITION, "op_0"), OPEN, STREAM, keys.merchants(PARTITION), keys.dead(PARTITION))
    scripts.call("accept", *where, "op_0", UNSETTLED, snapshot, 100, 100, "m", 100, "operation", "op_0")
    entry = scripts.read()[1][0][0].decode()
    buried = (
        STREAM,
        keys.dead(PARTITION),
        OPEN,
        keys.merchants(PARTITION),
        GROUP,
        entry,
        "op_0",
        "",
        "1",
        "m",
        "a",
        "b",
    )
    scripts.call("bury", *buried)

    held = scripts.accept("op_0")[2]
    scripts.plain.delete(keys.dead(PARTITION))
    seen, lost = scripts.accept("op_0")[1:]
    scripts.revive("op_0", seen)

    assert (held, lost) == (1, 0)
    assert b"dead_letter" not in scripts.plain.hget(OPEN, "op_0"), "it is no longer shown as given up"  # type: ignore[operator]


def test_a_record_of_before_entries_were_named_is_revived_at_most_once(scripts: Scripted) -> None:
    scripts.plain.set(keys.record(PARTITION, "op_0"), UNSETTLED)

    _, seen, held = scripts.accept("op_0")
    revived, _ = scripts.revive("op_0", seen)

    assert (held, revived) == (0, b"revived")
    assert scripts.accept("op_0")[2] == 1


def test_an_entry_given_back_from_the_dead_is_named_by_its_record(scripts: Scripted) -> None:
    (entry,) = accepted(scripts, 1)
    dead, merchants = keys.dead(PARTITION), keys.merchants(PARTITION)
    scripts.read()
    scripts.call("bury", STREAM, dead, OPEN, merchants, GROUP, entry, "op_0", "", "1", "m", "a", "b")
    ((letter, _),) = scripts.plain.xrange(dead)

    _, anew = scripts.call(
        "requeue", dead, STREAM, OPEN, keys.record(PARTITION, "op_0"), merchants, letter, "op_0", "m"
    )

    assert decode_record(scripts.record_of("op_0")).entry == anew.decode()
    assert scripts.accept("op_0")[2] == 1


@pytest.mark.parametrize("denied", ["xadd", "set", "hset", "hincrby"])
def test_a_user_who_may_not_do_all_of_it_leaves_no_record_without_its_entry(scripts: Scripted, denied: str) -> None:
    plain = scripts.plain
    plain.acl_setuser("clumsy", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", f"-{denied}"])
    others = Scripted(url=scripts.url.replace("redis://", "redis://clumsy:x@"), plain=plain)
    try:
        with pytest.raises(Unavailable):
            others.accept("op_0")
    finally:
        plain.acl_deluser("clumsy")

    assert plain.exists(keys.record(PARTITION, "op_0")) <= plain.xlen(STREAM)


def test_work_whose_stream_cannot_be_read_is_not_taken_for_lost(scripts: Scripted) -> None:
    accepted(scripts, 1)
    scripts.plain.delete(STREAM)
    scripts.plain.set(STREAM, "something else")

    assert scripts.accept("op_0") == [b"known", scripts.record_of("op_0"), 1]


def test_all_that_is_pending_is_told_oldest_first_up_to_so_many(scripts: Scripted) -> None:
    entries = accepted(scripts, 3)
    scripts.read()

    def told(most: int) -> list[str]:
        _, found = scripts.call("pending", keys.lease(PARTITION), STREAM, MINE, GROUP, most)
        return [entry.decode() for entry, _ in found]

    assert (told(10), told(2)) == (entries, entries[:2])


def test_a_stores_clock_that_stepped_back_hides_no_pending_entry(scripts: Scripted) -> None:
    accepted(scripts, 1)
    (entry,) = ids(scripts.read())
    in_two_hours_ms = scripts.plain.time()[0] * 1000 + 7_200_000  # type: ignore[index]
    scripts.plain.xclaim(STREAM, GROUP, "w1", 0, [entry], time=in_two_hours_ms, retrycount=1)

    found = scripts.call("pending", keys.lease(PARTITION), STREAM, MINE, GROUP, 10)

    assert found == [b"pending", [[entry.encode(), 1]]]
