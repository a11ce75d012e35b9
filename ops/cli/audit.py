"""The command `penstock audit`: one look at everything. Exit code 0 when each invariant holds, 1 when one does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ops.cli.stack import DataDirOption

GRACE_S_MAX = 31_536_000  # a year: what is later than that is late
LIMIT_MAX = 100_000
_CANNOT_TELL = 2


def audit(
    data_dir: DataDirOption = Path(".penstock"),
    bank_database: Annotated[
        str | None,
        typer.Option(
            "--bank-database",
            metavar="DSN",
            envvar="PENSTOCK_BANK_DATABASE_URL",
            help="The mock bank's database, to compare the ledger with. The local stack's is known.",
        ),
    ] = None,
    grace_s: Annotated[
        float, typer.Option("--grace-s", min=0, max=GRACE_S_MAX, help="How long what is due, or under way, may take.")
    ] = 60.0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Breaches listed per invariant.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Whether every promise that can be computed holds: in the ledger, in Redis and, where it is given, at the bank.

    Reads everything and changes nothing; may run while payments go on.
    Reads PENSTOCK_DATABASE_URL and PENSTOCK_REDIS_URL, or the stack that
    runs in --data-dir. `penstock auditor` does the same all the time, a
    part at a time.

    Exit code: 0 when each holds, 1 when one does not, 2 when it cannot be told.

    Examples:

      penstock audit

      penstock audit --json | jq '.invariants[] | select(.found > 0)'
    """
    from ops.audit.auditor import Auditor
    from ops.audit.report import document, print_report
    from ops.errors import or_exit
    from ops.stack.data_dir import DataDir
    from ops.stack.store_locations import places
    from ops.store_url import given_url

    with or_exit(_CANNOT_TELL):
        where = places(DataDir(data_dir))
        bank = bank_database or given_url("PENSTOCK_BANK_DATABASE_URL") or where.bank
        auditor = Auditor(replace(where, bank=bank), grace_s=grace_s, limit=limit)
        try:
            report = auditor.look_at_all()
        finally:
            auditor.close()
    if as_json:
        typer.echo(json.dumps(document(report)))
    else:
        print_report(report)
    raise typer.Exit(1 if report.breached else 0)
