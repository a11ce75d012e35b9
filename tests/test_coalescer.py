"""The coalescer: one batch at a time, everybody their own answer, nobody left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from engine.batching import Batcher
from engine.errors import Unavailable


class Batches:
    """Carries out batches when told to; squares numbers, refuses 13, fails as a whole on 666."""

    def __init__(self) -> None:
        self.carried_out: list[list[int]] = []
        self.under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, batch: Sequence[int]) -> list[int | Exception]:
        self.carried_out.append(list(batch))
        self.under_way += 1
        assert self.under_way == 1, "one batch at a time"
        await self.gate.wait()
        self.under_way -= 1
        if 666 in batch:
            raise ConnectionError("all of them")
        return [ValueError(number) if number == 13 else number * number for number in batch]


async def _asked(*tasks: asyncio.Task[int]) -> None:
    """Let the tasks reach the coalescer."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_what_comes_while_a_batch_is_under_way_is_the_next_batch() -> None:
    async def scene() -> None:
        batches = Batches()
        squares: Batcher[int, int] = Batcher(batches, 10)
        running = asyncio.create_task(squares.run())
        batches.gate.clear()
        first = asyncio.create_task(squares(1))
        await _asked(first)
        others = [asyncio.create_task(squares(number)) for number in (2, 3, 4)]
        await _asked(*others)

        batches.gate.set()
        results = await asyncio.gather(first, *others)

        assert results == [1, 4, 9, 16]
        assert batches.carried_out == [[1], [2, 3, 4]]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())


def test_a_batch_has_a_limit() -> None:
    async def scene() -> None:
        batches = Batches()
        squares: Batcher[int, int] = Batcher(batches, 4)
        asked = [asyncio.create_task(squares(number)) for number in range(10)]
        await _asked(*asked)
        assert len(squares) == 10

        running = asyncio.create_task(squares.run())
        assert await asyncio.gather(*asked) == [number * number for number in range(10)]

        assert [len(batch) for batch in batches.carried_out] == [4, 4, 2]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())


def test_one_item_s_exception_is_its_own() -> None:
    async def scene() -> None:
        squares: Batcher[int, int] = Batcher(Batches(), 10)
        asked = [asyncio.create_task(squares(number)) for number in (12, 13, 14)]
        await _asked(*asked)

        await squares.run_once()
        one, refused, other = await asyncio.gather(*asked, return_exceptions=True)

        assert (one, other) == (144, 196)
        assert isinstance(refused, ValueError)

    asyncio.run(scene())


def test_a_failed_batch_fails_everybody_in_it_and_not_the_next() -> None:
    async def scene() -> None:
        squares: Batcher[int, int] = Batcher(Batches(), 2)
        asked = [asyncio.create_task(squares(number)) for number in (666, 2, 3)]
        await _asked(*asked)

        await squares.run_once()
        await squares.run_once()
        results = await asyncio.gather(*asked, return_exceptions=True)

        assert [type(result) for result in results] == [ConnectionError, ConnectionError, int]

    asyncio.run(scene())


def test_who_gives_up_waiting_disturbs_nobody() -> None:
    async def scene() -> None:
        squares: Batcher[int, int] = Batcher(Batches(), 10)
        impatient, refused, patient = (asyncio.create_task(squares(number)) for number in (5, 13, 6))
        await _asked(impatient, refused, patient)
        impatient.cancel()
        refused.cancel()

        await squares.run_once()

        assert await patient == 36
        await asyncio.gather(impatient, refused, return_exceptions=True)

    asyncio.run(scene())


def test_at_the_end_everybody_is_told_and_nobody_is_let_in() -> None:
    async def scene() -> None:
        batches = Batches()
        squares: Batcher[int, int] = Batcher(batches, 1)
        batches.gate.clear()
        running = asyncio.create_task(squares.run())
        asked = [asyncio.create_task(squares(number)) for number in (1, 2)]
        await _asked(*asked)

        running.cancel()
        results = await asyncio.gather(*asked, return_exceptions=True)

        assert [type(result) for result in results] == [Unavailable, Unavailable]
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(Unavailable):
            await squares(3)

    asyncio.run(scene())
