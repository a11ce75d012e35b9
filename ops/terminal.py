"""Tables for people: no line is wider than the terminal, and no word is cut that fits in one, so ids can be copied.

A table that is too wide even with its text wrapped is shown row by row, a line for each value. Where there is no
terminal, lines have 80 columns, or as many as COLUMNS says; scripts read --json.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | Text

_UNKNOWN = 80  # columns, where no terminal sets a width
_SPACE = 2  # columns between two values, and together before the first and behind the last
_FOLDED = 14  # columns that a name has at least, when it is folded
_STYLES = {"good": "green", "waiting": "yellow", "bad": "bold red", "plain": ""}
# What a word is called in colour; what is not here is plain.
_MOODS = {
    **dict.fromkeys(("succeeded", "captured", "authorized", "refunded", "approved", "requeued", "done"), "good"),
    **dict.fromkeys(("accepted", "sent", "pending", "in_doubt", "none_yet", "nobody"), "waiting"),
    **dict.fromkeys(("review", "none", "unreadable", "exception", "breach", "unseen", "in doubt", "disabled"), "bad"),
}


def in_colour(word: str, mood: str | None = None) -> Text:
    """A word in the colour of what it means, or of the given mood; plain where no terminal shows colours."""
    return Text(word, style=_STYLES[mood or _MOODS.get(word, "plain")])


def stacked(*lines: Cell | None) -> Text:
    """A value of several lines; those without anything are left out."""
    return Text("\n").join(line if isinstance(line, Text) else Text(line) for line in lines if line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, footer: Sequence[str] | None = None) -> None:
    """Columns whose name ends with ">" are aligned to the right; those that end with "~" hold names that may be folded
    where there is no room for them. A value may have several lines."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = _UNKNOWN
    names = [column.rstrip(">~") for column in columns]
    lines = [[_shown(value) for value in row] for row in rows]
    last = [[Text(value) for value in footer]] if footer else []
    folded = {index for index, column in enumerate(columns) if column.endswith("~")}
    widths = _widths([[Text(name) for name in names], *lines, *last], console.width, folded)
    if widths is None:
        for line in lines + last:
            console.print(_one_by_one(names, line), "")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=footer is not None)
    for index, column in enumerate(columns):
        table.add_column(
            names[index],
            footer=footer[index] if footer else "",
            justify="right" if column.endswith(">") else "left",
            width=widths[index],
            overflow="fold",
        )
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _widths(rows: Sequence[Sequence[Text]], width: int, folded: set[int]) -> list[int] | None:
    """The width of each column, so that all of them fit and each word is whole, but for those in `folded` columns; None
    where that cannot be."""
    columns = list(zip(*rows, strict=True))
    least = [max(map(_longest_word, column)) for column in columns]
    least = [min(word, _FOLDED) if index in folded else word for index, word in enumerate(least)]
    wanted = [max(map(_longest_line, column)) for column in columns]
    spare = width - _SPACE * len(columns) - sum(least)
    if spare < 0:
        return None
    widths = list(least)
    narrowest_first = sorted(range(len(columns)), key=lambda index: wanted[index] - least[index])
    for left, index in zip(range(len(columns), 0, -1), narrowest_first, strict=True):
        more = min(wanted[index] - least[index], spare // left)
        widths[index] += more
        spare -= more
    return widths


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=0)


def _longest_line(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.splitlines()), default=0)


def _one_by_one(names: Sequence[str], row: Sequence[Text]) -> Table:
    """A row as a list of its values; a value that is longer than a line is folded."""
    grid = Table(box=None, show_header=False, padding=(0, 1, 0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        if value.plain:
            grid.add_row(name, value)
    return grid


def _shown(value: Cell) -> Text:
    """What is printed of a value: control characters, which could move the cursor or the window's title, are not."""
    text = value.copy() if isinstance(value, Text) else Text(value)
    text.plain = "".join(_printable(text.plain))
    return text


def _printable(text: str) -> Iterator[str]:
    return (each if each == "\n" or (each >= " " and not "\x7f" <= each <= "\x9f") else "�" for each in text)
