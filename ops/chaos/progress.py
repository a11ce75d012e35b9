"""The live table of a campaign; plain lines where nobody watches a terminal.

Each look reads both databases anew, and tells what it could not read as unknown: the stores are being struck.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio
import psycopg
from anyio import to_thread
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ops.chaos import double_holds as twice
from ops.chaos.books import Progress, read_progress
from ops.chaos.environment import Environment
from ops.chaos.history import PurchaseHistory

LOOK_S = 1.0
LINE_S = 5.0
UNKNOWN = "?"


@dataclass(slots=True)
class ProgressBoard:
    """`tell` is a line of its own; `doing` stands above the table."""

    console: Console
    doing: str = "raising a stack of its own"
    current: list[str] = field(default_factory=list)  # faults in force
    _live: Live | None = None

    def tell(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    async def run(self, rig: Environment, till: PurchaseHistory) -> None:
        """For life. The live table is a terminal's; elsewhere a line every few seconds."""
        if not self.console.is_terminal:
            await self._lines(rig, till)
            return
        with Live(self._table({}), console=self.console, refresh_per_second=4, transient=True) as live:
            while True:
                live.update(self._table(await _look(rig, till)))
                await anyio.sleep(LOOK_S)

    async def _lines(self, rig: Environment, till: PurchaseHistory) -> None:
        while True:
            figures = ", ".join(f"{name} {value}" for name, value in (await _look(rig, till)).items())
            faults = "; ".join(self.current) or "none"
            self.tell(f"{time.strftime('%H:%M:%S')} {self.doing}: {figures}; faults: {faults}")
            await anyio.sleep(LINE_S)

    def _table(self, figures: dict[str, str]) -> Table:
        table = Table(title=self.doing, box=box.SIMPLE_HEAD, title_justify="left")
        for name in figures:
            table.add_column(name, justify="right")
        if figures:
            table.add_row(*figures.values())
        table.caption = "faults: " + ("; ".join(self.current) or "none")
        table.caption_justify = "left"
        return table


async def _look(rig: Environment, till: PurchaseHistory) -> dict[str, str]:
    """The invariants as they are now."""
    progress, held_twice = await to_thread.run_sync(_read, rig)
    figures: dict[str, int | None] = {
        "accepted": till.accepted,
        "ended": progress.ended if progress else None,
        "in flight": progress.in_flight if progress else None,
        "in doubt": progress.in_doubt if progress else None,
        "in review": progress.review if progress else None,
        "lost": till.unknown,
        "doubled": None if held_twice is None else sum(not each.excuse for each in held_twice),
        "bank_broke_promise": None if held_twice is None else sum(bool(each.excuse) for each in held_twice),
        "revived keys": till.found_again,
    }
    return {name: UNKNOWN if value is None else str(value) for name, value in figures.items()}


def _read(rig: Environment) -> tuple[Progress | None, list[twice.DoubleHolds] | None]:
    try:
        return read_progress(rig.database), twice.look(rig.database, rig.bank_database, rig.bank_log)
    except (psycopg.Error, OSError):
        return None, None
