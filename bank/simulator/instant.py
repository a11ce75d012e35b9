"""Instants: integer nanoseconds since the epoch, written the way the contract writes them.

A POST answers with the nanoseconds of the process clock, a GET with the microseconds that Postgres kept,
so the two texts differ. Both are RFC 3339 in UTC with the zeros at the end cut off, as Go prints them.
"""

from datetime import UTC, datetime

NS_PER_S = 1_000_000_000
NS_PER_HOUR = 3600 * NS_PER_S


def hours_ns(hours: int) -> int:
    """Hours as nanoseconds in a signed 64-bit integer, wrapped around on overflow as a Go duration is."""
    return (hours * NS_PER_HOUR + 2**63) % 2**64 - 2**63


def rfc3339(instant_ns: int) -> str:
    """As a POST answers it: `2026-01-02T03:04:05.123456789Z`."""
    seconds, fraction = divmod(instant_ns, NS_PER_S)
    return _joined(_seconds_text(seconds), f"{fraction:09d}")


def rfc3339_stored(stored: datetime | None) -> str:
    """As a GET answers it, from a TIMESTAMP without zone: `2026-01-02T03:04:05.123456Z`; a null is Go's zero time."""
    if stored is None:
        return "0001-01-01T00:00:00Z"
    return _joined(stored.isoformat(timespec="seconds"), f"{stored.microsecond:06d}")


def to_column(instant_ns: int) -> str:
    """As a TIMESTAMP parameter, with all its nanoseconds: Postgres rounds them to the microsecond."""
    seconds, fraction = divmod(instant_ns, NS_PER_S)
    return f"{_seconds_text(seconds)}.{fraction:09d}"


def _seconds_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _joined(seconds_text: str, fraction_text: str) -> str:
    fraction_text = fraction_text.rstrip("0")
    return f"{seconds_text}.{fraction_text}Z" if fraction_text else f"{seconds_text}Z"
