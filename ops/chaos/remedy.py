"""The remedy: when all has ended, holds that the bank doubled by its own fault are given back, as an operator would.

Only those that are explained: a campaign makes the bank lose keys, and it must be able to heal what came of it by the
command that a person has for it (ops/audit/holds.py). A hold that nobody can explain stays, and is a breach.
"""

from __future__ import annotations

from anyio import to_thread

from bank.ficmart import FicmartBank
from engine.errors import Broken
from ops.assembly.process import utc_now
from ops.audit.books import Orphan
from ops.audit.holds import NotReleased, find, release
from ops.chaos import double_holds as twice
from ops.chaos.environment import Environment

REASON = "placed twice by the bank, found when the campaign was over"


async def give_back(rig: Environment) -> list[str]:
    """Sentences about those that could not be given back: they will be breaches. Raises psycopg's errors."""
    missed = []
    async with FicmartBank(rig.bank, clock=utc_now) as bank:
        for orphan in await to_thread.run_sync(_explained, rig):
            try:
                await release(rig.database, bank, orphan.reference, reason=REASON, actor="the campaign")
            except (NotReleased, Broken) as fault:
                missed.append(f"{orphan.reference}: {fault}")
    return missed


def _explained(rig: Environment) -> list[Orphan]:
    excused = {
        hold.id
        for found in twice.look(rig.database, rig.bank_database, rig.bank_log)
        if found.excuse
        for hold in found.holds
    }
    return [
        orphan
        for orphan in find(rig.database, rig.bank_database, grace_s=0)
        if orphan.whose is not None or orphan.hold.id in excused
    ]
