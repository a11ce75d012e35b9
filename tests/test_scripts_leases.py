"""Leases and fenced reads in Redis: only the holder reads, and a new one takes over all that was left (I2, I3)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from engine.streams import keys
from support.scripted import LEASE, MINE, STREAM, THEIRS, Scripted, ids, scripts_on


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripted]:
    with scripts_on(redis_url) as scripted:
        yield scripted


def test_a_free_lease_is_taken_kept_by_its_holder_and_held_against_others(scripts: Scripted) -> None:
    assert scripts.take_lease(MINE) == "taken"
    assert scripts.take_lease(MINE) == "kept"
    assert scripts.take_lease(THEIRS) == "held"


def test_keeping_a_lease_renews_its_time(scripts: Scripted) -> None:
    scripts.take_lease(MINE, ms=5_000)

    scripts.take_lease(MINE, ms=60_000)

    assert scripts.plain.pttl(LEASE) > 30_000


def test_a_lease_is_released_by_its_holder_only(scripts: Scripted) -> None:
    scripts.take_lease(MINE)

    assert scripts.call("release-lease", LEASE, THEIRS) == 0
    assert scripts.call("release-lease", LEASE, MINE) == 1
    assert scripts.take_lease(THEIRS) == "taken"


@pytest.mark.parametrize("holder", [None, THEIRS])
def test_who_does_not_hold_the_lease_reads_and_claims_nothing(scripts: Scripted, holder: str | None) -> None:
    scripts.accept("op_1")
    if holder:
        scripts.take_lease(holder)

    assert scripts.read(MINE) == [b"lost"]
    assert scripts.claim(MINE) == [b"lost"]
    assert scripts.plain.xlen(STREAM) == 1


def test_the_holder_reads_in_the_order_of_acceptance_and_each_entry_once(scripts: Scripted) -> None:
    accepted = [scripts.accept(f"op_{number}")[1].decode() for number in range(5)]
    scripts.take_lease()

    assert ids(scripts.read(entries=3)) == accepted[:3]
    assert ids(scripts.read()) == accepted[3:]
    assert scripts.read() == [b"read", []]
    assert scripts.pending() == 5


def test_a_group_that_is_gone_is_made_again_and_reads_from_the_beginning(scripts: Scripted) -> None:
    entry = scripts.accept("op_1")[1].decode()
    scripts.take_lease()
    scripts.read()
    scripts.plain.xgroup_destroy(STREAM, keys.GROUP)

    assert ids(scripts.read()) == [entry]


def test_a_stream_that_never_was_is_no_error(scripts: Scripted) -> None:
    scripts.take_lease()

    assert scripts.read() == [b"read", []]
    assert scripts.claim() == [b"claimed", b"0-0", []]


def test_a_new_holder_takes_over_all_that_was_read_and_left_in_order(scripts: Scripted) -> None:
    accepted = [scripts.accept(f"op_{number}")[1].decode() for number in range(4)]
    scripts.take_lease(THEIRS)
    scripts.read(THEIRS, consumer="w1", entries=3)
    scripts.call("release-lease", LEASE, THEIRS)

    scripts.take_lease(MINE)
    claimed = scripts.claim(MINE, consumer="w2")

    assert claimed[:2] == [b"claimed", b"0-0"]
    assert ids(claimed) == accepted[:3]
    assert ids(scripts.read(MINE, consumer="w2")) == accepted[3:]
    assert [one["name"] for one in scripts.plain.xinfo_consumers(STREAM, keys.GROUP)] == [b"w2"]


def test_workers_know_each_other_by_their_heartbeats(scripts: Scripted) -> None:
    beat = scripts.call
    before, first, _, *live = beat("heartbeat", keys.WORKERS, "a", 60_000)
    assert (before, live) == (0, [b"a"])
    assert sorted(beat("heartbeat", keys.WORKERS, "b", 60_000)[3:]) == [b"a", b"b"]
    assert beat("heartbeat", keys.WORKERS, "a", 60_000)[0] == first

    beat("leave", keys.WORKERS, "a")

    assert beat("heartbeat", keys.WORKERS, "b", 60_000)[3:] == [b"b"]


def test_a_silent_worker_no_longer_counts(scripts: Scripted) -> None:
    scripts.plain.zadd(keys.WORKERS, {"dead": 1})

    assert scripts.call("heartbeat", keys.WORKERS, "a", 60_000)[3:] == [b"a"]


def test_a_worker_sees_that_redis_lost_its_memory(scripts: Scripted) -> None:
    scripts.call("heartbeat", keys.WORKERS, "a", 60_000)
    scripts.plain.flushall()

    assert scripts.call("heartbeat", keys.WORKERS, "a", 60_000)[0] == 0


def test_a_worker_sees_that_redis_lost_its_last_second(scripts: Scripted) -> None:
    scripts.call("heartbeat", keys.WORKERS, "a", 60_000)
    remembered = scripts.plain.zscore(keys.WORKERS, "a")
    time.sleep(0.002)
    told = scripts.call("heartbeat", keys.WORKERS, "a", 60_000)[1]

    scripts.plain.zadd(keys.WORKERS, {"a": remembered})  # what a replica knew

    assert scripts.call("heartbeat", keys.WORKERS, "a", 60_000)[0] < told


def test_backlog_pending_and_lag_are_exact_after_acknowledgements_out_of_order(scripts: Scripted) -> None:
    for number in range(5):
        scripts.accept(f"op_{number}")
    scripts.take_lease()
    read = ids(scripts.read(entries=3))

    scripts.settle("op_2", read[2])  # the newest first: actors finish in any order

    backlog = scripts.plain.xlen(STREAM)
    assert (backlog, scripts.pending(), backlog - scripts.pending()) == (4, 2, 2)
    assert scripts.plain.xinfo_groups(STREAM)[0]["lag"] is None, "as the README says"


def test_a_reader_that_missed_a_reply_reads_nothing_new_before_it_knows(scripts: Scripted) -> None:
    scripts.take_lease()
    accepted = [scripts.accept(f"op_{number}")[1] for number in range(3)]

    scripts.read(entries=1)  # and this reply is lost
    behind = scripts.read(delivered="0-0")
    known = scripts.read(delivered=accepted[0])

    assert behind == [b"gap", accepted[0]]
    assert ids(known) == [entry.decode() for entry in accepted[1:]]


def test_a_consumer_goes_only_when_it_holds_nothing_and_only_at_the_word_of_the_leases_holder(
    scripts: Scripted,
) -> None:
    def consumers() -> list[bytes]:
        return sorted(one["name"] for one in scripts.plain.xinfo_consumers(STREAM, keys.GROUP))

    for number in range(3):
        scripts.accept(f"op_{number}")
    scripts.take_lease(THEIRS)
    scripts.read(THEIRS, consumer="dead")
    scripts.call("release-lease", LEASE, THEIRS)
    scripts.take_lease(MINE)

    claim = ("claim", LEASE, STREAM)
    refused = scripts.call(*claim, THEIRS, keys.GROUP, "dead", "0-0", 100)
    first = scripts.call(*claim, MINE, keys.GROUP, "w2", "0-0", 2)
    halfway = consumers()
    last = scripts.call(*claim, MINE, keys.GROUP, "w2", first[1], 2)

    assert refused == [b"lost"]
    assert (len(first[2]), halfway) == (2, [b"dead", b"w2"])
    assert (last[1], consumers()) == (b"0-0", [b"w2"])
    assert scripts.pending() == 3


@pytest.mark.parametrize("left_ms", [7_200_000, None], ids=["taken before the clock stepped back", "for ever"])
def test_a_lease_that_lasts_longer_than_a_lease_is_cut_by_whoever_sees_it(
    scripts: Scripted, left_ms: int | None
) -> None:
    scripts.plain.set(LEASE, THEIRS, px=left_ms)

    assert scripts.take_lease(MINE, ms=5_000) == "held"
    assert 0 < scripts.plain.pttl(LEASE) <= 5_000
    scripts.plain.set(LEASE, THEIRS, px=left_ms)
    assert scripts.call("cut-lease", LEASE, 5_000) == 1
    assert 0 < scripts.plain.pttl(LEASE) <= 5_000


def test_who_is_refused_a_lease_does_not_keep_it_alive_for_its_holder(scripts: Scripted) -> None:
    scripts.take_lease(THEIRS, ms=5_000)

    assert scripts.take_lease(MINE, ms=60_000) == "held"
    assert scripts.plain.pttl(LEASE) <= 5_000


def test_a_worker_steps_back_only_while_another_one_lives(scripts: Scripted) -> None:
    scripts.call("heartbeat", keys.WORKERS, "unable", 60_000)
    scripts.plain.zadd(keys.WORKERS, {"dead": 1})
    alone = scripts.call("abstain", keys.WORKERS, "unable", 60_000)
    scripts.call("heartbeat", keys.WORKERS, "able", 60_000)

    assert (alone, scripts.call("abstain", keys.WORKERS, "unable", 60_000)) == (0, 1)
    assert scripts.plain.zrange(keys.WORKERS, 0, -1) == [b"able"]


def test_a_lease_within_its_time_is_not_cut(scripts: Scripted) -> None:
    scripts.take_lease(THEIRS, ms=5_000)

    assert scripts.call("cut-lease", LEASE, 60_000) == 0
    assert scripts.plain.pttl(LEASE) <= 5_000
    assert scripts.call("cut-lease", keys.lease(5), 60_000) == 0


def test_a_heartbeat_that_lies_ahead_of_the_clock_counts_from_now(scripts: Scripted) -> None:
    ahead = int(time.time() * 1000) + 7_200_000
    scripts.plain.zadd(keys.WORKERS, {"dead": ahead})

    _, now, found, *live = scripts.call("heartbeat", keys.WORKERS, "a", 50)

    assert (found, sorted(live)) == (1, [b"a", b"dead"])
    assert scripts.plain.zscore(keys.WORKERS, "dead") == now
    time.sleep(0.06)
    assert scripts.call("heartbeat", keys.WORKERS, "a", 50)[3:] == [b"a"]
