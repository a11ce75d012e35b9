"""A partition consumer: runs the actors of one partition for as long as this worker owns it (I2).

It begins with a lease and a new epoch, takes over what the owner before left (in the ledger and in the stream), then
takes in new entries. It ends drained, or fenced off: then everything stops where it is and the next owner takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import anyio
import structlog

from engine.domain.ids import is_id
from engine.errors import Broken, Unavailable
from engine.ledger.writer import FencingToken
from engine.loop import surviving
from engine.streams.command_stream import CommandStreams, LeaseLost, StreamEntry
from engine.streams.completion import DeadLettered
from engine.streams.dead_letter import Cause, kept_of, letter_fields
from engine.streams.encoding import decode_command, named_in
from engine.worker.actor import Actor
from engine.worker.context import WorkerContext
from engine.worker.pending_entries import MailboxMessage

log = structlog.get_logger()
T = TypeVar("T")

_RESUME_MAX = 100_000  # unsettled payments of one partition at take-over: a bound for memory, far above any backlog
_DELIVERIES_MAX = 5  # an entry that was delivered more often may be what its workers died of
_ISOLATED_MAX = 3  # so often it is run alone; then it is given up
_POISON_CANDIDATES_MAX = 10_000  # pending entries looked at; a partition consumer holds fewer
_AWAY_S = 0.5
_BREACH_S = 5.0  # between two looks at what only a person can put right
_UNABLE_S = 30.0  # what this worker cannot carry out is looked at again this often: somebody may have ended it
_QUARANTINE_S = 60.0  # a payment that nobody can work on is looked at again this often: its row may have been put right


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOwnership:
    """What proves that the partition is ours: the lease's token in Redis, and in Postgres the same with an epoch."""

    partition: int
    fence: FencingToken

    @property
    def token(self) -> str:
        return self.fence.token


class PartitionConsumer:
    """Run `run` for as long as the partition is owned."""

    def __init__(
        self,
        ownership: PartitionOwnership,
        context: WorkerContext,
        streams: CommandStreams,
        isolation_lock: asyncio.Lock,
    ) -> None:
        """`isolation_lock` is shared by the worker's consumers: only its holder runs an entry in isolation."""
        self.ownership, self._isolation_lock = ownership, isolation_lock
        self._context, self._streams = context, streams
        self._actors: dict[str, Actor] = {}
        self._quarantined: dict[str, float] = {}  # payments to leave alone, until when
        # Actors are tasks of asyncio's own group: starting one in anyio's costs a tenth of a worker under load.
        self._tasks = asyncio.TaskGroup()
        self._scope = anyio.CancelScope()
        self._closed = anyio.Event()
        self._leaving = anyio.Event()
        self._idle = anyio.Event()
        self._taken_over = False
        self._draining = False
        self._isolating = False  # entries are run alone now
        self._drained_since_s: float | None = None  # what was committed before is out of the banks' queues
        self._worked_on: set[str] | None = None  # payments that had an actor since, whose attempts may be later
        self.reading = False  # whether new entries may be read
        self.fenced_off = False
        self.held: set[str] = set()  # entries delivered and not yet acknowledged
        self.delivered = ""  # the last entry the group delivered to us; unknown at first

    @property
    def partition(self) -> int:
        return self.ownership.partition

    @property
    def in_hand(self) -> int:
        return len(self.held)

    @property
    def busy(self) -> int:
        """Payments that are in hand or left alone: looking at them again would change nothing."""
        return len(self._actors) + len(self._quarantined)

    @property
    def fence(self) -> FencingToken:
        return self.ownership.fence

    async def run(self) -> None:
        try:
            with self._scope:
                async with self._tasks:
                    await self._take_over()
                    self._taken_over = True
                    self.confirm_lease()
                    await self._closed.wait()
        finally:
            self.reading = False
            self._idle.set()

    async def _take_over(self) -> None:
        """First, one by one, what its owners may have died of; then what the ledger knows as unfinished, then what was
        read and not acknowledged; only then new entries."""
        context, partition = self._context, self.partition
        await self._insist(self._isolate_poison_candidates)
        due = await context.ledger.unfinished(partition, _RESUME_MAX)
        for payment in due:
            self.resume(payment)
        context.failpoints("after-resume")
        claimed = await self._insist(lambda: self._streams.claim(partition, self.ownership.token))
        context.failpoints("after-claim")
        self.dispatch(claimed)
        if due or claimed:
            log.info("partition_taken_over", partition=partition, unsettled=len(due), pending=len(claimed))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """What must be had from the stream before anything else. Without the lease there is no going on."""
        while True:
            try:
                return await call()
            except LeaseLost:
                self.fence_off("the lease was lost while taking over")
                await anyio.sleep_forever()  # until the scope, which is cancelled by now, takes note
            except Unavailable:
                await anyio.sleep(_AWAY_S)
            except Broken as error:  # its stream is none: nothing of this partition can be done, all else can
                self._breach("unreadable_stream", error=str(error))
                await anyio.sleep(_BREACH_S)

    async def _isolate_poison_candidates(self) -> None:
        """Entries that were delivered too often, and what is pending before them (I3): with nothing else in hand.

        A worker that dies then dies of this one, whose count alone has grown; after three such deaths it is given up.
        """
        partition, token = self.partition, self.ownership.token
        pending = await self._streams.pending(partition, token, _POISON_CANDIDATES_MAX)
        often = [index for index, (_, deliveries) in enumerate(pending) if deliveries > _DELIVERIES_MAX]
        if not often:
            return
        since_s, self._worked_on = anyio.current_time(), set(self._actors)
        drained = False
        async with surviving("drain"):  # once for all; where it is not known, each waits for itself
            drained = await self._context.bank_caller.all_drained(f"{partition}:{token}")
        self._drained_since_s = since_s if drained else None
        try:
            await self._run_alone(pending[: often[-1] + 1])
        finally:
            self._drained_since_s = None
            self._worked_on = None

    async def _run_alone(self, entries: list[tuple[str, int]]) -> None:
        partition, token = self.partition, self.ownership.token
        for entry, deliveries in entries:
            async with self._isolation_lock:
                if self._draining:
                    return
                log.warning("poison_isolated", partition=partition, entry=entry, deliveries=deliveries)
                claimed = await self._streams.reclaim(partition, token, [entry])
                self._isolating = True
                self.dispatch(claimed, poison=deliveries > _DELIVERIES_MAX + _ISOLATED_MAX)
                await self._emptied()
                self._isolating = False

    def dispatch(self, entries: list[StreamEntry], *, poison: bool = False) -> None:
        """Hand entries to their payments' actors, in order. Unreadable ones are buried."""
        if entries:
            self._context.failpoints("after-read")
        for entry in entries:
            self.held.add(entry.id)
            try:
                command = decode_command(entry.fields)
                if self._context.partition_of(command.payment) != self.partition:
                    raise Broken(f"entry of {command.payment} is in the wrong partition")
            except Broken as error:
                self._tasks.create_task(self._unreadable(entry, str(error)))
                continue
            self._deliver(
                command.payment, MailboxMessage(command=command, entry=entry.id, first=entry.first, poison=poison)
            )

    def resume(self, payment: str) -> None:
        """Let the payment's actor look at what is unsettled in the ledger."""
        if payment in self._actors or self._quarantined.get(payment, 0.0) > anyio.current_time():
            return
        self._quarantined.pop(payment, None)
        if not is_id(payment, "pay") or self._context.partition_of(payment) != self.partition:
            self._breach("misplaced_operation", payment=payment)
            return self.quarantine(payment)
        self._deliver(payment, MailboxMessage(command=None, entry=None, first=False))

    def release(self, entries: Iterable[str]) -> None:
        """These entries are acknowledged."""
        self.held.difference_update(entries)

    def finished(self, payment: str, unacked: Iterable[str]) -> None:
        """The payment's actor has nothing left to do. Entries it could not acknowledge are the reclaimer's again."""
        self.held.difference_update(unacked)
        del self._actors[payment]
        if not self._actors:
            self._idle.set()

    def quarantine(self, payment: str) -> None:
        """Its rows cannot be worked on: the schedule leaves it alone for a while."""
        self._quarantined[payment] = anyio.current_time() + _QUARANTINE_S

    async def unable(self, payment: str, why: str) -> bool:
        """This worker lacks what the payment needs: it rests, with all that was asked of it, until another look. False
        when there will be none here, because the partition is given back or others wait for the end of this one."""
        self._context.fitness.cannot("worker", why)
        self._breach("unable_worker", payment=payment, error=why)
        if not self._isolating:
            with anyio.move_on_after(_UNABLE_S):
                await self._leaving.wait()
        return not self._draining and not self._isolating

    def doubt_lease(self) -> None:
        """A read was refused: the lease has lapsed or passed on. The keeper finds out which; until then, no reading."""
        self.reading = False

    def confirm_lease(self) -> None:
        """The keeper holds the lease (again)."""
        self.reading = self._taken_over and not self._closed.is_set() and not self._draining

    def fence_off(self, why: str) -> None:
        """Somebody else owns the partition now: stop everything, touch nothing."""
        if not self.fenced_off:
            self.fenced_off = True
            self.reading = False
            log.warning("partition_fenced", partition=self.partition, epoch=self.fence.epoch, why=why)
            self._closed.set()
            self._scope.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Read no more, let the actors finish, then end. What is not finished in time is left to the next owner."""
        self._draining, self.reading = True, False
        self._leaving.set()
        with anyio.move_on_after(timeout_s):
            await self._emptied()
        self._closed.set()
        self._scope.cancel()

    async def _emptied(self) -> None:
        """When no actor has anything to do."""
        while self._actors and not self._closed.is_set():
            if self._idle.is_set():
                self._idle = anyio.Event()
            await self._idle.wait()

    def _deliver(self, payment: str, delivery: MailboxMessage) -> None:
        actor = self._actors.get(payment)
        if actor is None:
            since_s = None
            if self._worked_on is not None:
                since_s = None if payment in self._worked_on else self._drained_since_s
                self._worked_on.add(payment)
            actor = self._actors[payment] = Actor(payment, self, self._context, drained_since_s=since_s)
            actor.mailbox.append(delivery)
            self._tasks.create_task(actor.run())
        else:
            actor.mailbox.append(delivery)

    async def bury(self, buried: DeadLettered, cause: Cause) -> None:
        """Give an entry up. Where even that fails, it stays pending, and the reclaimer finds it again."""
        log.error("dead_letter", partition=self.partition, entry=buried.entry, payment=buried.payment, cause=cause)
        try:
            await self._context.completion(buried)
            self._context.meters.dead.labels(cause).inc()
        except Broken as error:
            self._breach("no_dead_letters", error=str(error))
        self.release((buried.entry,))

    def _breach(self, name: str, **about: str) -> None:
        log.error("breach", name=name, partition=self.partition, **about)
        self._context.meters.breaches.labels(name).inc()

    async def _unreadable(self, entry: StreamEntry, reason: str) -> None:
        payment, operation = named_in(entry.fields) or (None, None)
        buried = DeadLettered(
            partition=self.partition,
            entry=entry.id,
            payment=payment,
            operation=operation,
            merchant="",
            fields=letter_fields(Cause.UNREADABLE, reason, entry.id, payment, operation, self._context.clock.now()),
            kept=kept_of(entry.fields),
        )
        await self.bury(buried, Cause.UNREADABLE)
