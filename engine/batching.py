"""Coalescing: what many tasks want at about the same time is done in one go, and each gets its own answer.

One batch is under way at a time; what arrives meanwhile is the next. Under load (a batch right after one of several) it
lingers for a moment first, because what a batch costs by itself is then shared by more; an idle system answers at once.
Used for accepts, settles, look-ups and the ledger's group commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from engine.errors import Broken, Unavailable

LINGER_S = 0.002  # what a payment's latency can spare several times over, and a batch's fixed cost is worth

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """`carry_out` takes a batch and returns one result or exception per item, or raises for all of them."""

    def __init__(
        self, carry_out: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]], batch_max: int
    ) -> None:
        self._carry_out, self._batch_max = carry_out, batch_max
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._knock = asyncio.Event()
        self._closed = False
        self._busy = False

    async def __call__(self, item: Item) -> Result:
        """The item's own result. Raises what the batch raised, and Unavailable once closed."""
        if self._closed:
            raise Unavailable("store_unavailable", "shutting down")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._knock.set()
        return await future

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """For life. When cancelled, whoever still waits is told Unavailable."""
        try:
            while True:
                await self._knock.wait()
                while self._waiting:
                    if self._busy and len(self._waiting) < self._batch_max:
                        await asyncio.sleep(LINGER_S)
                    self._busy = len(self._waiting) > 1
                    await self.run_once()
                self._knock.clear()
        finally:
            self._closed = True
            for _, future in self._waiting:
                _fail(future, Unavailable("store_unavailable", "shutting down"))

    async def run_once(self) -> None:
        """One batch."""
        batch, self._waiting = self._waiting[: self._batch_max], self._waiting[self._batch_max :]
        results: Sequence[Result | Exception]
        try:
            results = await self._carry_out([item for item, _ in batch])
            if len(results) != len(batch):
                raise Broken(f"{len(results)} results for a batch of {len(batch)}")
        except asyncio.CancelledError:
            for _, future in batch:
                _fail(future, Unavailable("store_unavailable", "shutting down"))
            raise
        except Exception as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                _fail(future, result)
            elif not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
