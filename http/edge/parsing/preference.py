"""The Prefer header (RFC 7240): how many seconds the client is ready to wait, for an outcome or for events.

Only `wait` is known; other preferences and malformed ones are ignored, as the RFC wants it. Who waits gives back its
place among the calls under way (admission.py).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator

from edge.server.request import Request, Result

WAIT_S_MAX = 30  # longer than any load balancer's patience would only lose the answer
VALUE_BYTES_MAX = 256  # no honest list of preferences is longer

_WAIT_ALONE = re.compile(rb"wait=([0-9]{1,9})\Z")
# A piece of the header: a word, or what stands between words. Each is read once, so that no header takes longer than
# its length.
_PIECE = re.compile(rb"""[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[^"\\]|\\.)*")|([,;=]|\Z))""", re.DOTALL)


def granted_s(call: Request) -> int:
    """Seconds that this call may wait, among those who wait from now on; 0 where they are too many already."""
    asked_s = wait_s(call.headers.get(b"prefer"))
    return asked_s if asked_s and (call.place is None or call.place.wait()) else 0


async def waited(call: Request, wait_s: int, work: Awaitable[Result]) -> Result:
    """The result of `work`, which waits up to so many seconds. Raises Disconnected as soon as the client hangs up."""
    return await (call.while_connected(work) if wait_s else work)


def wait_s(value: bytes | None) -> int:
    """Seconds to wait, 0 to 30; 0 when nothing (sound) was asked."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        return 0
    alone = _WAIT_ALONE.match(value)
    if alone:
        return min(int(alone[1]), WAIT_S_MAX)
    for name, word in _preferences(value):
        if name.lower() == b"wait":  # the first one counts (RFC 7240, section 2)
            return min(int(word), WAIT_S_MAX) if word.isdigit() and len(word) < 10 else 0
    return 0


def _preferences(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values, without their parameters, up to where the list is malformed."""
    at = 0
    parts: list[list[bytes]] = [[]]  # of one preference: itself and its parameters, each as its pieces
    while piece := _PIECE.match(value, at):
        at, mark = piece.end(), piece[2]
        if mark is None or mark == b"=":
            parts[-1].append(piece[1] or b"=")
        elif mark == b";":
            parts.append([])
        elif not all(map(_sound, parts)) or (len(parts) > 1 and not parts[0]):
            return
        else:
            if parts[0]:
                yield parts[0][0], b"".join(parts[0][2:]).strip(b'"')
            if not mark:
                return
            parts = [[]]


def _sound(part: list[bytes]) -> bool:
    """Nothing, `word`, `word=` or `word=word`."""
    return len(part) <= 3 and [piece == b"=" for piece in part] == [False, True, False][: len(part)]
