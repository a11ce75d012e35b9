"""System operations: the engine's own, each with a bank key that every owner of the partition computes alike (I1).

The capture of a sale, and the holds that nobody will capture: of a sale whose capture was refused, of an authorization
that is too old by our clock, of one that is too old by the bank's. TAKEN asks the bank nothing: it records the capture
of a hold that somebody else made, as a person found it there.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec.structs import replace

from engine.domain.ids import operation_id
from engine.domain.payment import Operation, Status, Verb


class SystemOperation(StrEnum):
    """The prefixes of their keys. A client's key is printable ASCII, so it can never collide with one."""

    SALE_CAPTURE = "§sale:"
    SALE_RELEASE = "§release:"
    EXPIRE = "§expire:"  # its success is what makes the payment expired
    RELEASE = "§lapsed:"  # the bank's word has made it expired before
    TAKEN = "§taken:"  # begun and ended in one step, with the bank's id of the capture


HOLDS = frozenset({SystemOperation.SALE_RELEASE, SystemOperation.EXPIRE, SystemOperation.RELEASE})
_OF_SALES = frozenset({SystemOperation.SALE_CAPTURE, SystemOperation.SALE_RELEASE})
_CAPTURES = frozenset({SystemOperation.SALE_CAPTURE, SystemOperation.TAKEN})


def system_operation_of(operation: Operation) -> SystemOperation | None:
    """Which system operation it is; None for what a client asked for."""
    if not operation.key.startswith("§"):
        return None
    return next(
        (system_operation for system_operation in SystemOperation if operation.key.startswith(system_operation)), None
    )


def new_system_operation(system_operation: SystemOperation, behind: Operation, now: datetime) -> Operation:
    """The system operation that follows `behind` in the order of acceptance (I3); a sale's follows its authorize."""
    of_sale = system_operation in _OF_SALES
    verb = Verb.CAPTURE if system_operation in _CAPTURES else Verb.VOID
    key = system_operation + (behind.id if of_sale else behind.payment)
    return replace(
        behind,
        id=operation_id(behind.payment, verb, key),
        verb=verb,
        key=key,
        parent=behind.id if of_sale else None,
        sale=False,
        fingerprint={},
        status=Status.ACCEPTED,
        attempts=0,
        first_sent_at=None,
        next_attempt_at=None,
        doubted_at=None,
        sealed=None,
        failure=None,
        response_status=None,
        response_body=None,
        created_at=now,
        settled_at=None,
    )
