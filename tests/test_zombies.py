"""A worker that slept past its lease, at any step, changes nothing when it wakes: it says why, and takes part again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.bank_harness import Bank, fresh_cards
from support.crash_stage import AT_THE_BANK, EFFECTS, ENDS, FROM_THE_ANSWER, TO_THE_INTENT, Stage, a_stage, effects
from support.gateway import Gateway, Running, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def stage(module_database: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with a_stage(module_database, calm_bank, tmp_path_factory.mktemp("zombies")) as running:
        yield running


@pytest.mark.parametrize(
    ("verb", "points"),
    [
        ("authorize", TO_THE_INTENT),
        ("authorize", FROM_THE_ANSWER),
        ("capture", AT_THE_BANK),
        ("refund", AT_THE_BANK),
    ],
    ids=["authorize to its intent", "authorize from the bank on", "capture", "refund"],
)
def test_a_worker_stopped_past_its_lease_at_any_step_changes_nothing_when_it_goes_on(
    stage: Stage, verb: str, points: list[str]
) -> None:
    zombies = stage.meet(verb, points, "stop")
    ended = stage.ended(verb, zombies)
    before = _ledger(stage.gateway)

    said = {each.point: _woken(each.worker) for each in zombies}
    stage.gateway.shared(len(points) + 1)
    after = _ledger(stage.gateway)
    paid = _one_in_each_partition(stage.gateway)
    codes = {each.worker.end() for each in zombies}

    assert ended == {point: (ENDS[verb], EFFECTS[verb]) for point in points}
    assert after == before
    assert {point for point, log in said.items() if b'"partition_fenced"' not in log} == set()
    assert {each.point: effects(stage.bank, each.card) for each in zombies} == {key: EFFECTS[verb] for key in points}
    assert paid == {201}
    assert codes == {0}
    assert stage.gateway.dead() == []


@pytest.fixture
def gateway(database: str, redis_url: str, bank: Bank, tmp_path: Path) -> Iterator[Gateway]:
    with a_gateway(database, redis_url, f"http://127.0.0.1:{bank.port}", tmp_path, workers=0) as running:
        yield running


def test_successors_that_slept_in_the_take_over_do_not_oust_the_one_that_did_not(gateway: Gateway, bank: Bank) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card).json()["id"]
    zombies = []
    for point in ("after-intent", "after-lease", "after-epoch", "after-resume", "after-claim"):
        zombies.append(gateway.launch("worker", PENSTOCK_FAILPOINTS=f"{point}:stop"))
        eventually(lambda: zombies[-1].out, f"it is at {point}", 15)
    owner = gateway.start("worker")
    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized", 20)
    gateway.settled()
    before = _ledger(gateway)
    epochs = gateway.sql("SELECT id, epoch FROM partitions ORDER BY id")

    for zombie in zombies:
        zombie.send(signal.SIGCONT)
    still_s = 0.6  # several beats, and less than the lease time for which who slept keeps still
    until = time.monotonic() + still_s
    while time.monotonic() < until:
        assert gateway.sql("SELECT id, epoch FROM partitions ORDER BY id") == epochs
    gateway.shared(len(zombies) + 1)

    assert _ledger(gateway) == before
    assert b'"partition_fenced"' not in owner.log.read_bytes()
    assert all(
        b'"partition_fenced"' in log or b'"acquired_by_another"' in log for log in (z.log.read_bytes() for z in zombies)
    )
    assert _one_in_each_partition(gateway) == {201}
    assert effects(bank, card) == ["AUTH_HOLD"]


def test_of_two_workers_that_own_a_partition_one_writes_and_the_order_is_kept(gateway: Gateway, bank: Bank) -> None:
    cards = [next(fresh_cards) for _ in range(4)]
    for card in cards:  # so that the first worker has all of them at the bank when it stops
        bank.fault("latency", card_number=card, operation="authorize", latency_ms=400, times=1)
    first = gateway.start("worker")
    payments = [gateway.pay(card).json()["id"] for card in cards]
    eventually(lambda: gateway.unsettled() == len(cards), "all are at the bank")
    first.send(signal.SIGSTOP)
    for payment in payments:
        assert gateway.post(f"/v1/payments/{payment}/capture").status_code == 202
    gateway.start("worker")
    eventually(lambda: len(gateway.owned()) == 1 and any(gateway.owned().values()), "another owns them", 20)

    for payment in payments:  # accepted while the second works, just before the first goes on
        assert gateway.post(f"/v1/payments/{payment}/refund").status_code == 202
    first.send(signal.SIGCONT)
    for payment in payments:
        eventually(lambda payment=payment: gateway.get(payment)["status"] == "refunded", "it is refunded", 20)
    gateway.settled()

    assert b'"partition_fenced"' in first.log.read_bytes()
    for payment, card in zip(payments, cards, strict=True):
        rows = gateway.sql("SELECT sequence, event FROM transitions WHERE payment = %s ORDER BY sequence", payment)
        told = [event for _, event in rows if event != "in_doubt"]
        assert [sequence for sequence, _ in rows] == list(range(1, len(rows) + 1))
        assert told == ["created", "authorized", "captured", "refunded"]
        assert effects(bank, card) == ["AUTH_HOLD", "CAPTURE", "REFUND"]


def _ledger(gateway: Gateway) -> dict[str, list[tuple[object, ...]]]:
    """All that the commits of a worker write."""
    tables = ("payments", "operations", "transitions", "outbox")
    return {table: gateway.sql(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}


def _woken(zombie: Running) -> bytes:
    """What it says once it goes on."""
    asleep = zombie.log.stat().st_size
    zombie.send(signal.SIGCONT)

    def said() -> bytes:
        return zombie.log.read_bytes()[asleep:]

    # A renewal may have been under way when it stopped: only the one after that is told of the new holder.
    eventually(lambda: b'"partition_fenced"' in said(), "it says that it is no owner any more")
    return said()


def _one_in_each_partition(gateway: Gateway) -> set[int]:
    """The answers of one new payment for each."""
    with ThreadPoolExecutor(8) as pool:
        keys = [next(gateway.keys_in(partition)) for partition in range(16)]
        return {
            answer.status_code
            for answer in pool.map(lambda key: gateway.pay(next(fresh_cards), key=key, wait=20), keys)
        }
