"""A dead letter: an entry that was given up, whole, with why, what had been tried, and when. Pure.

The buried entry's fields stand in it under `was.`, as they were, so that it can be given back. Its card is only sealed:
an entry that nobody could read is searched for card numbers before it is kept (I9), and one of an absurd size is cut.
What was changed like this cannot be given back, and the letter says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import orjson
from msgspec import Struct

from engine.domain.command import Command
from engine.domain.ids import is_id
from engine.errors import Broken
from engine.streams.encoding import ENTRY_BYTES_MAX, ENTRY_FIELDS_MAX, decode_command

_PREFIX = b"was."
_KEPT_FIELDS = 16  # of an absurd entry: enough to see where it came from
_KEPT_BYTES = 1024  # of each of its names and values
_REASON_CHARACTERS = 300
_HISTORY_MAX = 10
_ID = re.compile(r"dl_(0|[1-9][0-9]{0,3})-((?:0|[1-9][0-9]{0,19})-(?:0|[1-9][0-9]{0,19}))\Z")
_DIGITS = re.compile(rb"(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")
_REMOVED = b"[card number removed]"
_SEALED = re.compile(rb'("sealed"\s*:\s*)"[^"]*"')
_SHOWN_BYTES = 16 * 1024  # of one value; whoever needs more has redis-cli


class Cause(StrEnum):
    UNREADABLE = "unreadable"  # no command of ours, or not of this partition
    EXCEPTION = "exception"  # its actor failed at it again and again
    BREACH = "breach"  # what the ledger holds of its payment cannot be
    UNSEEN = "unseen"  # nobody has seen its payment: comes back by itself when that is there (orphans.py)


class FailedTry(Struct, frozen=True, kw_only=True):
    """One try that failed."""

    at: datetime
    error: str


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter as it is read. What cannot be told is None: the entry was not ours, or the letter was edited."""

    partition: int
    place: str  # its id in the dead-letter stream
    cause: str
    reason: str
    died_at: datetime
    entry: str | None  # the id that the entry had among the commands
    payment: str | None
    operation: str | None
    history: tuple[FailedTry, ...]
    cut: str | None  # what is missing of the entry, and why
    fields: Mapping[bytes, bytes]  # the entry's own; empty in a list

    @property
    def id(self) -> str:
        return f"dl_{self.partition}-{self.place}"

    def command(self) -> Command:
        """The command in it. Raises Broken with the reason why there is none that could be given back."""
        if self.cut is not None:
            raise Broken(f"the letter no longer holds the whole entry ({self.cut})")
        if not self.fields:
            raise Broken("the letter holds no entry")
        return decode_command(self.fields)

    def shown(self) -> dict[str, str]:
        """The entry's fields, fit to be shown: no sealed card, nothing that may be a card number, nothing endless."""
        return {
            name.decode(errors="backslashreplace"): _shown(value).decode(errors="backslashreplace")
            for name, value in self.fields.items()
        }


def place_of(letter: str) -> tuple[int, str] | None:
    """Partition and place in its stream, out of a letter's id; None when it is no such id."""
    found = _ID.match(letter)
    numbers = [] if found is None else [int(number) for number in found[2].split("-")]
    if found is None or not any(numbers) or max(numbers) >= 1 << 64:
        return None
    return int(found[1]), found[2]


def letter_fields(
    cause: Cause,
    reason: str,
    entry: str,
    payment: str | None,
    operation: str | None,
    at: datetime,
    history: Sequence[FailedTry] = (),
) -> tuple[bytes | str, ...]:
    """Names and values of a new letter, without those of its entry."""
    tried = [{"at": failure.at, "error": failure.error} for failure in history[-_HISTORY_MAX:]]
    return (
        *("cause", cause.value, "reason", masked(reason.encode())[:_REASON_CHARACTERS], "at", at.isoformat()),
        *("entry", entry, "payment", payment or "", "operation", operation or ""),
        *("history", masked(orjson.dumps(tried))),
    )


def kept_of(entry: Mapping[bytes, bytes]) -> tuple[bytes | str, ...] | None:
    """What may be kept of an entry that nobody could read, and what is missing of it; None: all of it."""
    size = sum(map(len, entry)) + sum(map(len, entry.values()))
    missing: list[str] = []
    pairs = list(entry.items())
    if size > ENTRY_BYTES_MAX or len(pairs) > ENTRY_FIELDS_MAX:
        missing.append(f"it had {size} bytes in {len(pairs)} fields")
        pairs = [(name[:_KEPT_BYTES], value[:_KEPT_BYTES]) for name, value in pairs[:_KEPT_FIELDS]]
    clean = [(masked(name), masked(value)) for name, value in pairs]
    if clean != pairs:
        missing.append("it held a card number in clear")
    if not missing:
        return None
    kept: list[bytes | str] = ["cut", "; ".join(missing)]
    for name, value in clean:
        kept += (_PREFIX + name, value)
    return tuple(kept)


def letter_document(letter: DeadLetter) -> dict[str, object]:
    """A dead letter as operators read it, without its entry."""
    return {
        "object": "dead_letter",
        "id": letter.id,
        "partition": letter.partition,
        "cause": letter.cause,
        "reason": letter.reason,
        "died_at": letter.died_at,
        "entry_id": letter.entry,
        "payment_id": letter.payment,
        "operation_id": letter.operation,
        "cut": letter.cut,
        "history": [{"at": failure.at, "error": failure.error} for failure in letter.history],
    }


def decode_letter(partition: int, place: str, raw: Mapping[bytes, bytes]) -> DeadLetter:
    """Whatever stands in the dead-letter stream, also what somebody put there by hand."""
    told = {name.decode(): value.decode(errors="replace") for name, value in raw.items() if name in _TOLD}
    payment, operation = told.get("payment", ""), told.get("operation", "")
    return DeadLetter(
        partition=partition,
        place=place,
        cause=told.get("cause", "unknown"),
        reason=told.get("reason", "the letter does not say why"),
        died_at=_moment(told.get("at", "")) or datetime.fromtimestamp(_seconds(place), UTC),
        entry=told.get("entry"),
        payment=payment if is_id(payment, "pay") else None,
        operation=operation if is_id(operation, "op") else None,
        history=_history(told.get("history", "[]")),
        cut=told.get("cut"),
        fields={name[len(_PREFIX) :]: value for name, value in raw.items() if name.startswith(_PREFIX)},
    )


def masked(data: bytes) -> bytes:
    """Without anything that may be a card number: 13 to 19 digits with a right check digit."""
    return _DIGITS.sub(lambda found: _REMOVED if _passes_luhn(found[0]) else found[0], data)


_TOLD = frozenset({b"cause", b"reason", b"at", b"entry", b"payment", b"operation", b"history", b"cut"})


def _shown(value: bytes) -> bytes:
    text = masked(_SEALED.sub(rb'\1"[sealed card]"', value))
    return (
        text
        if len(text) <= _SHOWN_BYTES
        else text[:_SHOWN_BYTES] + b" [and %d bytes more]" % (len(text) - _SHOWN_BYTES)
    )


def _passes_luhn(text: bytes) -> bool:
    digits = [digit - 48 for digit in reversed(text) if 48 <= digit <= 57]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _seconds(place: str) -> float:
    """An id's time; an id that no clock gave has none."""
    milliseconds = int(place.partition("-")[0])
    return milliseconds / 1000 if milliseconds < 253_402_300_800_000 else 0.0


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _history(text: str) -> tuple[FailedTry, ...]:
    try:
        rows = orjson.loads(text)
        return tuple(FailedTry(at=datetime.fromisoformat(row["at"]), error=str(row["error"])) for row in rows)
    except (ValueError, TypeError, KeyError):
        return ()
