"""Dead letters in Redis: whole, shown where their operation is open, given back or dropped once, nothing stranded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.streams import keys
from support.scripted import MERCHANTS, OPEN, PARTITION, STREAM, Scripted, scripts_on

DEAD = keys.dead(PARTITION)
SNAPSHOT = '{"verb":"capture","merchant":"m"}\n{"the":"body"}\nwith\0more'
NOT_OPEN = '{"verb":"void","merchant":"m"}\n{}'


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripted]:
    with scripts_on(redis_url) as scripted:
        yield scripted


def accepted(scripts: Scripted, operation: str = "op_1") -> str:
    """An operation that was accepted and read; its entry."""
    scripts.accept(operation, record='{"status":null}')
    scripts.plain.hset(OPEN, operation, SNAPSHOT)
    scripts.take_lease()
    return str(scripts.read()[1][-1][0].decode())


def bury(scripts: Scripted, entry: str, operation: str = "op_1", snapshot: str = "", whole: str = "1") -> str:
    where, told = (STREAM, DEAD, OPEN, MERCHANTS), ("reason", "poison")
    return str(scripts.call("bury", *where, keys.GROUP, entry, operation, snapshot, whole, "m", *told).decode())


def requeue(scripts: Scripted, letter: str, operation: str = "op_1") -> list[Any]:
    where = (DEAD, STREAM, OPEN, keys.record(PARTITION, operation), MERCHANTS)
    return list(scripts.call("requeue", *where, letter, operation, "m"))


def drop(scripts: Scripted, letter: str, operation: str = "op_1") -> list[Any]:
    return list(scripts.call("drop", DEAD, OPEN, keys.record(PARTITION, operation), letter, operation))


def head_and_body(scripts: Scripted, operation: str = "op_1") -> tuple[dict[str, Any], bytes]:
    head, _, body = scripts.plain.hget(OPEN, operation).partition(b"\n")  # type: ignore[union-attr]
    return json.loads(head), body


def test_a_buried_entry_is_in_the_dead_letters_whole_and_nowhere_else(scripts: Scripted) -> None:
    entry = accepted(scripts)

    letter = bury(scripts, entry)

    plain = scripts.plain
    assert plain.xrange(DEAD) == [(letter.encode(), {b"reason": b"poison", b"was.operation": b"op_1"})]
    assert (plain.xlen(STREAM), scripts.pending()) == (0, 0)


def test_an_open_operation_shows_its_dead_letter_and_is_otherwise_untouched(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))

    head, body = head_and_body(scripts)
    assert head == {"verb": "capture", "merchant": "m", "dead_letter": letter}
    assert body == SNAPSHOT.encode().partition(b"\n")[2]
    assert scripts.record_of("op_1").endswith(b'"status":null}')


def test_an_operation_that_is_not_open_becomes_so_where_it_should_be_seen(scripts: Scripted) -> None:
    entry = accepted(scripts)
    scripts.plain.delete(OPEN)

    letter = bury(scripts, entry, snapshot=NOT_OPEN)

    assert head_and_body(scripts)[0] == {"verb": "void", "merchant": "m", "dead_letter": letter}


@pytest.mark.parametrize("shown", [b"", b"no json\n{}", b"\xff\n\xff", b'{"verb":"void"}'])
def test_an_open_entry_that_cannot_be_read_is_no_obstacle(scripts: Scripted, shown: bytes) -> None:
    entry = accepted(scripts)
    scripts.plain.hset(OPEN, "op_1", shown)

    letter = bury(scripts, entry)

    assert scripts.plain.xlen(DEAD) == 1
    assert scripts.plain.hget(OPEN, "op_1") == shown
    assert requeue(scripts, letter)[0] == b"requeued"


def test_burying_again_after_a_lost_reply_buries_nothing(scripts: Scripted) -> None:
    entry = accepted(scripts)
    bury(scripts, entry)

    assert bury(scripts, entry) == ""
    assert scripts.plain.xlen(DEAD) == 1


def test_burying_is_allowed_at_full_memory(scripts: Scripted) -> None:
    entry = accepted(scripts)
    scripts.plain.config_set("maxmemory", "1")
    try:
        assert bury(scripts, entry)
    finally:
        scripts.plain.config_set("maxmemory", "0")


def test_a_letter_that_is_given_back_is_the_same_entry_at_the_end_of_the_stream(scripts: Scripted) -> None:
    entry = accepted(scripts)
    scripts.plain.xadd(STREAM, {b"binary": b"\0\xff", b"": b""})
    for each in scripts.plain.xrange(STREAM)[1:]:
        bury(scripts, each[0].decode(), operation="")
    letter = bury(scripts, entry)
    binary = scripts.plain.xrange(DEAD)[0][0].decode()

    given_back = [requeue(scripts, letter), requeue(scripts, binary, "")]

    assert [word for word, _ in given_back] == [b"requeued", b"requeued"]
    assert [fields for _, fields in scripts.plain.xrange(STREAM)] == [
        {b"operation": b"op_1"},
        {b"binary": b"\0\xff", b"": b""},
    ]
    assert scripts.plain.xlen(DEAD) == 0
    assert head_and_body(scripts)[0] == {"verb": "capture", "merchant": "m"}


def test_an_entry_counts_for_its_merchant_while_it_is_among_the_commands(scripts: Scripted) -> None:
    entry = accepted(scripts)
    counts = [scripts.plain.hget(MERCHANTS, "m")]

    letter = bury(scripts, entry)
    counts.append(scripts.plain.hget(MERCHANTS, "m"))
    requeue(scripts, letter)
    counts.append(scripts.plain.hget(MERCHANTS, "m"))

    assert counts == [b"1", None, b"1"]


def test_a_letter_is_given_back_once(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))
    requeue(scripts, letter)

    assert requeue(scripts, letter) == [b"gone"]
    assert drop(scripts, letter) == [b"gone"]
    assert scripts.plain.xlen(STREAM) == 1


def test_a_letter_of_an_answered_operation_is_not_given_back(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))
    scripts.plain.set(keys.record(PARTITION, "op_1"), '{"status":201,"body":"{}"}')

    assert requeue(scripts, letter) == [b"settled"]
    assert (scripts.plain.xlen(DEAD), scripts.plain.xlen(STREAM)) == (1, 0)


def test_a_dropped_letter_frees_its_key(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))

    assert drop(scripts, letter) == [b"dropped", 1]

    assert scripts.plain.exists(DEAD, OPEN, keys.record(PARTITION, "op_1")) == 1, "the empty dead-letter stream alone"
    assert scripts.accept("op_1")[0] == b"accepted"


def test_a_letter_of_a_journaled_operation_is_dropped_alone(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))

    assert drop(scripts, letter, operation="") == [b"dropped", 0]

    assert scripts.plain.hexists(OPEN, "op_1")
    assert scripts.plain.exists(keys.record(PARTITION, "op_1"))


def test_a_drop_leaves_alone_what_somebody_else_keeps_open(scripts: Scripted) -> None:
    first = bury(scripts, accepted(scripts))
    entry = scripts.plain.xadd(STREAM, {"operation": "op_1"}).decode()  # type: ignore[union-attr]
    second = bury(scripts, entry)

    assert drop(scripts, first) == [b"dropped", 0]
    assert head_and_body(scripts)[0]["dead_letter"] == second
    assert drop(scripts, second) == [b"dropped", 1]


def test_a_drop_never_forgets_an_answer(scripts: Scripted) -> None:
    letter = bury(scripts, accepted(scripts))
    scripts.plain.set(keys.record(PARTITION, "op_1"), '{"status":201,"body":"{}"}')

    assert drop(scripts, letter) == [b"dropped", 0]
    assert scripts.plain.get(keys.record(PARTITION, "op_1")) == b'{"status":201,"body":"{}"}'


def test_letters_are_listed_newest_first_with_their_entries_only_when_asked(scripts: Scripted) -> None:
    letters = [bury(scripts, accepted(scripts, f"op_{number}"), f"op_{number}").encode() for number in range(3)]

    listed = scripts.call("letters", DEAD, "+", "-", 2, "")
    below = scripts.call("letters", DEAD, b"(" + letters[1], "-", 5, "")
    whole = scripts.call("letters", DEAD, letters[0], letters[0], 1, "1")

    assert listed == [[letters[2], [b"reason", b"poison"]], [letters[1], [b"reason", b"poison"]]]
    assert [row[0] for row in below] == [letters[0]]
    assert whole == [[letters[0], [b"reason", b"poison", b"was.operation", b"op_0"]]]
