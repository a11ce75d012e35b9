"""Histories of the whole engine on a virtual clock, each decided by its seed and judged by DESIGN.md's invariants.

In tests/:

    python -m simulation.run --seed 7            one history, and what is wrong with it
    python -m simulation.run --seed 7 --trace    the same, told step by step
    python -m simulation.run --seeds 0 5000      many; those that fail are named, with the command that replays them

The engine is the real one: workers with keeper, partition consumers, actors, reader, reclaimer, sweeper, settlement and
ledger, and edges with front, archive and intake. Redis, Postgres, the bank, the network and time are simulated
(simulated_*.py); what happens is drawn beforehand (plan.py), what must hold is seen by a witness and judged at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch

import anyio
from psycopg import OperationalError
from psycopg.errors import QueryCanceled
from redis.exceptions import ConnectionError as RedisBroken
from redis.exceptions import TimeoutError as RedisSilent

from engine.contracts.connector import BankRequest
from engine.streams import keys
from engine.worker import partition_consumer as consumer
from simulation.faults import strike
from simulation.log import overheard
from simulation.plan import FAULTS_END_S, Moment, Plan, plan_of
from simulation.processes import EdgeProcess, Process, WorkerProcess
from simulation.shop import Shop
from simulation.simulated_bank import Attempt, Habits, SimulatedBank
from simulation.simulated_commit import Batch, Row
from simulation.simulated_loop import SimulatedLoop, current_host, determined
from simulation.simulated_network import Link
from simulation.simulated_postgres import PostgresServer
from simulation.simulated_redis import RedisServer
from simulation.variants import VARIANTS
from simulation.verdict import breaches, rests
from simulation.witness import Witness

QUIET_BY_S = 60.0  # of virtual time: whatever was accepted has ended long before
_LOOK_S = 0.25
_PATIENCE_S = 1.0  # of a store's client, for one answer


@dataclass(frozen=True, kw_only=True)
class History:
    """What came of a seed. `heard`: how often the engine logged what. `told` is empty unless the history was traced."""

    seed: int
    breaches: tuple[str, ...]
    heard: Counter[str]
    told: tuple[str, ...]
    virtual_s: float

    @property
    def digest(self) -> str:
        """The same for the same traced history, in any process."""
        return hashlib.blake2b("\n".join(self.told).encode(), digest_size=8).hexdigest()


class World:
    """Everything there is in one history."""

    def __init__(self, plan: Plan, draw: Random, loop: SimulatedLoop, *, traced: bool) -> None:
        self.plan, self.draw, self.loop, self.traced = plan, draw, loop, traced
        self.told: list[str] = []
        self.breaches: list[str] = []
        self.witness = Witness(plan, self.complain)
        redis_link = Link(loop, draw, broken=RedisBroken, silent=RedisSilent, patience_s=_PATIENCE_S)
        postgres_link = Link(loop, draw, broken=OperationalError, silent=QueryCanceled, patience_s=_PATIENCE_S)
        self.redis = RedisServer(loop, redis_link, self._on_script)
        self.postgres = PostgresServer(postgres_link, plan.partitions, self._ledgers_clock, self._on_commit, self.tell)
        self.ledger_ahead_s = 0.0
        self.witness.tables = self.postgres.tables
        self.bank = SimulatedBank(loop, draw, self._on_ask)
        self.bank.habits = plan.habits
        self.workers: list[WorkerProcess] = []
        self.edges: list[EdgeProcess] = []
        self.processes: list[Process] = []
        self.traps: dict[tuple[Moment, str], Callable[[], None]] = {}
        self.shops = [Shop(self, purchase) for purchase in plan.purchases]

    async def run(self) -> None:
        """Until everything accepted has come to its end, and the workers were stopped in good order."""
        for _ in range(self.plan.workers):
            self.start_worker()
        for place in range(self.plan.edges):
            self.start_edge(place)
        async with anyio.create_task_group() as street:
            for shop in self.shops:
                street.start_soon(shop.run)
            async with anyio.create_task_group() as trouble:
                for fault in self.plan.faults:
                    trouble.start_soon(strike, self, fault)
            await anyio.sleep_until(FAULTS_END_S)
            self.bank.habits = Habits(key_life_s=self.plan.habits.key_life_s)
            self.bank.go_on()
            while not self._quiet():
                if self.loop.time() > QUIET_BY_S:
                    self.complain("I10: it never came to rest")
                    street.cancel_scope.cancel()
                    break
                await anyio.sleep(_LOOK_S)
        for worker in self.workers:
            worker.stop()
        while any(worker.up for worker in self.workers):
            if self.loop.time() > 2 * QUIET_BY_S:
                self.complain("I2: a worker that was stopped never ended")
                break
            await anyio.sleep(_LOOK_S)
        await anyio.sleep(self.plan.lease_ms / 1000)  # of a lease that a late renewal brought back

    def _ledgers_clock(self) -> datetime:
        return self.loop.clock() + timedelta(seconds=self.ledger_ahead_s)

    async def unwind(self) -> None:
        """End what is left of every process, so that nothing of this history outlives it."""
        for process in self.processes:
            process.revive()
        await asyncio.sleep(0)
        for process in self.processes:
            process.end()
        await asyncio.wait([process.task for process in self.processes])

    def start_worker(self) -> None:
        worker = WorkerProcess(self, f"worker-{len(self.processes)}")
        self.workers.append(worker)
        self.processes.append(worker)

    def start_edge(self, place: int) -> None:
        edge = EdgeProcess(self, f"edge-{len(self.processes)}")
        self.edges[place : place + 1] = [edge]
        self.processes.append(edge)

    def crashed(self, process: str, error: BaseException) -> None:
        self.complain(f"{process} crashed: {error!r}")

    def complain(self, breach: str) -> None:
        self.breaches.append(breach)
        self.tell("witness", "BREACH", breach)

    def judged(self) -> list[str]:
        """What the verdict finds, now that it is over."""
        return breaches(self.postgres.tables, self.redis, self.bank, self.shops, self.witness)

    def rests(self, payment: str) -> bool:
        return rests(self.postgres.tables, self.witness, payment)

    def tell(self, who: str, what: str, *details: object) -> None:
        """One line of the history."""
        if self.traced:
            self.told.append(f"{self.loop.time():9.4f} {who:12} {what} {' '.join(map(str, details))}")

    def overhear(self, what: str, *details: object) -> None:
        """One line that a process logged."""
        self.tell(current_host(), what, *details)

    def _quiet(self) -> bool:
        """Nobody has anything left to do."""
        if not all(shop.done for shop in self.shops) or self.redis.link.late or self.postgres.link.late:
            return False
        streams = self.redis.database.streams
        if any(streams[key].entries for key in map(keys.commands, range(self.plan.partitions)) if key in streams):
            return False
        operations = self.postgres.tables.operations.values()
        if not all(row["settled_at"] is not None or self.rests(row["payment"]) for row in operations):
            return False
        return all(self._held_once(partition) for partition in range(self.plan.partitions))

    def _held_once(self, partition: int) -> bool:
        """One worker reads the partition, and under the lease that Redis knows (I2)."""
        keepers = [process.worker.keeper for process in self.workers if process.up and process.worker is not None]
        consumers = [keeper.consumers[partition] for keeper in keepers if partition in keeper.consumers]
        if len(consumers) != 1 or not consumers[0].reading:
            return False
        return self.redis.database.get(keys.lease(partition)) == consumers[0].ownership.token.encode()

    def _on_script(self, name: str, keys: Sequence[str], arguments: Sequence[Any], reply: Any) -> None:
        self.witness.script(name, keys, arguments, reply)
        if self.traced:
            self.tell("redis", name, keys, arguments, "->", reply)

    def _on_commit(self, client: str, batch: Batch, won: set[str]) -> None:
        self.witness.commit(client, batch, won, self.postgres.acquired_by)
        if self.traced:
            self.tell("postgres", "commit", client, *(_brief(row) for row in (*batch.operations, *batch.answered)))
            self.tell("postgres", "won", *sorted(won))
        self._spring(Moment.COMMIT, client)

    def _on_ask(self, ask: BankRequest, attempt: Attempt, now_s: float) -> None:
        self.tell("bank", "is asked", ask.verb, ask.bank_key, attempt.number)
        self.witness.ask(ask, attempt, now_s)
        self._spring(Moment.ASK, current_host())

    def _spring(self, moment: Moment, process: str) -> None:
        trap = self.traps.pop((moment, process), None)
        if trap is not None:
            trap()


def run(seed: int, *, traced: bool = False) -> History:
    """One history, from its seed alone."""
    plan, draw = plan_of(seed), Random(-1 - seed)
    loop = SimulatedLoop(draw, shuffled=plan.shuffled)
    world, heard = World(plan, draw, loop, traced=traced), Counter[str]()
    with determined(draw), overheard(heard, world.overhear if traced else None), _alone_beyond(plan.deliveries_max):
        try:
            loop.run_until_complete(world.run())
            found = (*world.breaches, *loop.faults, *world.judged())
            told, virtual_s = tuple(world.told), loop.time()
            loop.run_until_complete(world.unwind())
        finally:
            loop.close()
    if heard["loop_failed"]:
        found += (f"a loop met {heard['loop_failed']} exceptions that nobody expected",)
    return History(seed=seed, breaches=found, heard=heard, told=told, virtual_s=virtual_s)


@contextmanager
def _alone_beyond(deliveries_max: int) -> Iterator[None]:
    """Entries that were delivered more often are run alone, and none is given up: no worker dies of one here."""
    with patch.multiple(consumer, _DELIVERIES_MAX=deliveries_max, _ISOLATED_MAX=1000):
        yield


def again(seed: int, variant: str | None = None) -> str:
    """The command that replays exactly this history."""
    command = f"python -m simulation.run --seed {seed} --trace"
    return command if variant is None else f"{command} --variant {variant}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when nothing was wrong."""
    options = _options(arguments)
    first, end = options.seeds or (options.seed, options.seed + 1)
    began, failed, heard = time.monotonic(), 0, Counter[str]()
    _tame_collector()
    with VARIANTS[options.variant]() if options.variant else nullcontext():
        for seed in range(first, end):
            history = run(seed, traced=options.trace)
            heard += history.heard
            if options.trace:
                print(plan_of(seed), *history.told, f"digest {history.digest}", sep="\n")
            if history.breaches:
                failed += 1
                print(
                    *(f"seed {seed}: {breach}" for breach in history.breaches), again(seed, options.variant), sep="\n"
                )
    print("heard: " + ", ".join(f"{event} {number}" for event, number in heard.most_common()))
    print(f"{end - first} histories in {time.monotonic() - began:.1f} s, {failed} broken")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Histories of the engine on a virtual clock.")
    parser.add_argument("--seed", type=int, default=0, help="one history")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "END"), help="all from FIRST to below END")
    parser.add_argument("--trace", action="store_true", help="tell the history step by step")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="of an engine that is broken on purpose")
    return parser.parse_args(arguments)


def _tame_collector() -> None:
    """As the processes do it: nothing of what is loaded now is ever garbage."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _brief(row: Row) -> str:
    return f"{row['id'][:8]} {row.get('verb', '')} {row['status']} attempts={row['attempts']}"


if __name__ == "__main__":
    sys.exit(main())
