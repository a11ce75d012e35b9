"""Faults, one function a kind: what happens to a process, a store or the bank, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import anyio

from engine.streams import keys
from simulation.plan import Blow, Fault, Moment
from simulation.processes import EdgeProcess, Process, Town, WorkerProcess
from simulation.simulated_network import FAIR, Link
from simulation.simulated_scripts import HANDS
from simulation.witness import Witness

_RESTART_S = 0.2  # the least that a process takes to come back
_UNTIL_S = 1.0

AnyProcess = TypeVar("AnyProcess", bound=Process)


class Scene(Town, Protocol):
    """What faults strike."""

    workers: list[WorkerProcess]
    edges: list[EdgeProcess]
    witness: Witness
    ledger_ahead_s: float  # Postgres's clock, of the true time
    traps: dict[tuple[Moment, str], Callable[[], None]]  # what is done to a process when it comes to a moment

    def start_worker(self) -> None: ...

    def start_edge(self, place: int) -> None: ...

    def tell(self, who: str, what: str, *details: object) -> None: ...


async def strike(scene: Scene, fault: Fault) -> None:
    """Wait for the moment, do it, and end it."""
    await anyio.sleep(fault.at_s)
    scene.tell("fault", str(fault.blow), f"for {fault.lasts_s:.3f} s")
    await _BLOWS[fault.blow](scene, fault)
    scene.tell("fault", "over:", str(fault.blow))


async def _kill_worker(scene: Scene, fault: Fault) -> None:
    worker = _one_of(scene.workers, fault)
    if worker is not None:
        await _struck(scene, worker, fault, worker.kill)
        await anyio.sleep(fault.lasts_s + _RESTART_S)
        scene.start_worker()


async def _pause_worker(scene: Scene, fault: Fault) -> None:
    worker = _one_of(scene.workers, fault)
    if worker is not None:
        await _struck(scene, worker, fault, worker.pause)
        await anyio.sleep(fault.lasts_s)
        worker.resume()


async def _stop_worker(scene: Scene, fault: Fault) -> None:
    worker = _one_of(scene.workers, fault)
    if worker is not None:
        worker.stop()
        await anyio.sleep(fault.lasts_s + _RESTART_S)
        scene.start_worker()


async def _kill_edge(scene: Scene, fault: Fault) -> None:
    place = fault.target % len(scene.edges)
    edge = scene.edges[place]
    await _struck(scene, edge, fault, edge.kill)
    await anyio.sleep(_RESTART_S)
    scene.start_edge(place)


async def _pause_edge(scene: Scene, fault: Fault) -> None:
    edge = scene.edges[fault.target % len(scene.edges)]
    await _struck(scene, edge, fault, edge.pause)
    await anyio.sleep(fault.lasts_s)
    edge.resume()


async def _flush_redis(scene: Scene, fault: Fault) -> None:
    scene.redis.flush()
    scene.witness.forget_acceptance()


async def _fail_over_redis(scene: Scene, fault: Fault) -> None:
    scene.redis.fail_over(min(fault.lasts_s, 1.0))
    scene.witness.forget_acceptance()


async def _fill_redis(scene: Scene, fault: Fault) -> None:
    scene.redis.full = True
    await anyio.sleep(fault.lasts_s)
    scene.redis.full = False


async def _lay_hand_on_stream(scene: Scene, fault: Fault) -> None:
    how = sorted(HANDS)[fault.steps % len(HANDS)]
    scene.tell("fault", how)
    scene.witness.stream_damaged = True
    for partition in range(scene.plan.partitions):
        scene.redis.lay_hand_on(keys.commands(partition), keys.GROUP, how)


async def _redis_weather(scene: Scene, fault: Fault) -> None:
    if fault.weather is not None and fault.weather.away:
        scene.redis.hang_up()
    await _weather(scene.redis.link, fault)


async def _postgres_weather(scene: Scene, fault: Fault) -> None:
    await _weather(scene.postgres.link, fault)


async def _bank_habits(scene: Scene, fault: Fault) -> None:
    assert fault.habits is not None
    scene.bank.habits = fault.habits
    await anyio.sleep(fault.lasts_s)
    scene.bank.habits = scene.plan.habits


async def _stall_bank(scene: Scene, fault: Fault) -> None:
    scene.bank.stall()
    await anyio.sleep(fault.lasts_s)
    scene.bank.go_on()


async def _skew_worker(scene: Scene, fault: Fault) -> None:
    worker = _one_of(scene.workers, fault)
    if worker is not None:
        worker.host.clock_ahead_s = fault.ahead_s
        await anyio.sleep(fault.lasts_s)
        worker.host.clock_ahead_s = 0.0


async def _step_redis(scene: Scene, fault: Fault) -> None:
    """It stays so: nothing rests on that clock."""
    scene.redis.clock_ahead_ms += int(fault.ahead_s * 1000)


async def _step_postgres(scene: Scene, fault: Fault) -> None:
    scene.ledger_ahead_s = fault.ahead_s


_BLOWS: Mapping[Blow, Callable[[Any, Fault], Awaitable[None]]] = {
    Blow.KILL_WORKER: _kill_worker,
    Blow.PAUSE_WORKER: _pause_worker,
    Blow.STOP_WORKER: _stop_worker,
    Blow.KILL_EDGE: _kill_edge,
    Blow.PAUSE_EDGE: _pause_edge,
    Blow.FLUSH_REDIS: _flush_redis,
    Blow.FAIL_OVER_REDIS: _fail_over_redis,
    Blow.FILL_REDIS: _fill_redis,
    Blow.LAY_HAND_ON_STREAM: _lay_hand_on_stream,
    Blow.REDIS_WEATHER: _redis_weather,
    Blow.POSTGRES_WEATHER: _postgres_weather,
    Blow.BANK_HABITS: _bank_habits,
    Blow.STALL_BANK: _stall_bank,
    Blow.SKEW_WORKER: _skew_worker,
    Blow.STEP_REDIS: _step_redis,
    Blow.STEP_POSTGRES: _step_postgres,
}


async def _weather(link: Link, fault: Fault) -> None:
    assert fault.weather is not None
    link.weather = fault.weather
    await anyio.sleep(fault.lasts_s)
    link.weather = FAIR


async def _struck(scene: Scene, process: Process, fault: Fault, blow: Callable[[], None]) -> None:
    """Let it strike at the fault's moment, or a second later if that does not come."""
    struck, host = anyio.Event(), process.host

    def strikes() -> None:
        if not struck.is_set():
            blow()
            struck.set()

    if fault.moment is Moment.STEPS:
        host.fuse, host.burnt = fault.steps, strikes
    else:
        scene.traps[fault.moment, host.name] = strikes
    with anyio.move_on_after(_UNTIL_S):
        await struck.wait()
    scene.traps.pop((fault.moment, host.name), None)
    strikes()


def _one_of(processes: list[AnyProcess], fault: Fault) -> AnyProcess | None:
    """A process that is up and not in trouble already."""
    fit = [process for process in processes if process.up and not process.host.paused and not process.host.fuse]
    return fit[fault.target % len(fit)] if fit else None
