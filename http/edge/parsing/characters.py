"""Which characters texts may have: one pattern each, by which the edge refuses and the OpenAPI document describes.

The patterns mean the same in ECMA 262, Python, Java and Rust, so a client's check and ours agree. They do not depend
on a version of Unicode, as str.isprintable does.
"""

from __future__ import annotations

import re

# Controls, spaces that look like others, what has no width or turns the direction, private use, what is no character.
_UNSEEN = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff0-\ufffb\ufffe\uffff"
)
PRINTABLE = rf"^[^{_UNSEEN}]*$"
SAYING_SOMETHING = rf"^ *[^{_UNSEEN} ][^{_UNSEEN}]*$"  # printable, and not spaces alone
WITHOUT_NUL = r"^[^\u0000]*$"  # which Postgres cannot store; document.py refuses it wherever it stands
# A URL that may be called, as far as its form goes; whether its host may be is the deployment's to say (url_policy.py).
WEB_ADDRESS = r'^[Hh][Tt][Tt][Pp][Ss]?://[0-9A-Za-z._:\[\]-]+(?:[/?][!"$-~]*)?$'

_printable = re.compile(PRINTABLE)


def is_printable(text: str) -> bool:
    """Whether there are only characters that can be seen, and spaces, in this text."""
    return _printable.fullmatch(text) is not None
