"""SQL statements, each in a file of sql/ under its name. No SQL lives in Python."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> bytes:
    """The text of sql/<name>.sql. Raises FileNotFoundError for a name that is none."""
    return files("engine.ledger").joinpath("sql", f"{name}.sql").read_bytes()
