"""Places at banks go round among the merchants that wait, and none is ever lost or given twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from engine.resilience.fair_semaphore import FairSemaphore


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def waiting(places: FairSemaphore, merchant: str, log: list[str]) -> asyncio.Task[None]:
    async def take() -> None:
        await places.take(merchant)
        log.append(merchant)

    task = asyncio.create_task(take())
    await asyncio.sleep(0)
    return task


def test_a_free_place_is_taken_at_once_and_there_are_no_more_than_there_are() -> None:
    async def story() -> None:
        places, log = FairSemaphore(2), []  # type: tuple[FairSemaphore, list[str]]
        for merchant in ("a", "a", "b"):
            await waiting(places, merchant, log)

        assert log == ["a", "a"], "and there is no third"

    run(story())


def test_merchants_take_turns_whoever_came_first_and_with_how_much() -> None:
    async def story() -> None:
        places, log = FairSemaphore(1), []  # type: tuple[FairSemaphore, list[str]]
        await places.take("flood")
        for merchant in ["flood"] * 100 + ["b", "c", "b"]:
            await waiting(places, merchant, log)

        for _ in range(7):
            places.give_back()
            await asyncio.sleep(0)

        assert log == ["flood", "b", "c", "flood", "b", "flood", "flood"]

    run(story())


def test_within_a_merchant_who_came_first_is_first() -> None:
    async def story() -> None:
        places, log = FairSemaphore(1), []  # type: tuple[FairSemaphore, list[int]]
        await places.take("a")

        async def take(number: int) -> None:
            await places.take("a")
            log.append(number)
            places.give_back()

        tasks = [asyncio.create_task(take(number)) for number in range(5)]
        await asyncio.sleep(0)
        places.give_back()
        await asyncio.gather(*tasks)

        assert log == [0, 1, 2, 3, 4]

    run(story())


@pytest.mark.parametrize("given", [False, True], ids=["while it waited", "when it had just been given a place"])
def test_who_is_cancelled_leaves_its_place_to_the_next(given: bool) -> None:
    async def story() -> None:
        places, log = FairSemaphore(1), []  # type: tuple[FairSemaphore, list[str]]
        await places.take("a")
        doomed, heir = await waiting(places, "b", log), await waiting(places, "c", log)

        if given:
            places.give_back()
        doomed.cancel()
        await asyncio.sleep(0)
        if not given:
            places.give_back()
        await asyncio.wait_for(heir, 1)

        assert log == ["c"]

    run(story())


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_all_places_are_taken_and_in_the_end_all_are_free(seed: int) -> None:
    chance = random.Random(seed)

    async def story() -> None:
        places, taken, most = FairSemaphore(3), 0, 0

        async def attempt(merchant: str) -> None:
            nonlocal taken, most
            await places.take(merchant)
            taken += 1
            most = max(most, taken)
            try:
                await asyncio.sleep(0)
            finally:
                taken -= 1
                places.give_back()

        tasks = [asyncio.create_task(attempt(chance.choice("abc"))) for _ in range(60)]
        for task in chance.sample(tasks, 20):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert (taken, most) == (0, 3)
        for _ in range(3):
            await asyncio.wait_for(places.take("z"), 1)

    run(story())
