"""Batches: questions that arrive while others are under way are asked together in the next one.

Alone, a question is asked at once; under load a round trip to the database is shared by tens of requests.
"""

from asyncio import Event, Future, get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from anyio import create_task_group

Q = TypeVar("Q")
A = TypeVar("A")
BATCH_MAX = 64  # Bounds the work of one statement; more simply wait for the next.


class Batch(Generic[Q, A]):
    """Gathers questions for a function that answers many, in their order."""

    def __init__(self, answer_all: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, under_way_max: int = 1) -> None:
        self._answer_all = answer_all
        self._under_way_max = under_way_max
        self._waiting: list[tuple[Q, Future[A]]] = []
        self._arrived = Event()

    async def ask(self, question: Q) -> A:
        """The answer to this question; raises what answering raised."""
        answer: Future[A] = get_running_loop().create_future()
        self._waiting.append((question, answer))
        self._arrived.set()
        return await answer

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
            await self._settle([entry for entry in asked if not entry[1].done()])

    async def _settle(self, asked: list[tuple[Q, "Future[A]"]]) -> None:
        try:
            answers = await self._answer_all([question for question, _ in asked])
        except Exception as error:  # Whatever it is, it is raised where the question was asked.
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
