"""What the acceptor makes of what Redis and the ledger say of a key, where a race of processes would seldom show it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from engine.contracts.gateway import RequestContext, StoredResponse
from engine.domain.command import IdempotencyRecord
from engine.domain.payment import Operation, Status, Verb
from engine.errors import Rejected, Unavailable
from engine.failpoint import Failpoints
from engine.gateway.acceptance import Acceptor, AcceptorContext
from engine.metrics import EngineMetrics
from engine.resilience.fitness import Fitness
from engine.security.encryption import Vault
from engine.security.fingerprint import Fingerprinter
from engine.streams.acceptance_store import AcceptLimits
from engine.streams.encoding import encode_record
from support.decision_stand import NOON, an_authorized_payment, changed

AMOUNT = 5000
FINGERPRINTER = Fingerprinter(b"f" * 32)
PAYMENT = an_authorized_payment().payment.id
AWAY = Unavailable("store_unavailable", "Postgres is away")


@dataclass(kw_only=True)
class Stores:
    """Both stores as one request meets them."""

    word: str
    held: bool
    known: Operation | Unavailable | None = None
    revived: list[str] = field(default_factory=list)

    async def accept(self, partition: int, payment: str, operation: str, **_: Any) -> tuple[str, Any, bool]:
        record = encode_record(IdempotencyRecord(fingerprint=FINGERPRINTER.of({"amount": AMOUNT})))
        return self.word, b"5-0" if self.word == "accepted" else record, self.held

    async def revive(self, partition: int, payment: str, operation: str, **_: Any) -> bool:
        self.revived.append(operation)
        return True

    async def operation(self, operation: str) -> Operation | None:
        if isinstance(self.known, Unavailable):
            raise self.known
        return self.known

    def asked(self, *, fitness: Fitness | None = None) -> StoredResponse:
        """The reply to a capture."""

        async def known(merchant: str, payment: str) -> tuple[bytes, int]:
            return b'{"shown":"by a look-up"}', AMOUNT

        context = AcceptorContext(
            installation="stand",
            partitions=16,
            connector="ficmart_bank",
            acceptance_store=self,  # type: ignore[arg-type]
            ledger_reader=self,  # type: ignore[arg-type]
            queries=SimpleNamespace(known=known),  # type: ignore[arg-type]
            reply_channel=SimpleNamespace(edge="edge"),  # type: ignore[arg-type]
            vault=Vault([b"m" * 32]),
            fingerprinter=FINGERPRINTER,
            limits=AcceptLimits(backlog=10, backlog_headroom=11, merchant=10, merchant_headroom=11, open_operations=10),
            record_ttl_ms=60_000,
            clock=lambda: NOON,
            failpoints=Failpoints(),
            meters=EngineMetrics(CollectorRegistry()),
            fitness=fitness or Fitness(),
        )
        origin = RequestContext(merchant="m_1", key="next", request_id="req_1", traceparent=None, wait_s=0)
        return asyncio.run(Acceptor(context).operate(origin, PAYMENT, Verb.CAPTURE, None))


def journaled(order: int) -> Operation:
    """A capture of the whole amount that the ledger has and that is not answered."""
    capture = an_authorized_payment().accept(Verb.CAPTURE).operation(Verb.CAPTURE)
    return changed(capture, status=Status.IN_DOUBT, accept_order=order)


@pytest.mark.parametrize(
    ("known", "held", "revives"),
    [(None, False, 1), (AWAY, False, 1), (None, True, 0), (journaled(4_000_000), False, 0), (AWAY, True, 0)],
    ids=["lost", "lost, and the ledger away", "in the stream", "in the ledger", "in the stream, and the ledger away"],
)
def test_a_repeated_key_revives_what_neither_store_is_known_to_have(
    known: Operation | Unavailable | None, held: bool, revives: int
) -> None:
    stores = Stores(word="known", held=held, known=known)

    reply = stores.asked()

    assert (reply.status, len(stores.revived)) == (202, revives)


@pytest.mark.parametrize(("order", "shown"), [(5_000_000, b'"verb":"capture"'), (4_000_000, b"by a look-up")])
def test_what_a_quick_worker_has_journaled_of_this_request_is_not_taken_for_an_earlier_use_of_its_key(
    order: int, shown: bytes
) -> None:
    reply = Stores(word="accepted", held=True, known=journaled(order)).asked()

    assert reply.status == 202 and shown in reply.body


@pytest.mark.parametrize("word", ["accepted", "known", "full"])
def test_a_key_of_another_amount_in_the_ledger_is_refused_before_that_is_answered(word: str) -> None:
    stores = Stores(word=word, held=True, known=changed(journaled(4_000_000), amount=AMOUNT + 1))

    with pytest.raises(Rejected, match="another payload"):
        stores.asked()


def test_a_key_that_the_ledger_has_is_answered_at_full_backlog_and_no_other() -> None:
    assert Stores(word="full", held=True, known=journaled(4_000_000)).asked().status == 202
    with pytest.raises(Unavailable, match="backlog is full"):
        Stores(word="full", held=True).asked()


def test_a_process_that_does_not_fit_accepts_nothing() -> None:
    fitness = Fitness()
    fitness.tell("clock", "it is 20 s ahead")

    with pytest.raises(Unavailable, match="Nothing was accepted"):
        Stores(word="accepted", held=True).asked(fitness=fitness)
