"""The pending entries of one payment: which stream entries and waiting edges belong to which of its operations.

Keeps I4: an entry is acknowledged only when its operation is answered, journaled or given up. What Redis has not
acknowledged stays in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import structlog
from msgspec import Struct

from engine.contracts.connector import Clock
from engine.domain.command import Command, IdempotencyRecord, accept_order
from engine.domain.payment import Operation, Status
from engine.metrics import EngineMetrics
from engine.streams.completion import Completed, Completion, Journaled
from engine.streams.encoding import encode_record

log = structlog.get_logger()


class MailboxMessage(Struct, frozen=True, kw_only=True):
    """A command with its entry, or (both None) a call to look into the ledger.

    `poison`: its workers died with it in hand again and again, and with nothing else at last.
    """

    command: Command | None
    entry: str | None
    first: bool
    poison: bool = False

    @property
    def order(self) -> int:
        """Its place in the order of acceptance."""
        return 0 if self.entry is None else accept_order(self.entry)


class PendingEntries:
    """One per actor. `release` tells the partition consumer which entries are acknowledged."""

    def __init__(
        self,
        partition: int,
        release: Callable[[Iterable[str]], None],
        completion: Completion,
        clock: Clock,
        meters: EngineMetrics,
    ) -> None:
        self._partition, self._release = partition, release
        self._completion, self._clock, self._meters = completion, clock, meters
        self._entries: dict[str, list[str]] = {}  # operation to the entries that ask for it
        self._reply_to: dict[str, list[str]] = {}
        self._taken_at: dict[str, datetime] = {}
        self._parked: set[tuple[str, Status]] = set()  # operations of which it was said
        self._merchant = ""  # whose payment it is; known with the first entry

    def add(self, command: Command, entry: str | None) -> None:
        """A command that was taken in; an entry that is there already joins nothing."""
        self._merchant = command.merchant
        entries = self._entries.setdefault(command.operation, [])
        if entry is not None and entry not in entries:
            entries.append(entry)
        if command.reply_to is not None:
            self._reply_to.setdefault(command.operation, []).append(command.reply_to)

    def begin(self, operation: str) -> None:
        """From now on its time is measured."""
        self._taken_at[operation] = self._clock()

    def pop(self, operation: str) -> tuple[str, ...]:
        """Its entries, no longer here: about to be looked at as if they came anew, or given up."""
        return tuple(self._entries.pop(operation, ()))

    @property
    def operations(self) -> list[str]:
        """Those with entries."""
        return list(self._entries)

    @property
    def unacked(self) -> list[str]:
        """Entries that were not acknowledged."""
        return [entry for entries in self._entries.values() for entry in entries]

    async def settle(self, operation: Operation) -> None:
        """Answered and committed: off Redis with it, and whoever waits is told."""
        entries = tuple(self._entries.get(operation.id, ()))
        record = IdempotencyRecord(
            fingerprint=operation.fingerprint, status=operation.response_status, body=operation.response_body
        )
        await self._completion(
            Completed(
                partition=self._partition,
                payment=operation.payment,
                operation=operation.id,
                merchant=operation.merchant,
                record=encode_record(record),
                entries=entries,
                reply_to=tuple(self._reply_to.pop(operation.id, ())),
            )
        )
        self._forget_acked(operation.id, entries)
        self._meters.settled.labels(operation.verb, operation.status).inc()
        taken_at = self._taken_at.pop(operation.id, None)
        now = self._clock()
        log.info(
            "operation_completed",
            payment=operation.payment,
            operation=operation.id,
            request_id=operation.request_id,
            partition=self._partition,
            entry=entries[0] if entries else None,
            verb=operation.verb,
            outcome=operation.status,
            attempts=operation.attempts,
            total_ms=None if taken_at is None else round((now - taken_at).total_seconds() * 1000, 1),
        )

    def resume(self, operation: Operation) -> None:
        """It is taken up again; if it was parked, that was said then."""
        if operation.next_attempt_at is not None:
            self._parked.add((operation.id, operation.status))

    async def park(self, operation: Operation) -> None:
        """Journaled, not answered: the entry may go, record and open entry stay. Said once, and counted each time."""
        self._meters.parked.labels(operation.verb, operation.status).inc()
        await self.acknowledge(operation.id)
        if operation.parent is not None:
            await self.acknowledge(operation.parent)
        said = (operation.id, operation.status) in self._parked
        self._parked.add((operation.id, operation.status))
        tell = log.debug if said else log.warning if operation.doubted_at else log.info
        tell(
            "operation_parked",
            request_id=operation.request_id,
            payment=operation.payment,
            operation=operation.id,
            partition=self._partition,
            verb=operation.verb,
            status=operation.status,
            attempts=operation.attempts,
            next_attempt_at=str(operation.next_attempt_at),
        )

    async def acknowledge(self, operation: str) -> None:
        """The ledger has it."""
        entries = tuple(self._entries.get(operation, ()))
        if entries:
            await self._completion(Journaled(partition=self._partition, merchant=self._merchant, entries=entries))
        self._forget_acked(operation, entries)

    def _forget_acked(self, operation: str, entries: tuple[str, ...]) -> None:
        """Only what Redis has acknowledged; an entry that joined meanwhile stays."""
        unacked = [entry for entry in self._entries.pop(operation, ()) if entry not in entries]
        if unacked:
            self._entries[operation] = unacked
        self._release(entries)
