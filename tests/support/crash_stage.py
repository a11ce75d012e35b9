"""A stage on which many workers meet their failpoints at once, each with its own operation, beside one that lives.

Starting a worker is most of what such a test costs, so the doomed start together.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.stack.embedded import EmbeddedRedis
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, Running, a_gateway, eventually

ENDS = {"authorize": "authorized", "capture": "captured", "void": "voided", "refund": "refunded"}
EFFECTS = {
    "authorize": ["AUTH_HOLD"],
    "capture": ["AUTH_HOLD", "CAPTURE"],
    "void": ["AUTH_HOLD", "VOID"],
    "refund": ["AUTH_HOLD", "CAPTURE", "REFUND"],
}
TO_THE_INTENT = ["after-read", "before-intent", "during-commit of the intent", "after-intent", "before-bank"]
FROM_THE_ANSWER = [
    *("during-bank", "after-bank", "before-outcome", "during-commit of the outcome", "after-outcome"),
    *("before-settle", "after-settle"),
]
AT_THE_BANK = ["after-intent", "before-bank", *FROM_THE_ANSWER[:-1]]
PASSINGS = {"during-commit of the intent": "during-commit:{}@1", "during-commit of the outcome": "during-commit:{}@2"}


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """One worker that is about to meet its failpoint, and the payment whose operation leads it there."""

    point: str
    worker: Running
    card: str
    payment: str = ""


@dataclass(kw_only=True)
class Stage:
    """`survivor` is the worker that nothing happens to."""

    gateway: Gateway
    bank: Bank
    survivor: Running

    def meet(self, verb: str, points: list[str], action: str) -> list[Doomed]:
        """Workers that have all met their points with an operation of this verb."""
        stock = self._stock(verb)
        workers = [
            self.gateway.launch("worker", PENSTOCK_FAILPOINTS=PASSINGS.get(point, point + ":{}").format(action))
            for point in points
        ]
        self.gateway.wait_for(*workers)
        owned = self.gateway.shared(len(points) + 1)
        doomed = []
        for point, worker in zip(points, workers, strict=True):
            card, payment = stock[owned[worker.pid][0]]
            doomed.append(Doomed(point=point, worker=worker, card=card, payment=payment))
            if point == "during-bank":
                self.bank.fault("latency", card_number=card, operation=verb, latency_ms=300, times=1)
        with ThreadPoolExecutor(len(points)) as pool:
            doomed = list(pool.map(lambda each: self._begin(verb, each, owned[each.worker.pid][0]), doomed))
        for each in doomed:
            eventually(lambda each=each: each.worker.out, f"{verb}: a worker meets {each.point}", 15)
        return doomed

    def ended(self, verb: str, doomed: list[Doomed], within_s: float = 20) -> dict[str, tuple[str, list[str]]]:
        """By point: where each payment ended, and what the bank did. Waits until all have, or the time is up."""

        def found() -> dict[str, tuple[str, list[str]]]:
            return {each.point: (self._state(each.payment), effects(self.bank, each.card)) for each in doomed}

        wanted = {each.point: (ENDS[verb], EFFECTS[verb]) for each in doomed}
        try:
            eventually(lambda: found() == wanted and self.gateway.backlog() == 0, "all have ended", within_s)
        except AssertionError:
            return found()
        return wanted

    def _stock(self, verb: str) -> dict[int, tuple[str, str]]:
        """A card, and a payment on which the verb is due, for each partition."""
        cards = {partition: next(fresh_cards) for partition in range(16)}
        if verb == "authorize":
            return {partition: (card, "") for partition, card in cards.items()}

        def prepared(partition: int) -> tuple[str, str]:
            key, card = next(self.gateway.keys_in(partition)), cards[partition]
            return card, self.gateway.pay(card, key=key, capture=verb == "refund", wait=20).json()["id"]

        with ThreadPoolExecutor(8) as pool:
            return dict(zip(cards, pool.map(prepared, cards), strict=True))

    def _begin(self, verb: str, doomed: Doomed, partition: int) -> Doomed:
        if verb == "authorize":
            answer = self.gateway.pay(doomed.card, key=next(self.gateway.keys_in(partition)))
        else:
            answer = self.gateway.post(f"/v1/payments/{doomed.payment}/{verb}")
        assert answer.status_code == 202, answer.text
        return Doomed(point=doomed.point, worker=doomed.worker, card=doomed.card, payment=answer.json()["id"])

    def _state(self, payment: str) -> str:
        ((state, unsettled),) = self.gateway.sql(
            """SELECT state, (SELECT count(*) FROM operations WHERE payment = payments.id AND settled_at IS NULL)
               FROM payments WHERE id = %s""",
            payment,
        ) or [("missing", 0)]
        return f"{state}, unsettled" if unsettled else str(state)


@contextmanager
def a_stage(database: str, bank: Bank, folder: Path) -> Iterator[Stage]:
    """In a Redis of its own: that of the session is emptied by whoever takes it."""
    server = EmbeddedRedis(folder / "redis")
    server.start()
    try:
        with a_gateway(
            database, f"redis://127.0.0.1:{server.port}/0", f"http://127.0.0.1:{bank.port}", folder
        ) as gateway:
            yield Stage(gateway=gateway, bank=bank, survivor=gateway.processes[-1])
    finally:
        server.kill()


def effects(bank: Bank, card: str) -> list[str]:
    """What the bank did on a card, in order."""
    statement = """SELECT t.type FROM transactions t JOIN accounts a ON a.id = t.account_id
                   WHERE a.account_number = %s ORDER BY t.created_at"""
    return [row[0] for row in bank.sql(statement, card)]
