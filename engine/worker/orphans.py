"""Orphans: commands that were given up because nobody had seen their payment, and come back once it is there.

A capture waits behind its authorize in one stream. Where a hand deleted the authorize's entry, or the ledger was
restored from an older copy, the capture is a dead letter. The authorize is revived when its key is repeated; then what
was accepted behind it is given back, in its order, and no operator is needed (I10). Runs in the owner, for its own
partitions. Letters of any other cause are a person's (operator_actions.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from engine.errors import Broken, Unavailable
from engine.ledger.database import Away
from engine.ledger.writer import Ledger
from engine.loop import forever
from engine.streams.dead_letter import Cause, Letter
from engine.streams.dead_letter_queue import Graveyard
from engine.worker.partition_consumer import Tenure

log = structlog.get_logger()

EVERY_S = 10.0  # one small script for each owned partition, and nothing more where there are no dead letters
_LETTERS_MAX = 500  # of a partition, the newest; far above what one hand leaves behind


class Orphans:
    """One per worker."""

    def __init__(self, graveyard: Graveyard, ledger: Ledger, tenures: Mapping[int, Tenure]) -> None:
        self._graveyard, self._ledger, self._tenures = graveyard, ledger, tenures

    async def run(self) -> None:
        await forever("orphans", self._round)

    async def _round(self) -> None:
        await anyio.sleep(EVERY_S)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions. Stores away: at the next look."""
        owned = [partition for partition, tenure in self._tenures.items() if tenure.reading]
        try:
            for letter in await self._graveyard.of_cause(Cause.UNSEEN, owned, _LETTERS_MAX):
                await self._give_back(letter)
        except (Unavailable, Broken, *Away) as error:
            log.warning("store_away", error=type(error).__name__)

    async def _give_back(self, letter: Letter) -> None:
        if letter.payment is None or (await self._ledger.load(letter.payment)).payment is None:
            return
        whole = await self._graveyard.find(letter.id)
        if whole is None:
            return
        try:
            command = whole.command()
        except Broken:  # the letter was edited: a person's
            return
        word = await self._graveyard.requeue(whole, command)
        log.warning("orphan_given_back", payment=command.payment, operation=command.operation, result=word)
