"""Identifiers of the bank: a prefix and a UUID, written one way and read in many."""

import re
import uuid

HEX_GROUPS = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
HEX_ONLY = re.compile(r"[0-9a-fA-F]{32}")
URN = "urn:uuid:"


def read_identifier(prefix: str, text: str) -> str | None:
    """The UUID behind the prefix in its canonical form, or None.

    It accepts what Go's uuid.Parse accepts: upper case, `urn:uuid:`, no dashes, and any two characters around it,
    which are meant to be braces and never looked at.
    """
    if not text.startswith(prefix):
        return None
    rest = text[len(prefix) :]
    size = len(rest.encode("utf-8", "replace"))
    if size == 36 + len(URN) and rest[: len(URN)].lower() == URN:
        rest = rest[len(URN) :]
    elif size == 38 and len(rest) == 38:
        rest = rest[1:-1]
    elif size == 32:
        return str(uuid.UUID(rest)) if HEX_ONLY.fullmatch(rest) else None
    return rest.lower() if HEX_GROUPS.fullmatch(rest) else None
