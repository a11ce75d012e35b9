"""Hang-ups: the client ends its connection while its request is under way.

The contract's bank runs a request in the request's own context, and a hang-up cancels that. So it costs the effect
until the commit (`cancel`), and between the commit and the store it costs the key (`lose_key`): then the effect stands
and a retry under the same key has it a second time. Without `cancel` an abandoned request is executed to its end, which
is harder for a client that retries too early.

One statement here serves many clients and cannot stop for one of them. An effect that a hang-up came too late to stop
keeps its key, so that its client finds what it would have found at the contract's bank: a retry has one effect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

CLIENT = "penstock.client"
_EXECUTED_ANYWAY = "penstock.executed_anyway"


@dataclass(slots=True, kw_only=True)
class HangUps:
    """What a hang-up costs. The control API may change it while the bank runs."""

    cancel: bool
    lose_key: bool


class Client:
    """The far end of one connection, which has one request under way at a time."""

    __slots__ = ("gone", "on_gone")

    def __init__(self) -> None:
        self.gone = False
        self.on_gone: Callable[[], None] | None = None  # Called once, when it hangs up; set by whoever works for it.

    def leave(self) -> None:
        """It has hung up."""
        if not self.gone:
            self.gone = True
            if self.on_gone is not None:
                self.on_gone()


def client_of(scope: Scope) -> Client:
    """The client that waits for the answer to this request."""
    return cast(Client, scope["extensions"][CLIENT])


def mark_executed_anyway(scope: Scope) -> None:
    """The hang-up came too late to stop the effect."""
    scope[_EXECUTED_ANYWAY] = True


def was_executed_anyway(scope: Scope) -> bool:
    """Whether the effect is one that a hang-up came too late to stop."""
    return _EXECUTED_ANYWAY in scope
