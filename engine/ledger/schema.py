"""The schema that this code is written for: the migrations it knows, against those that a database has had.

A process on a schema that is not its own would fail at the first payment that meets the difference, so it refuses to
start, and is not ready once the schema changes under it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

MIGRATION = re.compile(r"\d{4}_\w+\.sql")


@cache
def migrations() -> frozenset[str]:
    """The names of the files that make this code's schema."""
    return frozenset(
        file.name for file in files("engine.ledger").joinpath("migrations").iterdir() if MIGRATION.fullmatch(file.name)
    )


def misfit(applied: Iterable[str]) -> str | None:
    """Why this code cannot work on a database with these migrations, and what to do; None when it can."""
    there, known = set(applied), migrations()
    if newer := sorted(there - known):
        return (
            f"the database was migrated by a newer Penstock ({', '.join(newer)} is not known to this one): "
            "start that version instead"
        )
    if missing := sorted(known - there):
        return f"the database lacks {', '.join(missing)}: run `penstock migrate` of this version first"
    return None
