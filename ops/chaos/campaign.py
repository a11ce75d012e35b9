"""The campaign: raise a rig, let the crowd in, strike, heal, wait, count. What strikes is given by the caller.

Order at the end: faults are healed, the shop lets nobody in, customers finish what they began, keys are repeated once
more, holds that the bank doubled are given back, both books are read, and only then everything is stopped; whatever is
still there then is a breach, too.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psycopg
from anyio import to_thread
from redis.exceptions import RedisError

from engine.errors import Broken
from ops.audit.reconcile import opening_balances
from ops.chaos.books import Books, read_books, still_open
from ops.chaos.check import Verdict, judge
from ops.chaos.client import Counter, session
from ops.chaos.environment import Environment, EnvironmentPlan, raised
from ops.chaos.faults import FaultStage, Losses, strike_out
from ops.chaos.history import OrderHistory, PurchaseHistory, PurchaseStage
from ops.chaos.load import Crowd
from ops.chaos.progress import ProgressBoard
from ops.chaos.purchase import take
from ops.chaos.remedy import give_back
from ops.chaos.report_files import write_evidence
from ops.chaos.schedule import Strike
from ops.stack.daemon import EmbeddedError

SETTLE_S = 90.0  # after everything is healed; parked operations are asked again every two seconds
LOOK_AGAIN_S = 0.3
STOCKTAKE_MAX = 500  # keys that are repeated at the end, besides those that had trouble
AT_ONCE = 50


@dataclass(slots=True, kw_only=True)
class CampaignOutcome:
    """What came of a campaign. `missed` are strikes that could not be inflicted."""

    verdict: Verdict
    till: PurchaseHistory
    books: Books
    folder: Path
    kept: bool
    missed: list[str] = field(default_factory=list)


During = Callable[[FaultStage, PurchaseHistory], Awaitable[None]]


async def campaign(
    plan: EnvironmentPlan, *, seed: int, rate_per_s: float, board: ProgressBoard, during: During
) -> CampaignOutcome:
    """Raises StackFailed, EmbeddedError and Broken when the stack cannot be raised, or does not come back."""
    till, losses = PurchaseHistory(), Losses()
    with a_folder() as folder:
        async with raised(plan, folder) as rig, session() as http:
            openings = await to_thread.run_sync(opening_balances, rig.bank_database)
            counter = Counter(http, rig.edges, f"chaos-{seed}")
            async with anyio.create_task_group() as life:
                life.start_soon(rig.supervise)
                life.start_soon(board.run, rig, till)
                crowd = Crowd(seed, rate_per_s, counter, till)
                async with anyio.create_task_group() as load:
                    load.start_soon(crowd.run)
                    await during(FaultStage(rig=rig, losses=losses, http=http), till)
                    await _settle(rig, crowd, counter, board)
                await _stocktake(till, counter, seed)
                await _until_over(rig)  # a repeated key may be a short-lived entry again
                for sentence in await give_back(rig):
                    board.tell(f"could not be given back: {sentence}")
                books = await to_thread.run_sync(read_books, rig, openings)
                life.cancel_scope.cancel()
            found = judge(till.orders, books, losses.spans)
            if not found.clean:
                await to_thread.run_sync(write_evidence, rig.database, folder, found)
        verdict = judge(till.orders, books, losses.spans, rig.left_over)
        kept = not verdict.clean
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return CampaignOutcome(verdict=verdict, till=till, books=books, folder=folder, kept=kept)


def striking(strikes: Sequence[Strike], seconds: float, board: ProgressBoard, missed: list[str]) -> During:
    """All strikes of a schedule at their moments."""

    async def strike(stage: FaultStage, each: Strike) -> None:
        await anyio.sleep(each.at_s)
        board.tell(str(each))
        board.current.append(f"{each.target} {each.fault}")
        try:
            await strike_out(stage, each)
        except (psycopg.Error, RedisError, EmbeddedError, OSError) as error:
            missed.append(f"{each}: {type(error).__name__} {error}")
            board.tell(f"          could not be inflicted: {missed[-1]}")
        finally:
            board.current.remove(f"{each.target} {each.fault}")

    async def during(stage: FaultStage, till: PurchaseHistory) -> None:
        board.doing = "under load, being struck"
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for each in strikes:
                tasks.start_soon(strike, stage, each)
        await anyio.sleep(max(0.0, seconds - (time.monotonic() - began)))

    return during


async def _settle(rig: Environment, crowd: Crowd, counter: Counter, board: ProgressBoard) -> None:
    """Nobody comes any more; who is there finishes, and so does the gateway, both within bounds."""
    board.doing = "all faults healed, waiting until everything has ended"
    counter.closing = True
    await rig.whole()
    for _ in range(round(SETTLE_S / LOOK_AGAIN_S)):
        if not crowd.present and await to_thread.run_sync(_is_over, rig):
            break
        await anyio.sleep(LOOK_AGAIN_S)
    counter.closed = True


async def _until_over(rig: Environment) -> None:
    for _ in range(round(SETTLE_S / LOOK_AGAIN_S)):
        if await to_thread.run_sync(_is_over, rig):
            return
        await anyio.sleep(LOOK_AGAIN_S)


def _is_over(rig: Environment) -> bool:
    with suppress(psycopg.Error, Broken):
        return not still_open(rig)
    return False  # who cannot be read has not come back yet


async def _stocktake(till: PurchaseHistory, counter: Counter, seed: int) -> None:
    """Repeat keys that had trouble, and some that had none: each must get the bytes of its first answer."""
    ended = [order for order in till.orders if order.stage is PurchaseStage.ENDED]
    troubled = [order for order in ended if order.unknown_at or order.unanswered]
    calm = [order for order in ended if not (order.unknown_at or order.unanswered)]
    sample = random.Random(seed).sample(calm, min(STOCKTAKE_MAX, len(calm)))
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def repeat(order: OrderHistory) -> None:
        async with limit:
            await take(order, counter, till)

    async with anyio.create_task_group() as tasks:
        for order in [*troubled, *sample]:
            tasks.start_soon(repeat, order)


@contextmanager
def a_folder() -> Iterator[Path]:
    """A new folder for one run. Gone when that is interrupted; with its logs when it could not be run to its end."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    folder.chmod(0o711)  # when root starts it, Postgres runs under another account and must pass
    try:
        yield folder
    except (KeyboardInterrupt, asyncio.CancelledError):
        shutil.rmtree(folder, ignore_errors=True)
        raise
