"""The printer of docs/lifecycle.md: the transition table as a state diagram (Mermaid) and as a table of all its rows.

`python -m engine.domain.lifecycle_diagram > docs/lifecycle.md` writes it again; a test compares the two.
"""

from __future__ import annotations

from engine.domain.lifecycle import ASKED, TRANSITIONS
from engine.domain.payment import PaymentState

_HEAD = """# The lifecycle of a payment

Printed from the table in `engine/domain/lifecycle.py` by `python -m engine.domain.lifecycle_diagram`; do not edit.
What has no row is refused: a command by a stored 409, anything else as a bug. Whether something is under way at the
bank is the status of an operation and not a state of the payment: a payment in doubt keeps its state until the bank
has answered.
"""


def lifecycle_document() -> str:
    """The whole of docs/lifecycle.md."""
    commands = set(ASKED.values())
    moves = [f"    {was} --> {to}: {event}" for (was, event), (to, _) in TRANSITIONS.items() if to is not was]
    sources = {was for (was, _), (to, _) in TRANSITIONS.items() if to is not was}
    ends = [
        f"    {to} --> [*]" for to in PaymentState if to not in sources and to in {to for to, _ in TRANSITIONS.values()}
    ]
    rows = [
        f"| {was} | {event} | {'asked' if event in commands else 'happened'} | {to} | {', '.join(effects)} |"
        for (was, event), (to, effects) in TRANSITIONS.items()
    ]
    return "\n".join(
        [
            _HEAD,
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {PaymentState.PENDING}",
            *moves,
            *ends,
            "```",
            "",
            "| from | event | kind | to | effects, in order |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(lifecycle_document(), end="")
