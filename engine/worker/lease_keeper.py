"""The keeper of leases: says that this worker lives, takes and keeps its fair share of partitions, gives back the rest.

Keeps I2 on the side of efficiency (correctness is the epoch). A worker that finds its last heartbeat gone knows that
Redis lost its memory (I11), and one that did not beat for nearly a lease time that it slept, or Redis did (who was
heard a beat before it is silent for a lease time by then). Either way others may not be listed: it re-creates its own
leases if their epochs still hold, and takes and gives none for one lease time. A worker that does not fit (fitness.py)
owns nothing until it does.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio
import structlog

from engine.errors import Broken, Unavailable
from engine.failpoint import UNARMED, Failpoints
from engine.ledger.database import Away
from engine.ledger.writer import FencingToken, LedgerWriter
from engine.loop import surviving
from engine.resilience.fitness import Fitness
from engine.streams import keys
from engine.streams.installation import FAULT
from engine.streams.scripts import Scripts
from engine.worker.assignment import shares
from engine.worker.partition_consumer import PartitionConsumer, PartitionOwnership

log = structlog.get_logger()

_BEATS_PER_LEASE = 5  # four beats may be lost before a lease is
_DEAD_AFTER_LEASES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Who we are, how many partitions there are, and for how long a lease holds."""

    worker: str
    partitions: int
    lease_ms: int
    drain_ms: int


class LeaseKeeper:
    """Run `run` for life inside the worker; `consumers` is what is owned now."""

    def __init__(
        self,
        terms: LeaseTerms,
        scripts: Scripts,
        ledger: LedgerWriter,
        make_tenure: Callable[[PartitionOwnership], PartitionConsumer],
        failpoints: Failpoints = UNARMED,
        fitness: Fitness | None = None,
        look: Callable[[Scripts], Awaitable[None]] | None = None,
    ) -> None:
        """`look` compares whose Redis this is, at each beat, and tells `fitness`."""
        self._fitness, self._look = fitness or Fitness(), look
        self._terms, self._scripts, self._ledger = terms, scripts, ledger
        self._make_tenure, self._failpoints = make_tenure, failpoints
        self.consumers: dict[int, PartitionConsumer] = {}
        self._leaving: set[int] = set()
        self._unchecked: set[PartitionConsumer] = (
            set()
        )  # their leases lapsed and were re-created; their epochs are not read yet
        self._stopping = anyio.Event()
        self._beaten_at: float | None = None
        self._told = 0  # what Redis called the time of our last beat, in ms
        self._quiet_until = 0.0
        self.settled = anyio.Event()  # set once the first round is through: ready to be asked

    @property
    def beats(self) -> bool:
        """Whether a heartbeat was written within the last lease time: else Redis takes no writes from us."""
        return self._beaten_at is not None and anyio.current_time() - self._beaten_at < self._terms.lease_ms / 1000

    def stop(self) -> None:
        """Take nothing more, drain what is owned, release it, end."""
        self._stopping.set()

    async def run(self) -> None:
        """Beats until stopped, then gives everything back in good order."""
        beat_s = self._terms.lease_ms / 1000 / _BEATS_PER_LEASE
        async with anyio.create_task_group() as homes:
            while not self._stopping.is_set():
                async with surviving("keeper", beat_s):
                    await self.run_once(homes)
                with anyio.move_on_after(beat_s):
                    await self._stopping.wait()
            async with anyio.create_task_group() as keeping:
                keeping.start_soon(self._keep, beat_s)
                await self._leave()
                keeping.cancel_scope.cancel()
            homes.cancel_scope.cancel()

    async def _keep(self, beat_s: float) -> None:
        """While draining: what is still owned stays ours."""
        while True:
            async with surviving("keeper"):
                try:
                    await self._renew()
                except (Unavailable, *Away) as error:
                    log.warning("store_away", error=type(error).__name__)
            await anyio.sleep(beat_s)

    async def run_once(self, homes: anyio.abc.TaskGroup) -> None:
        """One beat. Stores away: keep what we have (nobody else can take it either) and try at the next beat."""
        try:
            if self._look is not None:
                await self._look(self._scripts)
            if not self._fitness.has(FAULT):
                await self._renew()
            mine = await self._beat() if await self._may_own() else set()
            await self._take(sorted(mine - self.consumers.keys()), homes)
        except (Unavailable, Broken) as error:
            log.warning("redis_away", partitions=len(self.consumers), error=str(error))
            self._quit_foreign()
        except Away as error:
            log.warning("postgres_away", error=type(error).__name__)
        else:
            for partition in sorted(self.consumers.keys() - mine - self._leaving):
                self._leaving.add(partition)
                homes.start_soon(self._hand_over, partition)
            self.settled.set()

    async def _may_own(self) -> bool:
        """Not while this process does not fit; nor, as long as there are others, once it met what it cannot carry out.
        Into the Redis of another installation nothing is drained: everything stops."""
        terms = self._terms
        if self._fitness.fits:
            if not self._fitness.unable:
                return True
            arguments = (keys.WORKERS, terms.worker, terms.lease_ms * _DEAD_AFTER_LEASES)
            if not await self._scripts.call("abstain", *arguments):
                return True  # nobody else is there: better a worker that does most of it
        elif not self._fitness.has(FAULT):
            await self._scripts.call("leave", keys.WORKERS, terms.worker)
        self._quit_foreign()
        self._beaten_at, self._told = None, 0
        return False

    def _quit_foreign(self) -> None:
        for consumer in list(self.consumers.values()) if self._fitness.has(FAULT) else ():
            consumer.fence_off("this Redis is another installation's")

    async def _beat(self) -> set[int]:
        """The partitions that should be ours. While others may not be listed yet: those that are."""
        terms, lease_s = self._terms, self._terms.lease_ms / 1000
        reply = await self._scripts.call("heartbeat", keys.WORKERS, terms.worker, terms.lease_ms * _DEAD_AFTER_LEASES)
        before, told, ahead = reply[:3]
        live = [name.decode(errors="replace") for name in reply[3:]]
        if ahead or told < self._told:
            log.warning("redis_clock_stepped_back", worker=terms.worker, heartbeats_ahead=ahead)
            await self._cut_leases()
        now = anyio.current_time()
        if self._beaten_at is not None and now - self._beaten_at > lease_s * (1 - 1 / _BEATS_PER_LEASE):
            self._quiet_until = now + lease_s
            silent_s = round(now - self._beaten_at, 1)
            log.warning("heartbeat_delayed", worker=terms.worker, partitions=len(self.consumers), seconds=silent_s)
        elif before < self._told <= told:
            self._quiet_until = now + lease_s
            log.warning("heartbeat_lost", worker=terms.worker, partitions=len(self.consumers))
        self._beaten_at, self._told = now, told
        if now < self._quiet_until:
            return set(self.consumers)
        return {partition for partition, owner in shares(terms.partitions, live).items() if owner == terms.worker}

    async def _cut_leases(self) -> None:
        """Leases that were taken before the clock stepped back would outlive their owners by as much."""
        partitions = range(self._terms.partitions)
        await self._scripts.call_many(
            [("cut-lease", (keys.lease(partition), self._terms.lease_ms)) for partition in partitions]
        )

    async def _renew(self) -> None:
        if not self.consumers:
            return
        owned = list(self.consumers.values())
        calls = [
            ("take-lease", (keys.lease(consumer.partition), consumer.ownership.token, self._terms.lease_ms))
            for consumer in owned
        ]
        replies = await self._scripts.call_many(calls)
        for consumer, reply in zip(owned, replies, strict=True):
            if isinstance(reply, Broken):  # something else lies under the lease's name; the other leases are ours
                log.error("breach", name="unreadable_lease", partition=consumer.partition, error=str(reply))
                consumer.doubt_lease()
            elif isinstance(reply, Exception):
                raise reply
            elif reply == b"held":
                consumer.fence_off("another worker holds the lease")
            elif reply == b"taken":
                consumer.doubt_lease()
                self._unchecked.add(consumer)
            elif consumer not in self._unchecked:
                consumer.confirm_lease()
        if self._unchecked:
            fences = await self._ledger.fences()
            for consumer in list(self._unchecked):
                self._unchecked.discard(consumer)
                if fences.get(consumer.partition) != consumer.fence:
                    consumer.fence_off("the partition has a newer epoch")
                    await self._release(consumer)
                else:
                    consumer.confirm_lease()

    async def _take(self, wanted: list[int], homes: anyio.abc.TaskGroup) -> None:
        if not wanted:
            return
        seen = await self._ledger.fences()  # before the lease: see acquire_partitions.sql
        for partition in [partition for partition in wanted if partition not in seen]:
            # Nobody can be its writer: it rests, and all others go on.
            log.error("breach", name="missing_partition", partition=partition)
            wanted.remove(partition)
        tokens = {partition: f"{self._terms.worker}:{secrets.token_hex(8)}" for partition in wanted}
        replies = await self._scripts.call_many(
            [("take-lease", (keys.lease(partition), tokens[partition], self._terms.lease_ms)) for partition in wanted]
        )
        free = [partition for partition, reply in zip(wanted, replies, strict=True) if reply == b"taken"]
        if not free:
            return
        self._failpoints("after-lease")
        try:
            wished = {partition: FencingToken(seen[partition].epoch, tokens[partition]) for partition in free}
            fences = await self._ledger.acquire(wished, self._terms.worker)
        except Away:
            await self._forget_acked({partition: tokens[partition] for partition in free})
            raise
        self._failpoints("after-epoch")
        for partition, fence in sorted(fences.items()):
            consumer = self.consumers[partition] = self._make_tenure(
                PartitionOwnership(partition=partition, fence=fence)
            )
            homes.start_soon(self._live, consumer)
        log.info("acquired", worker=self._terms.worker, partitions=sorted(fences))
        missed = {partition: tokens[partition] for partition in free if partition not in fences}
        if missed:
            log.warning("acquired_by_another", worker=self._terms.worker, partitions=sorted(missed))
            await self._forget_acked(missed)

    async def _forget_acked(self, tokens: Mapping[int, str]) -> None:
        await self._scripts.call_many(
            [("release-lease", (keys.lease(partition), token)) for partition, token in tokens.items()]
        )

    async def _live(self, consumer: PartitionConsumer) -> None:
        try:
            async with surviving("partition_consumer"):  # its lease lapses, and then the partition is taken anew
                await consumer.run()
        finally:
            if self.consumers.get(consumer.partition) is consumer:
                del self.consumers[consumer.partition]
            self._leaving.discard(consumer.partition)
            self._unchecked.discard(consumer)

    async def _hand_over(self, partition: int) -> None:
        """To whom the shares now name: drain, then release, so that the next owner finds nothing half-done."""
        consumer = self.consumers.get(partition)
        if consumer is not None:
            await consumer.drain(self._terms.drain_ms / 1000)
            await self._release(consumer)

    async def _release(self, consumer: PartitionConsumer) -> None:
        try:
            if not consumer.fenced_off:
                await self._ledger.release({consumer.partition: consumer.fence})
            await self._scripts.call("release-lease", keys.lease(consumer.partition), consumer.ownership.token)
        except (Unavailable, *Away) as error:
            log.warning("release_failed", partition=consumer.partition, error=type(error).__name__)

    async def _leave(self) -> None:
        """No longer a worker: off the list, then everything drained and released at once."""
        try:
            await self._scripts.call("leave", keys.WORKERS, self._terms.worker)
        except Unavailable:
            log.warning("redis_away", partitions=len(self.consumers))
        async with anyio.create_task_group() as farewell:
            for partition in list(self.consumers):
                farewell.start_soon(self._hand_over, partition)
