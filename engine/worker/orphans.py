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
from engine.ledger.writer import LedgerWriter
from engine.loop import forever
from engine.streams.dead_letter import Cause, DeadLetter
from engine.streams.dead_letter_queue import DeadLetterQueue
from engine.worker.partition_consumer import PartitionConsumer

log = structlog.get_logger()

EVERY_S = 10.0  # one small script for each owned partition, and nothing more where there are no dead letters
_LETTERS_MAX = 500  # of a partition, the newest; far above what one hand leaves behind


class OrphanRecovery:
    """One per worker."""

    def __init__(
        self, dead_letter_queue: DeadLetterQueue, ledger: LedgerWriter, consumers: Mapping[int, PartitionConsumer]
    ) -> None:
        self._dead_letter_queue, self._ledger, self._consumers = dead_letter_queue, ledger, consumers

    async def run(self) -> None:
        await forever("orphans", self._round)

    async def _round(self) -> None:
        await anyio.sleep(EVERY_S)
        await self.run_once()

    async def run_once(self) -> None:
        """One look at all owned partitions. Stores away: at the next look."""
        owned = [partition for partition, consumer in self._consumers.items() if consumer.reading]
        try:
            for letter in await self._dead_letter_queue.of_cause(Cause.UNSEEN, owned, _LETTERS_MAX):
                await self._give_back(letter)
        except (Unavailable, Broken, *Away) as error:
            log.warning("store_away", error=type(error).__name__)

    async def _give_back(self, letter: DeadLetter) -> None:
        if letter.payment is None or (await self._ledger.load(letter.payment)).payment is None:
            return
        whole = await self._dead_letter_queue.find(letter.id)
        if whole is None:
            return
        try:
            command = whole.command()
        except Broken:  # the letter was edited: a person's
            return
        word = await self._dead_letter_queue.requeue(whole, command)
        log.warning("orphan_requeued", payment=command.payment, operation=command.operation, result=word)
