"""Lanes to the database: a fixed number of connections, each working through one shared queue of questions.

It is here because checking a connection out of a pool and in again costs as much CPU as the query itself. A lane
borrows its connection from the pool for minutes and gives it back when it is old or broken; the pool makes the next.
Every question is one statement in autocommit, hence one READ COMMITTED transaction.
"""

import select
from asyncio import Future, Queue, get_running_loop
from typing import Any

import psycopg
from anyio import create_task_group
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from bank.simulator.statement import statement

Rows = list[tuple[Any, ...]]
CONNECT_TIMEOUT_S = 2.0  # How long questions wait for a database that is away before they fail.


class Lanes:
    """The only door to the database once the bank serves."""

    def __init__(self, database_url: str, *, count: int, lifetime_s: float) -> None:
        self._count = count
        self._lifetime_s = lifetime_s
        self._questions: Queue[tuple[str, tuple[object, ...], Future[Rows]]] = Queue()
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] = AsyncConnectionPool(
            database_url,
            kwargs={"autocommit": True, "cursor_factory": psycopg.AsyncRawCursor},
            min_size=count,
            max_size=count,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=CONNECT_TIMEOUT_S,  # Then anew: a long back-off would outlive the outage.
            open=False,
        )

    async def ask(self, name: str, *parameters: object) -> Rows:
        """The rows of the statement of that name; raises psycopg.Error."""
        answer: Future[Rows] = get_running_loop().create_future()
        self._questions.put_nowait((name, parameters, answer))
        return await answer

    async def run(self) -> None:
        """Work until cancelled."""
        async with self._pool, create_task_group() as lanes:
            for _ in range(self._count):
                lanes.start_soon(self._lane)

    async def _lane(self) -> None:
        while True:
            try:
                async with self._pool.connection() as connection:
                    await self._work(connection)
            except PoolTimeout as away:
                while not self._questions.empty():
                    _settle(self._questions.get_nowait()[2], away)

    async def _work(self, connection: psycopg.AsyncConnection[Any]) -> None:
        cursor = connection.cursor()
        now_s = get_running_loop().time
        until_s = now_s() + self._lifetime_s if self._lifetime_s > 0 else float("inf")
        while not connection.closed and now_s() < until_s:
            question = await self._questions.get()
            if _has_news(connection):
                self._questions.put_nowait(question)
                await connection.close()
                return
            name, parameters, answer = question
            try:
                await cursor.execute(statement(name), parameters, prepare=True)
                rows = await cursor.fetchall() if cursor.description else []
            except Exception as error:  # Whatever it is, it is raised where the question was asked.
                _settle(answer, error)
            else:
                if not answer.done():
                    answer.set_result(rows)


def _has_news(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the server has said something unasked, which an idle connection only hears when it is being closed.

    Without this look every lane would lose one question after the database was restarted, and a lost authorization is
    answered 400 internal_error, which a gateway must take for a hold that may have been placed.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settle(answer: "Future[Rows]", error: Exception) -> None:
    if not answer.done():  # The one who asked may have been cancelled meanwhile.
        answer.set_exception(error)
