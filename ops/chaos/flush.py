"""FLUSHALL under load, told in a table: what was accepted, where it was, what resumed by itself, what keys revived.

Twice: at any moment, and after a second in which Postgres was away, so that what was accepted is in Redis alone: the
window that the README names. Nothing else is struck.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anyio
import psycopg
from anyio import to_thread
from rich.console import Console

from ops.audit.backlog import read_backlog
from ops.chaos.campaign import CampaignOutcome, During
from ops.chaos.environment import Environment
from ops.chaos.faults import FaultStage, strike_out
from ops.chaos.history import PurchaseHistory
from ops.chaos.progress import ProgressBoard
from ops.chaos.schedule import PARTITIONS, ChaosFault, Strike
from ops.statement import statement
from ops.terminal import print_table

CALM_S = 6.0  # of load before, between and after
AWAY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was at one moment. `unsettled` are operations in the ledger, None where it was stopped."""

    moment: str
    accepted: int
    in_streams: int
    unsettled: frozenset[str] | None
    effects: int


@dataclass(slots=True)
class Flushes:
    """Looks before and after each flush."""

    board: ProgressBoard
    looks: list[Look] = field(default_factory=list)

    def during(self) -> During:
        """For a campaign."""

        async def flush_twice(stage: FaultStage, till: PurchaseHistory) -> None:
            self.board.doing = "under load, being flushed"
            await anyio.sleep(CALM_S)
            await self._look("before FLUSHALL under load", stage, till)
            await strike_out(stage, _strike(ChaosFault.REDIS_FLUSHED, "redis", 0))
            await self._look("after it", stage, till)
            await anyio.sleep(CALM_S)
            await self._look("before Postgres is stopped", stage, till)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(strike_out, stage, _strike(ChaosFault.POSTGRES_STOPPED, "postgres", 2 * AWAY_S))
                await anyio.sleep(AWAY_S)
                await self._look("while it is stopped, before FLUSHALL", stage, till, ledger=False)
                await strike_out(stage, _strike(ChaosFault.REDIS_FLUSHED, "redis", 0))
                await self._look("after it", stage, till, ledger=False)
            await anyio.sleep(CALM_S)

        return flush_twice

    async def _look(self, moment: str, stage: FaultStage, till: PurchaseHistory, *, ledger: bool = True) -> None:
        self.looks.append(await to_thread.run_sync(_look, moment, stage.rig, till, ledger))

    def document(self, outcome: CampaignOutcome) -> dict[str, Any]:
        """The table for scripts."""
        return {
            "looks": [
                {
                    "moment": look.moment,
                    "accepted": look.accepted,
                    "entries_in_streams": look.in_streams,
                    "unsettled_in_ledger": None if look.unsettled is None else len(look.unsettled),
                    "effects_at_bank": look.effects,
                    "of_these_ended": None if look.unsettled is None else _ended(look.unsettled, outcome),
                }
                for look in self.looks
            ]
        }

    def show(self, outcome: CampaignOutcome, console: Console) -> None:
        counts = outcome.verdict.counts
        rows = []
        for look in self.looks:
            unsettled = "?" if look.unsettled is None else str(len(look.unsettled))
            resumed = "" if look.unsettled is None else str(_ended(look.unsettled, outcome))
            rows.append((look.moment, str(look.accepted), str(look.in_streams), unsettled, resumed, str(look.effects)))
        left = str(counts["accepted"] - counts["ended"])
        rows.append(("at the end", str(counts["accepted"]), "0", left, "", str(counts["effects at the bank"])))
        columns = ("moment", "accepted>", "entries in streams>", "unsettled in ledger>", "of these resumed>")
        print_table((*columns, "effects at the bank>"), rows)
        console.print(f"{counts['revived keys']} orders were in Redis alone, and were revived by their keys.")


def _strike(fault: ChaosFault, target: str, lasting_s: float) -> Strike:
    return Strike(at_s=0, lasting_s=lasting_s, fault=fault, target=target)


def _ended(ids: frozenset[str], outcome: CampaignOutcome) -> int:
    return sum(done.settled for done in outcome.books.operations if done.id in ids)


def _look(moment: str, rig: Environment, till: PurchaseHistory, ledger: bool) -> Look:
    in_streams = sum(row.backlog for row in read_backlog(rig.redis_url, PARTITIONS))
    unsettled = None
    if ledger:
        with psycopg.connect(rig.database) as books:
            unsettled = frozenset(row[0] for row in books.execute(statement("unsettled_ids")).fetchall())
    with psycopg.connect(rig.bank_database) as bank:
        row = bank.execute(statement("bank_effects")).fetchone()
    return Look(
        moment=moment,
        accepted=till.accepted,
        in_streams=in_streams,
        unsettled=unsettled,
        effects=int(row[0]) if row else 0,
    )
