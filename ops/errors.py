"""What a person at a terminal reads when a command fails: a sentence for every error that is raised on purpose."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import typer
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from redis.exceptions import RedisError
from rich.console import Console

from bank.simulator.database import BankDatabaseError
from bank.simulator.settings import BankSettingsError
from engine.errors import PenstockError, Unavailable
from engine.ledger.refusal import postgres_refusal

_SPOKEN = (PenstockError, BankSettingsError, BankDatabaseError)


@contextmanager
def or_exit(code: int) -> Iterator[None]:
    """What goes wrong on purpose inside becomes its sentence and this exit code."""
    try:
        yield
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        print(f"penstock: {words}", file=sys.stderr)
        sys.exit(code)


@contextmanager
def stopped_in_order(console: Console) -> Iterator[None]:
    """Ctrl-C, or SIGTERM, lets what runs inside stop all it started, then ends the command with exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped", style="yellow")
        raise typer.Exit(130) from None


def in_words(error: BaseException) -> str | None:
    """The sentences of an error, or of all errors in a group; None when one is a bug and needs its traceback."""
    found = [_sentence(each) for each in _leaves(error)]
    return "\n".join(dict.fromkeys(text for text in found if text)) if all(found) else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, Unavailable):
        return error.detail
    if isinstance(error, _SPOKEN):
        return str(error).strip()
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"Postgres took too long: {str(error).strip()}"
    if isinstance(error, psycopg.OperationalError | InsufficientPrivilege | ReadOnlySqlTransaction):
        return postgres_refusal(error).words
    if isinstance(error, RedisError):
        return f"Redis does not do what it should: {error}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return None
