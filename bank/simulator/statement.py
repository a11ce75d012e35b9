"""Statements by name: every SQL text of the bank lives in a file beside this module."""

from functools import cache
from importlib.resources import files
from typing import LiteralString

SQL_FOLDER = files("bank.simulator") / "sql"


@cache
def statement(name: str) -> LiteralString:
    """The text of sql/statements/<name>.sql. It is part of the package, hence as good as a literal."""
    text: LiteralString = (SQL_FOLDER / "statements" / f"{name}.sql").read_text().rstrip()
    return text


def migrations() -> list[tuple[str, LiteralString]]:
    """(name, text) of sql/NNNN_what.sql in the order they are applied."""
    found = [entry for entry in SQL_FOLDER.iterdir() if entry.name.endswith(".sql")]
    return [(entry.name, entry.read_text()) for entry in sorted(found, key=lambda e: e.name)]
