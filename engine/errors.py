"""Errors in three families, and nothing else crosses a module boundary.

    PenstockError
    ├── Rejected      the caller's doing; the edge answers 4xx with this code (problem.py). Nothing happened.
    ├── Unavailable   a fault of the world (a store is away, we are full); try again. 503 or 429 with Retry-After.
    │   └── Refused   a store said no, or was never reached: it is certain that nothing was done.
    └── Broken        ours: data that cannot be, a rule that was broken. 500, or a dead letter.

Expected business results (a decline, a 409 of the table) are values, not errors. Foreign exceptions are translated
once, where they are met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One wrong field: a JSON pointer (RFC 6901) and what is wrong with it."""

    pointer: str
    detail: str


class PenstockError(Exception):
    """The root of all errors that Penstock raises on purpose."""


class Rejected(PenstockError):
    """The caller must change something. `code` is a key of problem.CATALOGUE; `extra` are further problem members."""

    def __init__(
        self, code: str, detail: str, *, errors: tuple[FieldError, ...] = (), extra: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.errors, self.extra = code, detail, errors, dict(extra or {})


class Unavailable(PenstockError):
    """Try again after `retry_after_s`. `code` is a key of problem.CATALOGUE."""

    def __init__(self, code: str, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.retry_after_s = code, detail, retry_after_s


class StoreRefused(Unavailable):
    """The store ran nothing of what it was asked. `detail` says why, in our own words."""


class Broken(PenstockError):
    """Something that cannot be, is. Never shown to a client in detail."""


class Unseen(Broken):
    """Something is asked of a payment that nobody has seen: its authorize's entry is lost, or the ledger is older."""


class Taken(Broken):
    """An id of the bank's that a commit would write down belongs to another receipt."""

    def __init__(self, constraint: str) -> None:
        super().__init__(f"the bank's {constraint.partition('_')[0]} id in it is another receipt's")
