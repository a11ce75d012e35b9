"""A store that cannot be used, in words: which one, its own words, what to grant or set, and whether to wait for it.

ledger/refusal.py and streams/refusal.py each have a table of rows; the first row whose pattern is in the error's text
counts. An error that no row knows is told in the server's words and not waited for. No text has a password in it: of a
URL only host, port, database and user are shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import Broken, PenstockError, Unavailable

WAIT, REFUSE = True, False
_SAID_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRefusal:
    """Why a store cannot be used. `passes`: it may end by itself."""

    words: str
    passes: bool

    @property
    def error(self) -> PenstockError:
        """To raise: Unavailable when it may pass, else Broken."""
        return Unavailable("store_unavailable", self.words) if self.passes else Broken(self.words)


def row_for(table: Sequence[tuple[str, bool, str]], text: str) -> tuple[bool, str] | None:
    return next((row[1:] for row in table if re.search(row[0], text)), None)


def refusal_of_store(place: str, passes: bool, said: str, advice: str) -> StoreRefusal:
    words = f"{place} {'cannot be reached' if passes else 'cannot be used'}: {said}"
    return StoreRefusal(words=f"{words}: {advice}" if advice else words, passes=passes)


def words_of(error: BaseException) -> str:
    """Its text on one line."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return (text or type(error).__name__)[:_SAID_MAX].rstrip(". ")
