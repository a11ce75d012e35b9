"""The witness: sees every script, commit and attempt of a history as it happens, and says what must never be.

It stands outside the engine, in the stores and at the bank's door, and believes only what it sees there. What can be
told only at the end is verdict's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.contracts.connector import BankRequest
from engine.streams.encoding import decode_record
from simulation.plan import Plan
from simulation.simulated_bank import Attempt
from simulation.simulated_commit import Batch, Row, Tables
from simulation.simulated_scripts import Argument

_BEGUN = frozenset({"sent", "in_doubt", "review", "succeeded", "declined", "rejected", "failed"})
_SLACK_S = 0.001
_UNSEEN = "which nobody has seen"


class Witness:
    """`complain` is called with everything that must not be. `tables` are the ledger's."""

    def __init__(self, plan: Plan, complain: Callable[[str], None]) -> None:
        self._plan, self._complain = plan, complain
        self.tables = Tables(partitions={})
        self.redis_forgot = False
        self.stream_damaged = False  # entries of what was accepted may be gone, their records are not
        self.entries: dict[tuple[str, str], str] = {}  # stream and entry to operation
        self.buried: dict[str, str] = {}  # operations that became dead letters, with their payments
        self._payments: dict[str, str] = {}
        self.begun: dict[str, list[str]] = {}  # of each payment, its operations in the order of their begin
        self._accepted: set[str] = set()  # since Redis last lost something
        self._asked: dict[str, tuple[object, ...]] = {}

    def forget_acceptance(self) -> None:
        """Redis has lost something: what it accepted may be accepted again."""
        self.redis_forgot = True
        self._accepted.clear()

    def script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument], reply: Any) -> None:
        if name == "accept" and reply[0] == b"accepted":
            self._on_accept(keys[2], str(arguments[0]), reply[1].decode(), keys[1].rpartition(":")[2])
        elif name == "revive" and reply[0] == b"revived":
            self._on_revive(keys[2], str(arguments[0]), reply[1].decode())
        elif name == "requeue" and reply[0] == b"requeued":
            self.entries[keys[1], reply[1].decode()] = str(arguments[1])
        elif name == "ack":
            for entry in arguments[2:]:
                self._on_ack(keys[0], str(entry))
        elif name == "settle":
            for entry in arguments[5:]:
                self._on_ack(keys[0], str(entry))
            self._on_record(str(arguments[1]), arguments[2])
        elif name == "bury" and reply:
            self._on_bury(keys[0], str(arguments[1]), arguments)

    def _on_accept(self, stream: str, operation: str, entry: str, payment: str) -> None:
        self.entries[stream, entry] = operation
        self._payments[operation] = payment
        row = self._operation(operation)
        if operation in self._accepted and (row is None or row["settled_at"] is None):
            self._complain(f"I6: {operation} was accepted twice, and Redis had lost nothing")
        self._accepted.add(operation)

    def _on_revive(self, stream: str, operation: str, entry: str) -> None:
        self.entries[stream, entry] = operation
        if operation not in self._accepted and not self.redis_forgot:
            self._complain(f"I6: {operation} was revived and never accepted")

    def _on_ack(self, stream: str, entry: str) -> None:
        operation = self.entries.get((stream, entry))
        if operation is not None and self._operation(operation) is None:
            self._complain(f"I4: the entry of {operation} was acknowledged before the ledger had it")

    def _on_bury(self, stream: str, entry: str, arguments: Sequence[Argument]) -> None:
        """A person must see to it. The one reason there may be: Redis lost the authorize of what it accepted later."""
        operation = self.entries[stream, entry]
        self.buried[operation] = self._payments[operation]
        if not (self.redis_forgot or self.stream_damaged) or not any(_UNSEEN in str(word) for word in arguments):
            self._complain(f"I10: {operation} became a dead letter: {arguments}")

    def _on_record(self, operation: str, value: Argument) -> None:
        row = self._operation(operation)
        record = decode_record(value if isinstance(value, bytes) else str(value).encode())
        if row is None or row["settled_at"] is None:
            self._complain(f"I4: {operation} was settled in Redis before the ledger had its answer")
        elif (row["response_status"], row["response_body"]) != (record.status, record.body):
            self._complain(f"I6: the record of {operation} is not what the ledger answered")

    def commit(self, client: str, batch: Batch, won: set[str], owners: Mapping[int, str]) -> None:
        tables = self.tables
        for row in (*batch.opened, *batch.changed):
            number = row["partition"]
            if row["id"] in won and (
                batch.fences[number] != tables.partitions[number].fence or owners[number] != client
            ):
                self._complain(f"I2: {client} wrote {row['id']} and was not the owner of its partition")
        for row in (*batch.operations, *batch.answered):
            if row["payment"] in won and row["status"] in _BEGUN:
                self._on_begin(tables.operations[row["id"]])

    def _on_begin(self, row: Row) -> None:
        begun = self.begun.setdefault(row["payment"], [])
        if row["id"] in begun:
            return
        begun.append(row["id"])
        for other in self.tables.operations.values():
            before = other["payment"] == row["payment"] and other["accept_order"] < row["accept_order"]
            if before and other["settled_at"] is None:
                self._complain(f"I3: {row['verb']} {row['id']} began before {other['verb']} {other['id']} had ended")

    def ask(self, ask: BankRequest, attempt: Attempt, now_s: float) -> None:
        """An attempt is about to be written."""
        row, key = self._operation(ask.bank_key), ask.bank_key
        if row is None or row["status"] not in ("sent", "in_doubt") or row["attempts"] < attempt.number:
            self._complain(f"I1: attempt {attempt.number} of {key} was sent and not committed")
        if now_s < attempt.over_at_s - _SLACK_S:
            self._complain(f"I7: attempt {attempt.number} of {key} overlaps with the one before")
        if row is not None and row["key"].startswith("§expire:"):
            self._complain(f"I7: the hold of {row['payment']} was released as expired, which no hold is in a history")
        life_s = self._plan.policy.bank_key_life.total_seconds() + self._plan.policy.send_window.total_seconds()
        if now_s - attempt.first_at_s > life_s + _SLACK_S:
            self._complain(f"I7: {key} was asked when the bank may have forgotten it")
        body = (ask.verb, ask.money, ask.reference, ask.card)
        if self._asked.setdefault(key, body) != body:
            self._complain(f"I1: {key} was asked for two different things")

    def _operation(self, operation: str) -> Row | None:
        return self.tables.operations.get(operation)
