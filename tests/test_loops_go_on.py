"""A background loop goes on after any exception, says so, and ends when it is cancelled."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from engine import loop
from engine.batching import Batcher
from engine.errors import Broken
from engine.loop import forever, surviving


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "log", structlog.get_logger())
    yield


class Rounds:
    """Fails in all ways there are, then works, then is cancelled."""

    faults: tuple[Exception, ...] = (
        RuntimeError("unable to perform operation; the handler is closed"),
        AttributeError("'NoneType' object has no attribute 'write'"),
        ExceptionGroup("several", [ValueError("one"), OSError("other")]),
        KeyError("x"),
    )

    def __init__(self) -> None:
        self.begun = 0
        self.reached = anyio.Event()

    async def once(self) -> None:
        self.begun += 1
        if self.begun <= len(self.faults):
            raise self.faults[self.begun - 1]
        self.reached.set()
        await anyio.sleep_forever()


def test_a_loop_goes_on_after_every_exception_and_names_it() -> None:
    rounds = Rounds()

    async def live() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forever, "rounds", rounds.once)
            await rounds.reached.wait()
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        anyio.run(live)

    assert [(line["event"], line["loop"], line["error"]) for line in said] == [
        ("loop_failed", "rounds", type(fault).__name__) for fault in rounds.faults
    ]


def test_a_round_that_is_cancelled_ends_its_loop() -> None:
    async def live() -> bool:
        with anyio.move_on_after(0.01) as scope:
            async with surviving("rounds"):
                await anyio.sleep_forever()
            raise AssertionError("it went on")
        return scope.cancelled_caught

    assert anyio.run(live)


def test_a_coalescer_survives_a_batch_with_the_wrong_number_of_results() -> None:
    async def live() -> int:
        answers = [[], [1]]

        async def carry_out(batch: object) -> list[int | Exception]:
            return answers.pop(0)  # type: ignore[return-value]

        asked: Batcher[str, int] = Batcher(carry_out, 10)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.run)
            with pytest.raises(Broken):
                await asked("first")
            second = await asked("second")
            tasks.cancel_scope.cancel()
        return second

    assert anyio.run(live) == 1
