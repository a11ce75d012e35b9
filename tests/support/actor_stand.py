"""One actor with the real rules, teller and gate, in virtual time; the test holds the bank, the clocks and the ledger.

What its waits and looks are worth shows here to the millisecond, and in no time at all. That the real stores do what
this ledger does is tested elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from engine.contracts.connector import BankRequest, Capabilities
from engine.domain.bank_answer import Answer, Approved, Finding, Found
from engine.domain.changeset import ChangeSet
from engine.domain.decision import Decider
from engine.domain.money import CURRENCIES
from engine.domain.operator_rules import WaitingAction
from engine.domain.payment import Card, Operation, Payment, Verb
from engine.errors import Broken, Taken
from engine.failpoint import Failpoints
from engine.ledger.store_clock import Store, StoreClock
from engine.ledger.writer import CommitVerdict, FencingToken, Loaded
from engine.metrics import EngineMetrics
from engine.resilience.circuit_breaker import BreakerPolicy
from engine.resilience.fair_semaphore import FairSemaphore
from engine.resilience.guarded_connector import GuardedConnector, HoldBackPolicy
from engine.resilience.retry_budget import RetryBudgetPolicy
from engine.security.encryption import Vault
from engine.streams.completion import Completed, DeadLettered, Journaled
from engine.streams.dead_letter import Cause
from engine.worker.actor import Actor
from engine.worker.bank_caller import BankCaller
from engine.worker.context import WorkerContext
from engine.worker.pending_entries import MailboxMessage
from simulation.simulated_loop import SimulatedLoop
from support.decision_stand import AMOUNT, JOURNAL, NOON, PATIENCE, Desk

VAULT = Vault([b"m" * 32])
CARD = Card(number="4111111111111111", cvv="123", expiry_month=12, expiry_year=2030)
BEGINS_S = 1000.0  # of the loop's clock: a process is never as old as its clock
BANK_S = 0.1  # what the bank takes for an answer, unless it is told otherwise


@dataclass(kw_only=True)
class HeldBank:
    """Says to each call what it is told to say, approves when it is told nothing, and knows when it was asked."""

    clock: StoreClock
    says: list[Answer] = field(default_factory=list)
    takes_s: list[float] = field(default_factory=list)
    asked: list[tuple[float, BankRequest]] = field(default_factory=list)
    windows: list[timedelta] = field(default_factory=list)  # from each call until it may not be written any more
    findings: list[Finding] = field(default_factory=list)
    looked_up: list[tuple[Verb, str]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    answers: bool = True
    probed: Callable[[], None] = lambda: None
    name = "ficmart_bank"
    capabilities = Capabilities(
        methods=frozenset({"card"}), currencies=CURRENCIES, verbs=frozenset(Verb), partial_amounts=False
    )

    async def ask(self, ask: BankRequest) -> Answer:
        self.asked.append((anyio.current_time() - BEGINS_S, ask))
        self.windows.append(ask.send_by - self.clock.steady())
        await anyio.sleep(self.takes_s.pop(0) if self.takes_s else BANK_S)
        self.meanwhile()
        if self.says:
            return self.says.pop(0)
        expires_at = NOON + timedelta(days=7) if ask.verb is Verb.AUTHORIZE else None
        return Approved(reference=f"{ask.verb}_1", at=NOON, expires_at=expires_at)

    async def probe(self, timeout_s: float) -> bool:
        self.probed()
        return self.answers

    async def look_up(self, verb: Verb, reference: str, timeout_s: float) -> Finding:
        self.looked_up.append((verb, reference))
        if self.findings:
            return self.findings.pop(0)
        return Found(reference=reference, amount=AMOUNT, currency="USD", parent=None, at=NOON)

    @property
    def asked_at(self) -> list[float]:
        return [at for at, _ in self.asked]


@dataclass(kw_only=True)
class HeldLedger:
    """Has what a desk has, and what is committed to it."""

    payment: Payment | None = None
    operations: dict[str, Operation] = field(default_factory=dict)
    acts: tuple[WaitingAction, ...] = ()
    steps: list[ChangeSet] = field(default_factory=list)
    unheard: int = 0  # commits whose answer is lost: they look like a conflict
    refuses: int = 0  # so many commits and loads to come
    taken: str = ""  # this id of the bank's is in another receipt
    by_hand: set[str] = field(default_factory=set)  # operations that an operator's word ended
    others: dict[str, Operation] = field(default_factory=dict)  # of other payments

    async def commit(self, step: ChangeSet, fence: FencingToken) -> CommitVerdict:
        self._refused()
        if self.taken and self.taken in (step.payment.bank.authorization_id, step.payment.bank.capture_id):
            raise Taken("authorization_is_one_receipts")
        self.steps.append(step)
        self.payment = step.payment
        self.operations |= {operation.id: operation for operation in step.operations}
        done = {act.id for act in step.acts}
        self.acts = tuple(act for act in self.acts if act.id not in done)
        if self.unheard:
            self.unheard -= 1
            return CommitVerdict.CONFLICT
        return CommitVerdict.COMMITTED

    async def load(self, payment: str, operation: str = "") -> Loaded:
        self._refused()
        return Loaded(
            payment=self.payment,
            operations=tuple(self.operations.values()),
            asked=self.operations.get(operation) or self.others.get(operation),
            acts=() if operation else self.acts,
        )

    async def unfinished(self, partition: int, limit: int) -> list[str]:
        return []

    def _refused(self) -> None:
        if self.refuses:
            self.refuses -= 1
            raise Broken("its row cannot be read")

    async def holder(self, connector: str, reference: str) -> str | None:
        return "payment pay_other" if self.taken == reference else None

    async def is_by_hand(self, payment: str, operation: str) -> bool:
        return operation in self.by_hand

    @property
    def results(self) -> list[str]:
        return [act.result for step in self.steps for act in step.acts]


@dataclass(kw_only=True)
class HeldHome:
    """A partition consumer of which only one actor is known."""

    partition: int
    fence: FencingToken = field(default_factory=lambda: FencingToken(1, "token"))
    released: list[str] = field(default_factory=list)
    buried: list[DeadLettered] = field(default_factory=list)
    left: list[str] | None = None  # with the end of its actor
    why_unable: str = ""

    def release(self, entries: Iterable[str]) -> None:
        self.released += entries

    def finished(self, payment: str, left: Iterable[str]) -> None:
        self.left = list(left)

    async def bury(self, buried: DeadLettered, cause: Cause) -> None:
        self.buried.append(buried)

    def rest(self, payment: str) -> None:
        raise AssertionError("nothing of this payment can be worked on")

    async def unable(self, payment: str, why: str) -> bool:
        self.why_unable = why
        return False

    def fence_off(self, why: str) -> None:
        raise AssertionError(why)


class Stand:
    """A worker's tools around one payment. `wrong_s` sets the process's own clock wrong."""

    def __init__(self, loop: SimulatedLoop, desk: Desk | None, partition: int, worst_s: float) -> None:
        self._loop, self.wrong_s = loop, 0.0
        self.clock = StoreClock(self._wall, loop.time, skew_max_s=2.0)
        self.bank = HeldBank(clock=self.clock)
        self.ledger = HeldLedger()
        if desk is not None:
            self.ledger.payment = desk.payment
            self.ledger.operations = {operation.id: operation for operation in desk.operations}
        self.home = HeldHome(partition=partition)
        self.let_go: list[Completed | Journaled | DeadLettered] = []
        self._meters = meters = EngineMetrics(CollectorRegistry())
        self.gate = self.a_gate(self.bank, worst_s)
        self.connectors = {self.bank.name: self.gate}
        self.context = WorkerContext(
            ledger=self.ledger,  # type: ignore[arg-type]
            completion=self._settled,  # type: ignore[arg-type]
            bank_caller=BankCaller(self.connectors, VAULT, PATIENCE, self.clock.steady, Failpoints(), meters),
            decider=Decider(PATIENCE, JOURNAL, random.Random(7)),
            clock=self.clock,
            failpoints=Failpoints(),
            meters=meters,
            places=FairSemaphore(10),
            partition_of=lambda payment: partition,
        )

    def a_gate(self, bank: HeldBank, worst_s: float) -> GuardedConnector:
        tolerance = BreakerPolicy(silences_max=1000, rest_s=1.0, rest_cap_s=1.0, probes=1)
        patience, allowance = (
            HoldBackPolicy(attempt_s=1.0, worst_latency_s=worst_s),
            RetryBudgetPolicy(share=1.0, floor_per_s=1000),
        )
        return GuardedConnector(bank, tolerance, allowance, patience, self._meters)

    def _wall(self) -> datetime:
        return NOON + timedelta(seconds=self._loop.time() - BEGINS_S + self.wrong_s)

    async def _settled(self, done: Completed | Journaled | DeadLettered) -> None:
        self.let_go.append(done)

    def tells(self, store: Store, ahead_s: float) -> None:
        """A store tells its time, which is so far ahead of the true one."""
        now_s = self._loop.time()
        self.clock.heard(store, NOON + timedelta(seconds=now_s - BEGINS_S + ahead_s), now_s, now_s)

    async def works(self, payment: str, *deliveries: MailboxMessage, drained_since_s: float | None = None) -> None:
        """An actor that is told to look at its payment, or given entries, until it has nothing left to do."""
        actor = Actor(payment, self.home, self.context, drained_since_s=drained_since_s)
        actor.mailbox.extend(deliveries or [MailboxMessage(command=None, entry=None, first=False)])
        await actor.run()

    def operation(self, verb: Verb) -> Operation:
        return [known for known in self.ledger.operations.values() if known.verb is verb][-1]


class HastyLoop(SimulatedLoop):
    """Its timers ring a millisecond early, as real ones may."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return super().call_at(max(when - 0.001, self.time()), callback, *args, context=context)


def played(
    story: Callable[[Stand], Coroutine[Any, Any, None]],
    desk: Desk | None = None,
    *,
    worst_s: float = 0.0,
    time: type[SimulatedLoop] = SimulatedLoop,
) -> None:
    """In virtual time, with what a desk holds in the ledger."""
    loop = time(random.Random(7), shuffled=False)
    partition = 3 if desk is None else desk.payment.partition

    async def begun() -> None:
        await anyio.sleep(BEGINS_S)
        await story(Stand(loop, desk, partition, worst_s))

    try:
        loop.run_until_complete(begun())
    finally:
        loop.close()
