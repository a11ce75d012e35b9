"""Holds that the bank placed twice for one authorization: our fault, or a promise that the bank broke (I7)?

The bank's promise is that a key it has answered is never executed again. It broke it where it executed serial attempts
of ours without having kept the key of the one before; then its own table names the last hold, or none. Where the table
names an earlier hold, there are more holds than attempts, or the bank's log says that the key was under way twice, it
was us: two attempts at once, or two keys. Pure, but for the reading at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import psycopg
from psycopg.rows import class_row

from bank.simulator.overlap import EVENT
from ops.statement import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One at the bank; `id` is its uuid."""

    amount: int
    id: str
    card: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRow:
    """Ours. The id is the bank key."""

    id: str
    attempts: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubleHolds:
    """One authorization with more than one hold, oldest first."""

    holds: tuple[Hold, ...]
    authorization: AuthorizationRow | None
    excuse: str  # why it is the bank's doing; empty when it is ours

    def __str__(self) -> str:
        ours = self.authorization
        whose = f"{ours.id} ({ours.attempts} attempts)" if ours else "no operation of ours"
        holds = ", ".join(hold.id for hold in self.holds)
        return f"amount {self.holds[0].amount}, {whose}: holds {holds}" + (f"; {self.excuse}" if self.excuse else "")


def judge(
    holds: Iterable[Hold],
    authorizations: Iterable[AuthorizationRow],
    kept: Mapping[str, str | None],
    overlapping: Collection[str] = (),
) -> list[DoubleHolds]:
    """`holds` in the bank's order, `kept` the hold that each bank key names (auth_<uuid>), `overlapping` the keys that
    were under way twice."""
    ours = {authorization.amount: authorization for authorization in authorizations}
    by_amount: dict[int, list[Hold]] = {}
    for hold in holds:
        by_amount.setdefault(hold.amount, []).append(hold)
    return [
        DoubleHolds(
            holds=tuple(group),
            authorization=ours.get(amount),
            excuse=_excuse(group, ours.get(amount), kept, overlapping),
        )
        for amount, group in by_amount.items()
        if len(group) > 1
    ]


def _excuse(
    holds: list[Hold], ours: AuthorizationRow | None, kept: Mapping[str, str | None], overlapping: Collection[str]
) -> str:
    if ours is None or len(holds) > ours.attempts or ours.id in overlapping:
        return ""
    if ours.id not in kept:
        return "the bank kept no key"
    return "the bank had not kept the key of the one before" if kept[ours.id] == f"auth_{holds[-1].id}" else ""


def look(ledger_dsn: str, bank_dsn: str, bank_log: Path) -> list[DoubleHolds]:
    """What there is now."""
    with psycopg.connect(bank_dsn) as bank:
        with bank.cursor(row_factory=class_row(Hold)) as cursor:
            holds = cursor.execute(statement("bank_held_twice")).fetchall()
        if not holds:
            return []
        with psycopg.connect(ledger_dsn) as ledger, ledger.cursor(row_factory=class_row(AuthorizationRow)) as ours:
            amounts = {"amounts": sorted({hold.amount for hold in holds})}
            authorizations = ours.execute(statement("campaign_authorizations"), amounts).fetchall()
        keys = {"keys": [authorization.id for authorization in authorizations]}
        kept: dict[str, str | None] = dict(bank.execute(statement("bank_kept_holds"), keys).fetchall())
    return judge(holds, authorizations, kept, under_way_twice(bank_log))


def under_way_twice(bank_log: Path) -> set[str]:
    """The keys of which the bank says so."""
    found = set()
    with bank_log.open("rb") as lines:
        for line in lines:
            if EVENT.encode() in line:
                with suppress(orjson.JSONDecodeError, KeyError):  # half a line of a bank that was killed
                    found.add(str(orjson.loads(line)["key"]))
    return found
