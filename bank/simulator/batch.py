"""Batches: questions that arrive while others are under way are asked together in the next one.

Alone, a question is asked at once; under load a round trip to the database is shared by tens of requests. A question
whose client hangs up is withdrawn while it waits, and halted while it is alone under way; among others it is answered.
"""

from asyncio import Event, Future, get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from anyio import create_task_group

from bank.simulator.hang_up import Client

Q = TypeVar("Q")
A = TypeVar("A")
BATCH_MAX = 64  # Bounds the work of one statement; more simply wait for the next.


class Withdrawn(Exception):
    """The client hung up before anybody had begun to answer."""


class Halt:
    """A way to stop the work on one batch, for whoever does it to heed."""

    __slots__ = ("pulled", "stop")

    def __init__(self) -> None:
        self.pulled = False
        self.stop: Callable[[], None] | None = None

    def pull(self) -> None:
        """Stop now, or before it begins."""
        self.pulled = True
        if self.stop is not None:
            self.stop()


class Batch(Generic[Q, A]):
    """Gathers questions for a function that answers many, in their order."""

    def __init__(
        self, answer_all: Callable[[Sequence[Q], Halt], Awaitable[Sequence[A]]], *, under_way_max: int = 1
    ) -> None:
        self._answer_all = answer_all
        self._under_way_max = under_way_max
        self._waiting: list[tuple[Q, Future[A], Client | None]] = []
        self._arrived = Event()

    async def ask(self, question: Q, client: Client | None = None) -> A:
        """The answer to this question; raises what answering raised.

        With a client it is given up when that hangs up in time: it raises Withdrawn or what the halt made of it.
        """
        answer: Future[A] = get_running_loop().create_future()
        if client is not None:
            client.on_gone = lambda: _settle(answer, Withdrawn())
        self._waiting.append((question, answer, client))
        self._arrived.set()
        try:
            return await answer
        finally:
            if client is not None:
                client.on_gone = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with create_task_group() as rounds:
            for _ in range(self._under_way_max):
                rounds.start_soon(self._rounds)

    async def _rounds(self) -> None:
        while True:
            await self._arrived.wait()
            asked, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            if not self._waiting:
                self._arrived.clear()
            if asked := [entry for entry in asked if not entry[1].done()]:
                await self._answer(asked)

    async def _answer(self, asked: list[tuple[Q, "Future[A]", Client | None]]) -> None:
        halt = Halt()
        for _, _, client in asked:
            if client is not None:
                client.on_gone = halt.pull if len(asked) == 1 else None
        try:
            answers = await self._answer_all([question for question, _, _ in asked], halt)
        except Exception as error:  # Whatever it is, it is raised where the question was asked.
            for _, future, _ in asked:
                _settle(future, error)
            return
        for (_, future, _), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _settle(answer: "Future[A]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
