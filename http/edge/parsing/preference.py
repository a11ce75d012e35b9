"""The Prefer header (RFC 7240): how many seconds the client is ready to wait, for an outcome or for events.

Only `wait` is known; other preferences and malformed ones are ignored, as the RFC wants it. Who waits gives back its
place among the calls under way (admission.py).
"""

from __future__ import annotations

import re

from edge.server.request import Request

WAIT_S_MAX = 30  # longer than any load balancer's patience would only lose the answer
VALUE_BYTES_MAX = 256  # no honest list of preferences is longer, and matching one must stay cheap

_WAIT_ALONE = re.compile(rb"wait=([0-9]{1,9})\Z")
# One preference: a token, perhaps a value, perhaps parameters. Quoted strings may hold commas, so no plain split.
_WORD = rb'(?:[!#$%&\'*+.^_`|~0-9A-Za-z-]+|"(?:[^"\\]|\\.)*")'
_ASSIGNED = _WORD + rb"(?:[ \t]*=[ \t]*" + _WORD + rb"?)?"
_PREFERENCE = re.compile(
    rb"[ \t,]*(" + _WORD + rb")(?:[ \t]*=[ \t]*(" + _WORD + rb")?)?"
    rb"(?:[ \t]*;[ \t]*(?:" + _ASSIGNED + rb")?)*[ \t]*(?:,|\Z)"
)


def granted_s(call: Request) -> int:
    """Seconds that this call may wait, among those who wait from now on; 0 where they are too many already."""
    asked_s = wait_s(call.headers.get(b"prefer"))
    return asked_s if asked_s and (call.place is None or call.place.wait()) else 0


def wait_s(value: bytes | None) -> int:
    """Seconds to wait, 0 to 30; 0 when nothing (sound) was asked."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        return 0
    alone = _WAIT_ALONE.match(value)
    return min(int(alone[1]), WAIT_S_MAX) if alone else _first_wait(value)


def _first_wait(value: bytes) -> int:
    """The first `wait` in a list of preferences counts (RFC 7240, section 2)."""
    at = 0
    while preference := _PREFERENCE.match(value, at):
        name, word = preference[1].lower(), (preference[2] or b"").strip(b'"')
        if name == b"wait":
            return min(int(word), WAIT_S_MAX) if word.isdigit() and len(word) < 10 else 0
        at = preference.end()
    return 0
