"""The command `penstock partitions`: who owns what, and what waits there, out of Redis and Postgres together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ops.audit.backlog import PartitionBacklog

_COLUMNS = ("partition>", "owner~", "epoch>", "lease ms>", "backlog>", "pending>", "lag>", "dead letters>")


def partitions(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="The local stack's folder; PENSTOCK_ variables win.")] = (
        Path(".penstock")
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Every partition: its owner, epoch and lease, and its backlog (XLEN), pending, lag and dead letters.

    The owner is the worker that holds the lease. A partition without an
    owner rests: work in it waits. Reads PENSTOCK_REDIS_URL and
    PENSTOCK_DATABASE_URL, or the stack that runs in --data-dir.

    Example: penstock partitions --json | jq 'map(select(.owner == null))'
    """
    from ops.audit.backlog import read_backlog
    from ops.audit.ledger_view import read_epochs
    from ops.cli.operator_assembly import addresses

    database, redis = addresses(data_dir)
    epochs = read_epochs(database)
    rows = read_backlog(redis, len(epochs))
    if as_json:
        typer.echo(json.dumps([_document(row, epochs) for row in rows]))
        return
    print_partitions(rows, epochs)


def print_partitions(rows: Sequence[PartitionBacklog], epochs: Mapping[int, int]) -> None:
    """As a table, with a line of totals."""
    from ops.terminal import in_colour, print_table

    totals = [str(sum(getattr(row, name) for row in rows)) for name in ("backlog", "pending", "lag", "dead_letters")]
    lines = [
        (
            str(row.partition),
            row.owner or in_colour("nobody"),
            str(epochs.get(row.partition, "none")),
            "" if row.lease_ms is None else str(row.lease_ms),
            *(str(number) for number in (row.backlog, row.pending, row.lag)),
            in_colour(str(row.dead_letters), "bad" if row.dead_letters else "plain"),
        )
        for row in rows
    ]
    print_table(_COLUMNS, lines, footer=("all", "", "", "", *totals))


def _document(row: PartitionBacklog, epochs: dict[int, int]) -> dict[str, Any]:
    return {**asdict(row), "epoch": epochs.get(row.partition)}
