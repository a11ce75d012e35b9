"""Tables for people: as wide as the terminal, and never cut where a script or a log reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_UNLIMITED = 200  # columns, where no terminal sets a width


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, footer: Sequence[str] | None = None) -> None:
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
