"""The dead letter queue: list, find, requeue and drop dead letters in the streams of all partitions.

Each change is one script on one partition. Whether a letter may be given back or dropped is operator_actions.py's to
decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.domain.command import Command
from engine.streams import keys
from engine.streams.dead_letter import Cause, DeadLetter, decode_letter, place_of
from engine.streams.scripts import Scripts

_EARLIEST, _LATEST = "-", "+"


class DeadLetterQueue:
    """All methods raise Unavailable when Redis is away."""

    def __init__(self, scripts: Scripts, partitions: int) -> None:
        self._scripts, self._partitions = scripts, partitions

    async def page(self, letters_max: int, before: str | None) -> list[DeadLetter]:
        """Letters without their entries, newest first, from the one called `before` on."""
        newest = [_LATEST] * self._partitions
        begin = None if before is None else place_of(before)
        if begin is not None:
            partition, place = begin
            # Of letters that died in the same instant the higher partition comes first.
            newest = [place if other < partition else f"({place}" for other in range(self._partitions)]
        replies = await self._scripts.call_many(
            [
                ("letters", (keys.dead(partition), limit, _EARLIEST, letters_max, ""))
                for partition, limit in enumerate(newest)
            ]
        )
        found: list[DeadLetter] = []
        for partition, reply in enumerate(replies):
            if isinstance(reply, Exception):
                raise reply
            found += [_letter(partition, row) for row in reply]
        found.sort(key=_age, reverse=True)
        return found[:letters_max]

    async def of_cause(self, cause: Cause, partitions: Sequence[int], letters_max: int) -> list[DeadLetter]:
        """Among the newest letters of these partitions those of one cause, without their entries, oldest first."""
        replies = await self._scripts.call_many(
            [("letters", (keys.dead(each), _LATEST, _EARLIEST, letters_max, "")) for each in partitions]
        )
        found: list[DeadLetter] = []
        for partition, reply in zip(partitions, replies, strict=True):
            if isinstance(reply, Exception):
                raise reply
            found += [_letter(partition, row) for row in reply]
        return sorted((letter for letter in found if letter.cause == cause), key=_age)

    async def find(self, letter: str) -> DeadLetter | None:
        """One letter with its entry; None when there is none of this id."""
        where = place_of(letter)
        if where is None or where[0] >= self._partitions:
            return None
        partition, place = where
        reply = await self._scripts.call("letters", keys.dead(partition), place, place, 1, "1")
        return _letter(partition, reply[0]) if reply else None

    async def requeue(self, letter: DeadLetter, command: Command) -> str:
        """Give its entry, this command, back to the commands: "requeued", "settled" (nothing done) or "gone"."""
        reply = await self._scripts.call(
            "requeue",
            keys.dead(letter.partition),
            keys.commands(letter.partition),
            keys.open_operations(letter.partition, command.payment),
            keys.record(letter.partition, command.operation),
            keys.merchants(letter.partition),
            letter.place,
            command.operation,
            command.merchant,
        )
        return str(reply[0].decode())

    async def drop(self, letter: DeadLetter, *, frees_key: bool) -> str:
        """Throw it away: "dropped" or "gone". `frees_key`: and with it what it alone kept open."""
        operation = letter.operation or ""
        reply = await self._scripts.call(
            "drop",
            keys.dead(letter.partition),
            keys.open_operations(letter.partition, letter.payment or ""),
            keys.record(letter.partition, operation),
            letter.place,
            operation if frees_key else "",
        )
        return str(reply[0].decode())


def _letter(partition: int, row: Any) -> DeadLetter:
    place, raw = row
    return decode_letter(partition, place.decode(), dict(zip(raw[::2], raw[1::2], strict=True)))


def _age(letter: DeadLetter) -> tuple[int, int, int]:
    milliseconds, _, sequence = letter.place.partition("-")
    return int(milliseconds), int(sequence), letter.partition
