"""A sale's child operations: the capture that follows its authorize, the void that follows a capture finally refused.

Each has its own bank key, derived from its parent's id, so a new owner lands on it again (I1).
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from engine.identity import operation_id
from engine.payment import Operation, Status, Verb

# Keys of the engine's own operations. A client's key is printable ASCII, so it can never collide with one.
_KEYS = {Verb.CAPTURE: "§sale:", Verb.VOID: "§release:"}


def child_of(parent: Operation, verb: Verb, now: datetime) -> Operation:
    """The sale's own capture or void, in the parent's place in the order of acceptance (I3)."""
    key = _KEYS[verb] + parent.id
    return replace(
        parent,
        id=operation_id(parent.payment, verb, key),
        verb=verb,
        key=key,
        parent=parent.id,
        sale=False,
        fingerprint={},
        status=Status.ACCEPTED,
        attempts=0,
        first_sent_at=None,
        next_attempt_at=None,
        doubted_at=None,
        sealed=None,
        failure=None,
        created_at=now,
        settled_at=None,
    )
