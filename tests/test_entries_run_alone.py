"""Entries that are run alone share one wait for what former owners had at the bank; none is asked early (I3, I7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from engine.domain.command import Command
from engine.domain.payment import Status, Verb
from engine.errors import Unavailable
from engine.ledger.writer import FencingToken
from engine.streams.command_stream import LeaseLost, StreamEntry
from engine.streams.completion import DeadLettered
from engine.streams.encoding import encode_command
from engine.worker.partition_consumer import _DELIVERIES_MAX, PartitionConsumer, PartitionOwnership
from support.actor_stand import BEGINS_S, HastyLoop, HeldBank, Stand, played
from support.decision_stand import LOST, PATIENCE, Desk, a_captured_payment, a_command, an_authorized_payment

ATTEMPT_S = PATIENCE.attempt.total_seconds()
WINDOW_S = PATIENCE.send_window.total_seconds()
WORST_S = 60.0  # of the bank: far longer than an attempt, so that its proof is what is waited for
DRAINED_S = WINDOW_S + WORST_S
_LOOK_S = 0.01


@dataclass(kw_only=True)
class HeldStream:
    """One partition's pending entries, each delivered too often; what the actors let go of is gone."""

    stand: Stand
    commands: dict[str, Command]
    faults: dict[int, Exception] = field(default_factory=dict)  # of the first, the second .. reclaim
    reclaims: int = 0
    reclaimed: list[tuple[float, str]] = field(default_factory=list)

    async def pending(self, partition: int, token: str, most: int) -> list[tuple[str, int]]:
        gone = {
            entry
            for done in self.stand.let_go
            for entry in ((done.entry,) if isinstance(done, DeadLettered) else done.entries)
        }
        return [(entry, _DELIVERIES_MAX + 1) for entry in self.commands if entry not in gone]

    async def reclaim(self, partition: int, token: str, ids: Sequence[str]) -> list[StreamEntry]:
        self.reclaims += 1
        if self.reclaims in self.faults:
            raise self.faults[self.reclaims]
        self.reclaimed += [(anyio.current_time() - BEGINS_S, entry) for entry in ids]
        return [self._entry(entry) for entry in ids]

    async def claim(self, partition: int, token: str) -> list[StreamEntry]:
        return [self._entry(entry) for entry, _ in await self.pending(partition, token, 100)]

    def _entry(self, entry: str) -> StreamEntry:
        words = [word if isinstance(word, bytes) else word.encode() for word in encode_command(self.commands[entry])]
        return StreamEntry(id=entry, fields=dict(zip(words[::2], words[1::2], strict=True)), first=False)


def lost_capture() -> Desk:
    """A capture that a former owner committed just now, and may be sending."""
    return an_authorized_payment().accept(Verb.CAPTURE)


def taken_over(
    story: Callable[[Stand, HeldStream, PartitionConsumer], Coroutine[Any, Any, None]],
    desk: Desk,
    *keys: str,
    verb: Verb = Verb.CAPTURE,
    worst_s: float = WORST_S,
) -> None:
    """A new owner of the partition, in which these commands for the payment are pending."""

    async def begun(stand: Stand) -> None:
        commands = {f"{number}-0": a_command(verb, key) for number, key in enumerate(keys, 5)}
        stream = HeldStream(stand=stand, commands=commands)
        ownership = PartitionOwnership(partition=desk.payment.partition, fence=FencingToken(2, "ours"))
        consumer = PartitionConsumer(ownership, stand.context, stream, asyncio.Lock())  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consumer.run)
            await story(stand, stream, consumer)
            consumer.fence_off("the story is over")

    played(begun, desk, worst_s=worst_s)


async def until(done: Callable[[], object]) -> None:
    for _ in range(int(10 * DRAINED_S / _LOOK_S)):
        if done():
            return
        await anyio.sleep(_LOOK_S)
    raise AssertionError("it never came")


@pytest.mark.parametrize(
    ("worst_s", "alone_s", "least_s"),
    [(0.0, WINDOW_S, ATTEMPT_S), (WORST_S, DRAINED_S, DRAINED_S)],
    ids=["quick", "slow"],
)
def test_the_wait_of_those_that_are_run_alone_began_with_their_owner(
    worst_s: float, alone_s: float, least_s: float
) -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        await until(lambda: consumer.reading)

        ((began_s, _),), (asked_s,) = stream.reclaimed, stand.bank.asked_at
        assert alone_s <= began_s < alone_s + 0.1
        assert least_s <= asked_s < least_s + 0.1

    taken_over(story, lost_capture(), "next", worst_s=worst_s)


def test_what_was_worked_on_while_entries_run_alone_is_waited_for_by_itself() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        def unreadable() -> None:  # from the first attempt on, until its actor has given up
            stand.ledger.refuses = 4 if len(stand.bank.asked) == 1 else 0

        stand.bank.says, stand.bank.meanwhile = [LOST], unreadable
        await until(lambda: consumer.reading)

        (first_s, _), (second_s, _) = stand.bank.asked
        (_, (second_alone_s, _)) = stream.reclaimed
        assert second_alone_s < first_s + 1.0, "the one before was given up while its attempt was at the bank"
        assert second_s >= first_s + DRAINED_S
        assert stand.operation(Verb.CAPTURE).status is Status.SUCCEEDED

    taken_over(story, lost_capture(), "next", "next")


def test_after_redis_was_away_what_was_run_alone_before_is_waited_for_too() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        def unreadable() -> None:
            stand.ledger.refuses = 4 if len(stand.bank.asked) == 1 else 0

        stand.bank.says, stand.bank.meanwhile = [LOST], unreadable
        stream.faults = {2: Unavailable("redis_unavailable", "nobody is there")}
        await until(lambda: consumer.reading)

        (first_s, _), (second_s, _) = stand.bank.asked
        assert first_s + DRAINED_S <= second_s < first_s + DRAINED_S + 2.0

    taken_over(story, lost_capture(), "next", "next")


def test_an_owner_that_loses_the_lease_while_it_waits_asks_nothing() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        stream.faults = {1: LeaseLost()}
        await until(lambda: consumer.fenced_off)

        assert stand.bank.asked == []

    taken_over(story, lost_capture(), "next")


def test_an_owner_that_is_stopped_while_it_waits_asks_nothing_and_ends_at_once() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        await anyio.sleep(WINDOW_S + 1.0)
        await consumer.drain(10.0)
        await anyio.sleep(DRAINED_S)

        assert (stand.bank.asked, stream.reclaimed) == ([], [])

    taken_over(story, lost_capture(), "next")


@pytest.mark.parametrize("ousted_after_s", [0.0, 1.0, WINDOW_S + 1.0])
def test_an_owner_of_the_same_process_waits_for_the_attempt_of_the_one_before(ousted_after_s: float) -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        stand.bank.takes_s = [ATTEMPT_S]
        await until(lambda: stand.bank.asked)
        await anyio.sleep(ousted_after_s)
        consumer.fence_off("another worker had the partition for a moment")
        ownership = PartitionOwnership(partition=consumer.partition, fence=FencingToken(4, "ours again"))
        later = PartitionConsumer(ownership, stand.context, stream, asyncio.Lock())  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later.run)
            await until(lambda: later.reading)
            later.fence_off("the story is over")

        first_s, second_s = stand.bank.asked_at
        ousted_s = first_s + ousted_after_s
        assert ousted_s + DRAINED_S <= second_s < ousted_s + DRAINED_S + 0.2

    taken_over(story, lost_capture(), "next")


def test_while_the_bank_is_silent_each_waits_for_itself() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        stand.bank.answers = False
        await until(lambda: stream.reclaimed)
        stand.bank.answers = True
        (alone_s, _) = stream.reclaimed[0]
        await until(lambda: stand.bank.asked)

        assert stand.bank.asked_at[0] >= alone_s + DRAINED_S

    taken_over(story, lost_capture(), "next")


def test_a_connector_that_cannot_even_be_probed_does_not_stop_the_partition() -> None:
    async def story(stand: Stand, stream: HeldStream, consumer: PartitionConsumer) -> None:
        def fails() -> None:
            raise RuntimeError("nobody expected this")

        stand.bank.probed = fails
        await until(lambda: consumer.reading)

        assert stand.operation(Verb.REFUND).status is Status.SUCCEEDED

    taken_over(story, a_captured_payment(), "next", verb=Verb.REFUND)


def test_what_two_banks_may_have_in_their_queues_is_waited_for_until_both_are_drained() -> None:
    async def story(stand: Stand) -> None:
        quick, slow = stand.gate, stand.a_gate(HeldBank(clock=stand.clock), worst_s=2 * WORST_S)
        stand.connectors |= {"first": slow, "last": quick}
        began_s = anyio.current_time()

        assert await stand.context.bank_caller.all_drained("3:token")
        assert anyio.current_time() - began_s >= WINDOW_S + 2 * WORST_S

    played(story, worst_s=WORST_S)


def test_nothing_is_drained_while_one_of_two_banks_is_silent() -> None:
    async def story(stand: Stand) -> None:
        stand.connectors["silent"] = stand.a_gate(HeldBank(clock=stand.clock, answers=False), worst_s=WORST_S)

        assert not await stand.context.bank_caller.all_drained("3:token")

    played(story, worst_s=WORST_S)


def test_a_wait_that_was_cancelled_proves_nothing_to_the_next_one() -> None:
    async def story(stand: Stand) -> None:
        with anyio.move_on_after(WINDOW_S + 1.0):
            await stand.context.bank_caller.all_drained("3:token")
        began_s = anyio.current_time()

        assert await stand.context.bank_caller.all_drained("3:token")
        assert anyio.current_time() - began_s >= DRAINED_S

    played(story, worst_s=WORST_S)


def test_timers_that_ring_early_shorten_no_wait() -> None:
    async def story(stand: Stand) -> None:
        probed: list[float] = []
        stand.bank.probed = lambda: probed.append(anyio.current_time())
        began_s = anyio.current_time()

        assert await stand.context.bank_caller.all_drained("3:token")
        (probed_s,) = probed
        assert probed_s - began_s >= WINDOW_S
        assert anyio.current_time() - probed_s >= WORST_S

    played(story, worst_s=WORST_S, time=HastyLoop)
