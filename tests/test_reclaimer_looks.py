"""The reclaimer takes a pending entry that nobody has in hand at the second look, and what nobody had at the first."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import anyio

from engine.errors import Broken
from engine.streams.command_stream import LeaseLost, StreamEntry
from engine.worker.reclaimer import ADOPT_S, Reclaimer
from simulation.simulated_loop import SimulatedLoop


@dataclass(kw_only=True)
class HeldStream:
    """One partition: pending entries, and how many a look adopts."""

    waiting: list[str] = field(default_factory=list)
    adopts: int = 0
    fault: Exception | None = None
    meanwhile: Callable[[], object] = lambda: None

    async def adopt(self, partition: int, token: str) -> int:
        adopted, self.adopts = self.adopts, 0
        return adopted

    async def pending(self, partition: int, token: str, most: int) -> list[tuple[str, int]]:
        if self.fault is not None:
            raise self.fault
        return [(entry, 1) for entry in self.waiting]

    async def reclaim(self, partition: int, token: str, ids: Sequence[str]) -> list[StreamEntry]:
        self.meanwhile()
        return [StreamEntry(id=entry, fields={}, first=False) for entry in ids]


@dataclass(kw_only=True, eq=False)
class HeldTenure:
    """What was delivered to it."""

    partition: int = 3
    held: set[str] = field(default_factory=set)
    reading: bool = True
    delivered: str = ""
    taken: list[str] = field(default_factory=list)
    ownership: Any = field(default_factory=lambda: SimpleNamespace(token="mine"))

    def dispatch(self, entries: list[StreamEntry]) -> None:
        self.taken += [entry.id for entry in entries]
        self.held |= {entry.id for entry in entries}

    def doubt_lease(self) -> None:
        self.reading = False


def looked(story: Callable[[Reclaimer, HeldStream, HeldTenure], Coroutine[Any, Any, None]]) -> None:
    loop, stream, consumer = SimulatedLoop(Random(7), shuffled=False), HeldStream(), HeldTenure()

    async def begun() -> None:
        await anyio.sleep(1.0)
        reclaimer = Reclaimer(stream, {3: consumer})  # type: ignore[arg-type, dict-item]
        await reclaimer.run_once()  # which would adopt
        await story(reclaimer, stream, consumer)

    loop.run_until_complete(begun())
    loop.close()


def test_an_entry_between_its_read_and_its_delivery_is_left_alone_and_a_stray_is_delivered_once() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.waiting = ["1-0", "2-0"]
        await reclaimer.run_once()
        assert consumer.taken == []
        consumer.held.add("2-0")  # its delivery was on the way
        stream.waiting.append("3-0")

        await reclaimer.run_once()
        assert consumer.taken == ["1-0"]
        await reclaimer.run_once()
        assert consumer.taken == ["1-0", "3-0"]
        await reclaimer.run_once()
        assert consumer.taken == ["1-0", "3-0"]

    looked(story)


def test_an_entry_that_was_in_hand_between_two_looks_is_no_stray() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.waiting = ["1-0"]
        await reclaimer.run_once()
        consumer.held.add("1-0")
        await reclaimer.run_once()
        consumer.held.clear()
        await reclaimer.run_once()

        assert consumer.taken == []

    looked(story)


def test_an_entry_that_is_delivered_while_it_is_being_reclaimed_is_not_delivered_again() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.waiting = ["1-0", "2-0"]
        stream.meanwhile = lambda: consumer.held.add("1-0")
        await reclaimer.run_once()
        await reclaimer.run_once()

        assert consumer.taken == ["2-0"]

    looked(story)


def test_what_nobody_had_is_looked_for_now_and_then_and_comes_at_once_with_what_waited_behind_it() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.waiting, stream.adopts = ["1-0", "2-0"], 1
        consumer.held.add("2-0")
        await reclaimer.run_once()
        assert (stream.adopts, consumer.taken) == (1, [])
        consumer.held.clear()
        stream.waiting = ["1-0", "2-0", "3-0"]
        await anyio.sleep(ADOPT_S)
        await reclaimer.run_once()

        assert (stream.adopts, consumer.taken) == (0, ["1-0", "2-0", "3-0"])

    looked(story)


def test_what_is_missing_before_a_read_comes_at_once_and_then_the_reader_goes_on_behind_it() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.waiting = ["1-0"]
        await reclaimer.mend(consumer, "1-0")  # type: ignore[arg-type]
        assert (consumer.taken, consumer.delivered) == (["1-0"], "1-0")

        stream.waiting = [f"{number}-0" for number in range(1, 5001)]  # more than one look shows
        await reclaimer.mend(consumer, "9999-0")  # type: ignore[arg-type]
        assert consumer.delivered == "1-0"

        stream.fault = LeaseLost()
        await reclaimer.mend(consumer, "9999-0")  # type: ignore[arg-type]
        assert (consumer.reading, consumer.delivered) == (False, "1-0")

    looked(story)


def test_a_partition_that_cannot_be_looked_at_ends_no_look() -> None:
    async def story(reclaimer: Reclaimer, stream: HeldStream, consumer: HeldTenure) -> None:
        stream.fault = Broken("another kind of key")
        await reclaimer.run_once()

        assert consumer.reading

    looked(story)
