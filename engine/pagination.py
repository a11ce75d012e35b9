"""Cursors of lists: where a page ended, opaque to whoever carries it to the next one."""

from __future__ import annotations

import base64
import binascii

from engine.errors import Rejected


def cursor(*parts: object) -> str:
    """A cursor out of parts, none of which has a "|" in it."""
    return base64.urlsafe_b64encode("|".join(map(str, parts)).encode()).decode().rstrip("=")


def parts(text: str, count: int) -> list[str]:
    """The parts of a cursor. Raises Rejected(malformed_request) for what is none of ours."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode().split("|")
    except (ValueError, binascii.Error):
        found = []
    if len(found) != count:
        raise strange()
    return found


def strange() -> Rejected:
    """What to say to a cursor that cannot be ours."""
    return Rejected(
        "malformed_request", "The cursor is not one that this gateway gave out; leave it out to begin anew."
    )
