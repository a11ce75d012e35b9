"""The verdict on a history that is over: what the invariants say about stores, bank and shops taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from engine.domain.lifecycle import TRANSITIONS, Event
from engine.domain.payment import PaymentState
from engine.streams import keys
from simulation.shop import Shop
from simulation.simulated_bank import SimulatedBank
from simulation.simulated_commit import Tables
from simulation.simulated_redis import RedisServer
from simulation.witness import Witness


def rests(tables: Tables, witness: Witness, payment: str) -> bool:
    """Whether a payment has come to where only a person can go on: something is in review or a dead letter."""
    if payment in witness.buried.values():
        return True
    unsettled = [row for row in tables.operations.values() if row["payment"] == payment and row["settled_at"] is None]
    return any(row["status"] == "review" for row in unsettled)


def breaches(
    tables: Tables, redis: RedisServer, bank: SimulatedBank, shops: Iterable[Shop], witness: Witness
) -> list[str]:
    """Everything that is wrong."""
    return [
        *_lost(tables, shops, witness),
        *_doubled(tables, bank),
        *_disordered(tables, witness),
        *_misjournaled(tables),
        *_left_over(tables, redis, witness),
    ]


def _lost(tables: Tables, shops: Iterable[Shop], witness: Witness) -> Iterator[str]:
    """I10, I6: whatever a shop was promised has ended or rests visibly, with the answer that the shop was given."""
    for shop in shops:
        for operation, verb in shop.accepted.items():
            row = tables.operations.get(operation)
            forgot = witness.redis_forgot or witness.stream_damaged
            if row is None and not (forgot and rests(tables, witness, shop.payment)):
                yield f"I10: accepted {verb} {operation} of {shop.payment} is lost"
            elif row is not None and row["settled_at"] is None and not rests(tables, witness, shop.payment):
                yield f"I10: accepted {verb} {operation} has not ended: {row['status']}"
        for operation, answer in shop.answers.items():
            row = tables.operations.get(operation)
            if row is None or answer != (row["response_status"], row["response_body"]):
                yield f"I6: the answer that was given for {operation} is not the ledger's"


def _doubled(tables: Tables, bank: SimulatedBank) -> Iterator[str]:
    """I5, I7: one effect for each success, none for a refusal; what rests in review may have one."""
    effects = Counter(effect.key for effect in bank.effects)
    for key, number in effects.items():
        row = tables.operations.get(key)
        if row is None:
            yield f"I1: the bank did {key}, which the ledger does not know"
        elif number > 1 and key not in bank.broke_promise:
            yield f"I5: {row['verb']} {key} was done {number} times"
        elif row["status"] not in ("succeeded", "review") and key not in bank.broke_promise:
            yield f"I7: {row['verb']} {key} was done and is {row['status']}"
    for key, row in tables.operations.items():
        if row["status"] == "succeeded" and not effects[key]:
            yield f"I5: {row['verb']} {key} succeeded and was never done"


def _disordered(tables: Tables, witness: Witness) -> Iterator[str]:
    """I3: a payment's operations begin in the order in which they were accepted."""
    for payment, begun in witness.begun.items():
        for first, second in pairwise(begun):
            if tables.operations[first]["accept_order"] > tables.operations[second]["accept_order"]:
                yield f"I3: {first} of {payment} began before {second}, which was accepted first"
    entries = {operation for operation in witness.entries.values()}
    for row in tables.operations.values():
        if not row["key"].startswith("§") and row["id"] not in entries:  # that is the mark of the engine's own
            yield f"I10: {row['id']} is in the ledger and was never accepted"


def _misjournaled(tables: Tables) -> Iterator[str]:
    """I3, I8: sequences without gaps, states by the table, each row with its one event."""
    for payment, receipt in tables.payments.items():
        journal, outbox = tables.journal.get(payment, []), tables.outbox.get(payment, [])
        sequences = [row["sequence"] for row in journal]
        if sequences != list(range(1, receipt["sequence"] + 1)):
            yield f"I8: the journal of {payment} has {sequences}, its receipt says {receipt['sequence']}"
        if [row["sequence"] for row in outbox] != sequences:
            yield f"I8: the events of {payment} are not those of its journal"
        state = PaymentState.PENDING
        for row in journal:
            wanted = TRANSITIONS.get((state, Event(row["event"])))
            if wanted is None or wanted[0] != row["to_state"]:
                yield f"I3: {payment} went from {state} to {row['to_state']} by {row['event']}"
            state = PaymentState(row["to_state"])
        if state != receipt["state"]:
            yield f"I8: {payment} is {receipt['state']}, its journal says {state}"


def _left_over(tables: Tables, redis: RedisServer, witness: Witness) -> Iterator[str]:
    """I2, I4, I12: no entry is left, no lease is held, nothing is open but what rests in review."""
    database = redis.database
    for number in tables.partitions:
        stream = database.streams.get(keys.commands(number))
        if stream is not None and stream.entries:
            yield f"I4: {len(stream.entries)} entries are left in partition {number}"
        pending = [entry for group in stream.groups.values() for entry in group.pending] if stream is not None else []
        if stream is not None and (pending if not witness.stream_damaged else stream.entries.keys() & pending):
            yield f"I4: entries are pending in partition {number}"
        if (holder := database.get(keys.lease(number))) is not None:
            yield f"I2: partition {number} is still held, by {holder!r}"
    for number in tables.partitions:
        # What was taken out by hand is counted until an answer finds the stream empty.
        if keys.merchants(number) in database.hashes and not witness.stream_damaged:
            yield f"I4: entries of partition {number} are still counted: {database.hashes[keys.merchants(number)]}"
    for key, fields in database.hashes.items():
        for operation in fields if ":open:" in key else ():
            if not _may_be_open(tables, witness, operation.decode()):
                yield f"I4: {operation.decode()} is still open in {key}"


def _may_be_open(tables: Tables, witness: Witness, operation: str) -> bool:
    """What rests may; and what a fail-over of Redis opened again, until its key is repeated."""
    row = tables.operations.get(operation)
    if row is None:
        # What an entry's loss left open is revived when its key is repeated, unless its payment rests by then.
        return operation in witness.buried or witness.stream_damaged
    return rests(tables, witness, row["payment"]) if row["settled_at"] is None else witness.redis_forgot
