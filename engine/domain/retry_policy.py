"""When an unanswered attempt is made again: how soon, how often, and when it is too late (I7).

Full jitter (a uniform draw below an exponentially growing bound), so that a bank that comes back is not met by
everybody at once. A few tries in hand, then parked with a persisted time, then, when the bank may have forgotten the
key, review.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from engine.domain.changeset import RetryAt
from engine.domain.payment import Operation, Status, Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The engine's patience. Each value's unit is its type; reasons and extremes stand in ops/assembly/settings.py."""

    send_window: timedelta  # from the commit of an attempt to its last possible socket write
    attempt_timeout: timedelta  # above the bank's worst latency: attempts must never overlap there
    attempts_in_hand: int
    attempts_max: int
    retry_base: timedelta
    retry_cap: timedelta
    park_base: timedelta
    park_cap: timedelta
    bank_key_life: timedelta  # from the first send; below the bank's own 24 h
    expiry_notice: timedelta  # before an authorization's expires_at, its merchant is told; zero: never
    expiry_grace: timedelta  # from an authorization's expires_at until its hold is released

    @property
    def attempt(self) -> timedelta:
        """The longest an attempt may take, from the moment before its commit until it is over at the bank."""
        return self.send_window + self.attempt_timeout

    @property
    def farthest(self) -> timedelta:
        """No time that the engine schedules lies further ahead: one that does was written before a clock stepped."""
        return 2 * self.park_base + self.park_cap + self.attempt

    def left_of(self, operation: Operation) -> timedelta:
        """How long an attempt that somebody else committed may still be under way, whatever any clock says: its whole
        length from when it was seen in the ledger, by the terms of whoever made it or ours, the longer ones."""
        made = timedelta(0)
        if operation.send_by is not None and operation.deadline is not None:
            made = operation.deadline - operation.send_by
        return self.send_window + max(self.attempt_timeout, made)

    def backoff(self, attempts: int, draw: random.Random) -> timedelta:
        """How long to wait in hand after this many attempts."""
        return _jitter(self.retry_base, self.retry_cap, attempts - 1, draw)

    def parking(self, attempts: int, draw: random.Random) -> timedelta:
        """How long to park after this many attempts; at least the base, a parked row costs a sweep."""
        rounds = max(attempts // self.attempts_in_hand - 1, 0)
        return self.park_base + _jitter(self.park_base, self.park_cap, rounds, draw)

    def stays_in_hand(self, attempts: int) -> bool:
        return attempts % self.attempts_in_hand != 0

    def retries_exhausted(self, attempts: int, first_sent_at: datetime | None, now: datetime) -> bool:
        """Whether asking again with the same key is no longer safe, or no longer sensible."""
        return attempts >= self.attempts_max or (first_sent_at is not None and now - first_sent_at > self.bank_key_life)


class RetrySchedule:
    """The policy applied to an operation: its attempts and the times between them."""

    def __init__(self, policy: RetryPolicy, draw: random.Random) -> None:
        self._policy, self._draw = policy, draw

    def sent(self, operation: Operation, now: datetime, agreed: datetime | None = None) -> Operation:
        """With one more attempt, to be committed before it is sent (I1). Its stamps are of the time that is `agreed`,
        by which the bank's key ages."""
        at = agreed or now
        send_by = at + self._policy.send_window
        return replace(
            operation,
            # Once in doubt it stays so, and visibly, until it is answered.
            status=Status.IN_DOUBT if operation.status is Status.IN_DOUBT else Status.SENT,
            attempts=operation.attempts + 1,
            first_sent_at=operation.first_sent_at or at,
            send_by=send_by,
            deadline=send_by + self._policy.attempt_timeout,
            next_attempt_at=None,
        )

    def again(self, operation: Operation, now: datetime, *, over: bool, agreed: datetime | None = None) -> RetryAt:
        """In hand: soon. `over`: the attempt before has ended at the bank."""
        at = now + self._policy.backoff(operation.attempts, self._draw)
        return RetryAt(operation=operation, at=self._not_before(operation, at, now, over, agreed))

    def parked_until(
        self, operation: Operation, now: datetime, *, over: bool, agreed: datetime | None = None
    ) -> datetime:
        at = now + self._policy.parking(operation.attempts, self._draw)
        return self._not_before(operation, at, now, over, agreed)

    def returning(self, now: datetime, wait: timedelta | None) -> datetime:
        """When to come again to a bank that is left alone: not all at once."""
        wait = min(wait or self._policy.park_base, self._policy.park_cap)
        return now + wait + self._policy.park_base * self._draw.random()

    def is_due(self, operation: Operation, now: datetime) -> bool:
        """Whether its time has come. One too far ahead for any schedule was written before the clock stepped back."""
        at = operation.next_attempt_at
        return at is None or at <= now or at > now + self._policy.farthest

    def stays_in_hand(self, operation: Operation) -> bool:
        return self._policy.stays_in_hand(operation.attempts)

    def retries_exhausted(self, operation: Operation, now: datetime) -> bool:
        """Only what may have reached the bank can be asked too often or too late; the rest just waits."""
        return operation.doubted_at is not None and self._policy.retries_exhausted(
            operation.attempts, operation.first_sent_at, now
        )

    def was_forced(self, operation: Operation, before: int) -> bool:
        """Whether its latest attempt, after `before` others, began when it was spent: only a person has that done, and
        never for an authorization, of which the bank would place a second hold."""
        if operation.verb is Verb.AUTHORIZE or operation.send_by is None:
            return False
        return self._policy.retries_exhausted(
            before, operation.first_sent_at, operation.send_by - self._policy.send_window
        )

    def _not_before(
        self, operation: Operation, at: datetime, now: datetime, over: bool, agreed: datetime | None
    ) -> datetime:
        """Attempts never overlap at the bank: one that may still be at work there is waited for. It takes no longer
        than any attempt does, though the clock may have stepped back since its deadline was written."""
        if over or operation.deadline is None:
            return at
        return max(at, now + min(operation.deadline - (agreed or now), self._policy.attempt))


def _jitter(base: timedelta, cap: timedelta, doublings: int, draw: random.Random) -> timedelta:
    bound = min(base * (1 << min(doublings, 30)), cap)
    return bound * draw.random()
