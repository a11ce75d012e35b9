"""Timestamps as clients write them: RFC 3339, section 5.6, in all its legal forms and in no other.

`t` and `z` may be small, a space may stand for `T`, fractions have any length, offsets any legal value (`-00:00` too),
and 23:59:60 UTC at the end of a month is a leap second. datetime.fromisoformat takes other forms (week dates, times
without seconds) and refuses some of these. JSON Schema calls the form `date-time`.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta, timezone

EXAMPLE = "2031-05-04T12:00:00Z"

_FORM = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_LEAP_SECOND = 60


def parse(text: object) -> datetime:
    """The moment in UTC, cut to microseconds; a leap second is the second after it, as in Unix time.

    Raises ValueError, whose words complete "must be ...", for everything else, and for moments outside years 1 to 9999.
    """
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise ValueError(f"a date and time with its offset (RFC 3339), as in {EXAMPLE}")
    year, month, day, hour, minute, second = map(int, form.groups()[:6])
    fraction, sign, *ahead = form.groups()[6:]
    leap = second == _LEAP_SECOND
    try:
        moment = datetime(
            *(year, month, day, hour, minute, 59 if leap else second, int((fraction or "")[:6].ljust(6, "0"))),
            tzinfo=_offset(sign, *ahead),
        ).astimezone(UTC)
        if not leap:
            return moment
        if not _ends_a_month(moment):
            raise ValueError("a leap second is at 23:59:60 UTC, on the last day of a month")
        return moment + timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise ValueError(f"a date and time that exists, in the years 1 to 9999, as in {EXAMPLE}") from None


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> timezone:
    if sign is None:
        return UTC
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if int(minutes or 0) > 59:
        raise ValueError("an offset has 59 minutes at most")
    return timezone(-ahead if sign == "-" else ahead)  # raises ValueError from 24 hours on


def _ends_a_month(moment: datetime) -> bool:
    last = calendar.monthrange(moment.year, moment.month)[1]
    return (moment.day, moment.hour, moment.minute) == (last, 23, 59)
