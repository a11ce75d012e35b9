"""SQL statements of the tools that only look, the bench and the reconciliation, each in a file of sql/."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> bytes:
    """The text of sql/<name>.sql. Raises FileNotFoundError for a name that is none."""
    return files("ops").joinpath("sql", f"{name}.sql").read_bytes()
