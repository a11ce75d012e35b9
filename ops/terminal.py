"""Tables for people: as wide as the terminal, and never cut where a script or a log reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 200  # columns, where no terminal sets a width

_STYLES = {"good": "green", "waiting": "yellow", "bad": "bold red", "plain": ""}
# What a word is called in colour; what is not here is plain.
_MOODS = {
    **dict.fromkeys(("succeeded", "captured", "authorized", "refunded", "approved", "requeued", "done"), "good"),
    **dict.fromkeys(("accepted", "sent", "pending", "in_doubt", "none_yet", "nobody"), "waiting"),
    **dict.fromkeys(("review", "none", "unreadable", "exception", "breach", "unseen", "in doubt"), "bad"),
}


def in_colour(word: str, mood: str | None = None) -> Text:
    """A word in the colour of what it means, or of the given mood; plain where no terminal shows colours."""
    return Text(word, style=_STYLES[mood or _MOODS.get(word, "plain")])


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, footer: Sequence[str] | None = None
) -> None:
    """Columns whose name ends with ">" are aligned to the right; what does not fit is folded, never cut."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=footer is not None)
    for index, column in enumerate(columns):
        table.add_column(
            column.removesuffix(">"),
            footer=footer[index] if footer else "",
            justify="right" if column.endswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    console.print(table)
