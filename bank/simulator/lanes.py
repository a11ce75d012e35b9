"""Lanes to the database: a fixed number of connections, each working through one shared queue of questions.

It is here because checking a connection out of a pool and in again costs as much CPU as the query itself. A lane makes
its connection anew when it is old or broken, and when the database is away its question fails at once.
Every question is one statement in autocommit, hence one READ COMMITTED transaction.
"""

import select
from asyncio import Future, Queue, Task, create_task, get_running_loop
from contextlib import suppress
from typing import Any

import psycopg
from anyio import create_task_group

from bank.simulator.batch import Halt, Withdrawn
from bank.simulator.statement import statement

Rows = list[tuple[Any, ...]]
Question = tuple[str, tuple[object, ...], "Future[Rows]", Halt | None]
Cursor = psycopg.AsyncCursor[Any]
CONNECT_TIMEOUT_S = 2  # For a database that neither answers nor refuses.


class NotConnected(psycopg.OperationalError):
    """The database is away: the statement surely did not run."""


class ConnectionWorkers:
    """The only door to the database once the bank serves."""

    def __init__(self, database_url: str, *, count: int, lifetime_s: float) -> None:
        self._database_url = database_url
        self._count = count
        self._lifetime_s = lifetime_s if lifetime_s > 0 else float("inf")
        self._questions: Queue[Question] = Queue()

    async def ask(self, name: str, *parameters: object, halt: Halt | None = None) -> Rows:
        """The rows of the statement of that name; raises psycopg.Error, and Withdrawn when it was halted before."""
        answer: Future[Rows] = get_running_loop().create_future()
        self._questions.put_nowait((name, parameters, answer, halt))
        return await answer

    async def run(self) -> None:
        """Work until cancelled."""
        async with create_task_group() as lanes:
            for _ in range(self._count):
                lanes.start_soon(self._lane)

    async def _lane(self) -> None:
        cursor: Cursor | None = None
        now_s, until_s = get_running_loop().time, 0.0
        try:
            with suppress(psycopg.Error):  # Before the first question, which tries again if it must.
                cursor, until_s = await self._connect(), now_s() + self._lifetime_s
            while True:
                question = await self._questions.get()
                if cursor is not None and (now_s() > until_s or _is_broken(cursor.connection)):
                    await cursor.connection.close()
                    cursor = None
                if cursor is None:
                    try:
                        cursor, until_s = await self._connect(), now_s() + self._lifetime_s
                    except psycopg.Error as away:
                        _settle(question[2], NotConnected(str(away)))
                        continue
                await _answer(cursor, question)
        finally:
            if cursor is not None:
                await cursor.connection.close()

    async def _connect(self) -> Cursor:
        connection = await psycopg.AsyncConnection.connect(
            self._database_url,
            autocommit=True,
            cursor_factory=psycopg.AsyncRawCursor,
            connect_timeout=CONNECT_TIMEOUT_S,
        )
        return connection.cursor()


async def _answer(cursor: Cursor, question: Question) -> None:
    name, parameters, answer, halt = question
    if halt is not None and halt.pulled:
        _settle(answer, Withdrawn())
        return
    stopping: list[Task[None]] = []
    if halt is not None:
        halt.stop = lambda: stopping.append(create_task(cursor.connection.cancel_safe()))
    try:
        await cursor.execute(statement(name), parameters, prepare=True)
        rows = await cursor.fetchall() if cursor.description else []
    except Exception as error:  # Whatever it is, it is raised where the question was asked.
        _settle(answer, error)
    else:
        if not answer.done():
            answer.set_result(rows)
    if halt is not None:
        halt.stop = None
    for task in stopping:  # It must not strike the next statement.
        with suppress(psycopg.Error):
            await task


def _is_broken(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether the connection is closed, or the server has said something unasked, which it only does when it closes it.

    Without this look every lane would lose one question after the database was restarted, and a lost authorization is
    answered 400 internal_error, which a gateway must take for a hold that may have been placed.
    """
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settle(answer: "Future[Rows]", error: Exception) -> None:
    if not answer.done():  # The one who asked may have been cancelled meanwhile.
        answer.set_exception(error)
