"""The strikes of a campaign do what their schedule says: looked at on a real stack, while they are in force and after.

Workers are at rest where entries must stay unread: the stream is struck, not the luck of a moment.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import httpx
import psutil
import pytest
from anyio import to_thread
from redis import Redis
from redis.exceptions import ReadOnlyError, RedisError

from bank.simulator.card import EXTRA_CARD_CVV, extra_card
from engine.streams import keys
from ops.chaos import faults as strikes
from ops.chaos.damage import STEP_MS, STRAY
from ops.chaos.environment import TICK_S, Environment, EnvironmentPlan
from ops.chaos.faults import MARGIN_S, FaultStage, Losses, strike_out
from ops.chaos.schedule import FAULTS, PARTITIONS, ChaosFault, Strike, StruckPart
from ops.stack.ephemeral_stack import MERCHANT_KEY
from support.gateway import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
PLAN = EnvironmentPlan(workers=2, edges=1, bank_failure_rate=0, bank_latency_ms=(0, 20), cards=50)
ORDERS = 40
STREAMS = [keys.commands(partition) for partition in range(PARTITIONS)]
Look = Callable[[], Any]


@contextmanager
def a_rig() -> Iterator[Environment]:
    """With its stores running, and no process of the gateway yet."""
    with tempfile.TemporaryDirectory(prefix="penstock-strikes-") as folder:
        Path(folder).chmod(0o711)
        stack = Environment(PLAN, Path(folder))
        try:
            stack.start_stores()
            yield stack
        finally:
            stack.close()


@pytest.fixture(scope="module")
def standing() -> Iterator[Environment]:
    with a_rig() as stack:
        stack.start()
        yield stack


@pytest.fixture
def rig(standing: Environment) -> Environment:
    """Whole, whatever the test before did to it."""

    async def supervised() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(standing.supervise)
            await anyio.sleep(2 * TICK_S)
            await standing.whole()
            tasks.cancel_scope.cancel()

    anyio.run(supervised)
    return standing


@pytest.fixture
def stores() -> Iterator[Environment]:
    with a_rig() as stack:
        yield stack


@pytest.fixture
def redis(rig: Environment) -> Iterator[Redis]:
    with Redis.from_url(rig.redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def at_rest(rig: Environment, redis: Redis) -> Iterator[None]:
    """Both workers are asleep, each partition has a group, and there are commands that nobody has read."""
    for name in ("worker-1", "worker-2"):
        rig.stop(name)
        eventually(partial(is_stopped, psutil.Process(rig.child(name).pid)), f"{name} sleeps")
    redis.flushall()
    for stream in STREAMS:
        redis.xgroup_create(stream, keys.GROUP, "0", mkstream=True)
    with httpx.Client(headers={"X-API-Key": MERCHANT_KEY}) as shop:
        for number in range(ORDERS):
            assert order(shop, rig, number).status_code == 202
    yield
    for name in ("worker-1", "worker-2"):
        rig.wake(name)


def order(shop: httpx.Client, rig: Environment, number: int) -> httpx.Response:
    card = {"type": "card", "number": extra_card(number), "cvv": EXTRA_CARD_CVV, "expiry_month": 12}
    body = {"amount": 1000 + number, "currency": "USD", "payment_method": card | {"expiry_year": 2030}}
    body |= {"order_id": f"order-{number}", "customer_id": "customer-1"}
    key = f"strike-{time.monotonic_ns()}-{number}"
    return shop.post(f"{rig.edges[0]}/v1/payments", json=body, headers={"Idempotency-Key": key})


def inflicted(rig: Environment, strike: Strike, look: Look = lambda: None) -> tuple[Any, Losses]:
    """What a look sees just before the strike is over, and what it says was lost."""
    losses = Losses()

    async def inflict() -> Any:
        async with aiohttp.ClientSession() as http, anyio.create_task_group() as tasks:
            tasks.start_soon(strike_out, FaultStage(rig=rig, losses=losses, http=http), strike)
            await anyio.sleep(strike.lasting_s / 4)
            return await to_thread.run_sync(look)

    return anyio.run(inflict), losses


def a_strike(fault: ChaosFault, lasting_s: float = 0.5, **particulars: Any) -> Strike:
    part = FAULTS[fault][0]
    target = f"{part}-1" if part in (StruckPart.WORKER, StruckPart.EDGE) else part.value
    return Strike(at_s=0, lasting_s=lasting_s, fault=fault, target=target, **particulars)


def is_stopped(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def lengths(redis: Redis) -> list[Any]:
    return [redis.xlen(stream) for stream in STREAMS]


def groups(redis: Redis) -> list[Any]:
    """Each partition's group: the last entry it delivered, and how many are pending; None without a group."""
    found: list[Any] = [redis.xinfo_groups(stream) if redis.exists(stream) else [] for stream in STREAMS]
    return [(each[0]["last-delivered-id"], each[0]["pending"]) if each else None for each in found]


def records(redis: Redis) -> int:
    return sum(1 for _ in redis.scan_iter("penstock:*:idem:*", count=1000))


@pytest.mark.parametrize(
    ("fault", "target"), [(ChaosFault.WORKER_CLOCK_WRONG, "worker-1"), (ChaosFault.EDGE_CLOCK_WRONG, "edge-1")]
)
def test_a_process_reads_its_own_clock_from_the_file_that_the_strike_writes(
    rig: Environment, fault: ChaosFault, target: str
) -> None:
    files = {
        name: psutil.Process(rig.child(name).pid).environ()["PENSTOCK_CLOCK_OFFSET_FILE"]
        for name in ("worker-1", "worker-2", "edge-1")
    }

    def offsets() -> dict[str, float]:
        return {name: float(Path(file).read_text()) for name, file in files.items() if Path(file).exists()}

    def struck() -> dict[str, float]:
        return offsets() if offsets().get(target) else {}

    strike = a_strike(fault, 3.0, clock_s=(691_200.0,))
    seen, losses = inflicted(rig, strike, lambda: eventually(struck, "the clock is wrong"))

    assert len(set(files.values())) == 3
    assert seen.pop(target) == 691_200
    assert set(seen.values()) <= {0}
    assert set(offsets().values()) == {0}
    assert losses.spans == []


def test_a_clock_steps_from_one_offset_to_the_next(rig: Environment) -> None:
    strike = a_strike(ChaosFault.WORKER_CLOCK_WRONG, 3.0, clock_s=(3.0, -20.0, 86_400.0))
    file = Path(psutil.Process(rig.child("worker-1").pid).environ()["PENSTOCK_CLOCK_OFFSET_FILE"])
    seen, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            offset = float(file.read_text()) if file.exists() else 0.0
            if offset != seen[-1]:
                seen.append(offset)

    watching = threading.Thread(target=watch)
    watching.start()
    inflicted(rig, strike)
    eventually(lambda: seen[-1] == 0, "the clock is right again")
    over.set()
    watching.join()

    assert seen == [0, 3.0, -20.0, 86_400.0, 0]


@pytest.mark.parametrize("lasting_s", [0.2, 3 * PLAN.lease_ms / 1000], ids=["at_least", "beyond_what_wakes_others"])
def test_the_bank_stands_still_for_longer_than_an_attempt_and_then_goes_on(rig: Environment, lasting_s: float) -> None:
    bank, strike = psutil.Process(rig.child("bank").pid), a_strike(ChaosFault.BANK_STALLED, lasting_s)
    began = time.monotonic()

    async def stalled() -> list[str]:
        seen = []
        async with aiohttp.ClientSession() as http, anyio.create_task_group() as tasks:
            tasks.start_soon(strike_out, FaultStage(rig=rig, losses=Losses(), http=http), strike)
            tasks.start_soon(rig.supervise)  # which wakes others that sleep
            await to_thread.run_sync(eventually, partial(is_stopped, bank), "the bank stands still")
            while is_stopped(bank):
                seen.append(bank.status())
                await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()
        return seen

    assert anyio.run(stalled)
    assert time.monotonic() - began > max(lasting_s, PLAN.deadline_s + MARGIN_S)
    assert httpx.get(f"{rig.bank}/health").status_code == 200
    assert rig.child("bank").pid == bank.pid


@pytest.mark.parametrize(
    ("fault", "group"),
    [(ChaosFault.STREAM_TRIMMED, ("0-0", 0)), (ChaosFault.STREAM_DELETED, None)],
    ids=["trimmed", "deleted"],
)
def test_a_stream_loses_its_entries_and_not_their_records(
    rig: Environment, redis: Redis, at_rest: None, fault: ChaosFault, group: Any
) -> None:
    before, kept = lengths(redis), records(redis)
    struck = [partition for partition in range(PARTITIONS) if before[partition]][:3]

    _, losses = inflicted(rig, a_strike(fault, partitions=tuple(struck)))

    after = lengths(redis)
    assert [after[partition] for partition in struck] == [0, 0, 0]
    assert sum(after) == sum(before) - sum(before[partition] for partition in struck)
    assert {groups(redis)[partition] for partition in struck} == {group}
    assert records(redis) == kept == ORDERS
    assert len(losses.spans) == 1


@pytest.mark.parametrize("fault", [ChaosFault.STREAM_SKIPPED, ChaosFault.STREAM_DISOWNED])
def test_a_stream_keeps_its_entries_and_nobody_has_them(
    rig: Environment, redis: Redis, at_rest: None, fault: ChaosFault
) -> None:
    before = lengths(redis)
    struck = [partition for partition in range(PARTITIONS) if before[partition]][:3]
    newest = [redis.xrevrange(STREAMS[partition], count=1)[0][0] for partition in struck]  # type: ignore[index]

    _, losses = inflicted(rig, a_strike(fault, partitions=tuple(struck)))

    found = groups(redis)
    assert lengths(redis) == before
    assert [found[partition] for partition in struck] == [(entry, 0) for entry in newest]
    assert [each for partition, each in enumerate(found) if partition not in struck] == [("0-0", 0)] * (PARTITIONS - 3)
    assert losses.spans == []


def test_consumers_with_pending_entries_are_deleted_whoever_they_are(
    rig: Environment, redis: Redis, at_rest: None
) -> None:
    [struck, *_] = [stream for stream in STREAMS if redis.xlen(stream) > 1]
    redis.xreadgroup(keys.GROUP, "somebody", {struck: ">"}, count=1)

    inflicted(rig, a_strike(ChaosFault.STREAM_DISOWNED, partitions=(STREAMS.index(struck),)))

    consumers: Any = redis.xinfo_consumers(struck, keys.GROUP)
    assert not {"somebody", STRAY} & {consumer["name"] for consumer in consumers}


def test_a_group_is_destroyed_and_its_entries_stay(rig: Environment, redis: Redis, at_rest: None) -> None:
    before = lengths(redis)

    _, losses = inflicted(rig, a_strike(ChaosFault.STREAM_UNGROUPED, partitions=(3, 4)))

    assert lengths(redis) == before
    assert [partition for partition, group in enumerate(groups(redis)) if group is None] == [3, 4]
    assert losses.spans == []


def test_workers_stand_still_while_streams_are_struck_and_go_on_unless_they_sleep_for_another_strike(
    rig: Environment,
) -> None:
    first, second = (psutil.Process(rig.child(name).pid) for name in ("worker-1", "worker-2"))

    with rig.halted("worker"):
        eventually(lambda: is_stopped(first) and is_stopped(second), "both stand still")
        rig.stop("worker-2")

    eventually(lambda: not is_stopped(first), "the first one goes on")
    assert is_stopped(second)
    rig.wake("worker-2")


def test_where_the_clock_of_redis_steps_back_the_living_take_what_the_dead_would_hold_for_hours(
    rig: Environment, redis: Redis
) -> None:
    dead = psutil.Process(rig.child("worker-1").pid)
    name = dead.environ()["PENSTOCK_WORKER_NAME"]

    def owners() -> dict[int, str]:
        return {partition: str(redis.get(keys.lease(partition)) or "") for partition in range(PARTITIONS)}

    def its_own() -> dict[int, str]:
        return {partition: owner for partition, owner in owners().items() if owner.startswith(f"{name}:")}

    eventually(lambda: len(its_own()) == PARTITIONS // 2, "half of the partitions are the first worker's")
    before = its_own()

    def taken() -> bool:
        now = owners()
        return all(now[partition] not in ("", owner) for partition, owner in before.items())

    inflicted(rig, a_strike(ChaosFault.REDIS_CLOCK_BACK, 1.0), lambda: eventually(taken, "the living take them", 30))

    assert not dead.is_running() or dead.status() == psutil.STATUS_ZOMBIE
    left_ms = [int(redis.pttl(keys.lease(partition))) for partition in range(PARTITIONS)]  # type: ignore[arg-type]
    assert max(left_ms) < STEP_MS / 2
    heartbeats: Any = dict(redis.zrange(keys.WORKERS, 0, -1, withscores=True))  # type: ignore[arg-type]
    assert not {worker for worker, at_ms in heartbeats.items() if at_ms / 1000 - time.time() > STEP_MS / 2000}


def test_redis_fails_over_its_address_leads_to_the_new_master_and_old_connections_are_read_only(
    stores: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strikes, "SPLIT_S", split_s := 3.0)  # far above what a busy machine adds
    address, old_pid = stores.redis.port, stores.redis.pid
    written: list[float] = []
    over = threading.Event()
    with Redis(port=address, single_connection_client=True) as old:
        old.set("before", 1)
        old.ping()

        def write() -> None:
            with Redis(port=address, single_connection_client=True) as client:
                while not over.is_set():
                    try:
                        client.set(f"chaos:{len(written)}", 1)
                    except RedisError:
                        return
                    written.append(time.time())

        writing = threading.Thread(target=write)
        writing.start()
        _, losses = inflicted(stores, a_strike(ChaosFault.REDIS_FAILED_OVER, 1.0))
        over.set()
        writing.join()

        with Redis(port=address) as new:
            facts: Any = new.info("server")
            assert (stores.redis.port, stores.redis.pid, facts["process_id"]) == (
                address,
                stores.redis.pid,
                stores.redis.pid,
            )
            assert stores.redis.pid != old_pid
            assert new.get("before") == b"1"
            kept = [number for number in range(len(written)) if new.exists(f"chaos:{number}")]
            assert kept == list(range(len(kept)))
            assert kept
            assert written[-1] - written[len(kept)] > split_s / 2
            with pytest.raises(ReadOnlyError):
                old.set("after", 1)
            assert old.get("before") == b"1"
        [(began, ended)] = losses.spans
        assert ended - began >= split_s
        assert began <= written[-1] <= ended


def test_what_struck_redis_before_strikes_the_new_master_after_a_fail_over(stores: Environment) -> None:
    before = stores.redis.pid
    inflicted(stores, a_strike(ChaosFault.REDIS_FAILED_OVER, 1.0))
    heir = stores.redis.pid
    with Redis.from_url(stores.redis_url) as redis:
        redis.set("kept", 1)

    inflicted(stores, a_strike(ChaosFault.REDIS_KILLED))

    assert len({before, heir, stores.redis.pid}) == 3
    with Redis.from_url(stores.redis_url) as redis:
        assert redis.get("kept") == b"1"
    inflicted(stores, a_strike(ChaosFault.REDIS_EMPTIED))
    with Redis.from_url(stores.redis_url) as redis:
        assert redis.get("kept") is None
