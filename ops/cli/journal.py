"""The command `penstock verify-journal`: exit code 0 when every chain holds, 1 when a row was tampered with."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli.audit import LIMIT_MAX
from ops.cli.payments import optional_payment
from ops.cli.stack import DataDirOption

if TYPE_CHECKING:
    from ops.audit.anchor import Anchor, Draft
    from ops.audit.verification import Verification

_CANNOT_TELL = 2
_UNSEEN = (
    "Rows cut from the end of a journal whose receipt was set back too, and payments removed whole: an anchor does.",
    "A journal written anew with PENSTOCK_FINGERPRINT_KEY: an anchor that was kept elsewhere does.",
    "What was done to rows younger than the anchor, where only an anchor would show it.",
    "Evidence written otherwise that means the same JSON.",
    "Receipts and operations beyond what a journal repeats of them: `penstock audit` compares those.",
)


def verify_journal(
    data_dir: DataDirOption = Path(".penstock"),
    payment: Annotated[
        str | None,
        typer.Option("--payment", metavar="ID", callback=optional_payment, help="Only this payment's journal."),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option("--anchor", metavar="FILE", help="Compare with the heads of an earlier --export, too."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write an anchor over all heads, when everything holds."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --export: replace a file that is there.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Findings listed.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Whether anybody edited, removed, added or moved a row of the journal; each such row is named.

    Each row carries a MAC over itself and the MAC before it, and the receipt knows the last. Reads
    PENSTOCK_DATABASE_URL and PENSTOCK_FINGERPRINT_KEY, or the local stack in --data-dir; changes nothing, and payments
    may go on.

    Once a day, export an anchor to where nobody who can write to the database can write, or keep just its digest there.
    Comparing with an old one shows what the chain alone cannot: what was rewritten with the key, or cut off cleanly.

    Exit code: 0 when all holds, 1 when a row does not, 2 when it cannot be told.

    Examples:

      penstock verify-journal --export /safe/2030-05-04.anchor

      penstock verify-journal --anchor /safe/2030-05-03.anchor

      penstock verify-journal --payment pay_6TCV5X3PXYHFPQV9E1GR7TMS51 --json
    """
    from engine.errors import Broken
    from ops.audit.anchor import Draft, read
    from ops.errors import or_exit

    if export is not None and payment is not None:
        raise typer.BadParameter("an anchor is over all payments: leave --payment out, or --export")
    if force and export is None:
        raise typer.BadParameter("--force is for --export: leave it out, or say what to export to")
    with or_exit(_CANNOT_TELL), ExitStack() as drafting:
        if export is not None and export.exists() and not force:
            raise Broken(f"{export} is there already: choose another name, or replace it with --force")
        known = None if anchor is None else read(anchor)
        draft = None if export is None else drafting.enter_context(Draft(export))
        seen = _verified(data_dir, payment, known, draft)
    exported = None if export is None or seen.wrong else read(export)
    if as_json:
        typer.echo(json.dumps(_document(seen, known, exported, limit)))
    else:
        _print(seen, known, exported, limit)
    raise typer.Exit(1 if seen.wrong else 0)


def _verified(data_dir: Path, payment: str | None, anchor: Anchor | None, draft: Draft | None) -> Verification:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from engine.domain.journal import Journal
    from ops.audit.verification import verify

    dsn, key = _where(data_dir)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rows", total=None)
        return verify(
            dsn,
            Journal(key),
            payment=payment,
            anchor=anchor,
            draft=draft,
            tell=lambda rows, of: bar.update(task, completed=rows, total=of),
        )


def _where(data_dir: Path) -> tuple[str, bytes]:
    """The ledger and the key of its journal. Raises Broken."""
    from engine.errors import Broken
    from ops.assembly.settings import decoded_key
    from ops.secret_file import variables
    from ops.stack.data_dir import DataDir
    from ops.store_url import given_url

    folder = DataDir(data_dir)
    ledger, key = given_url("PENSTOCK_DATABASE_URL"), variables().get("PENSTOCK_FINGERPRINT_KEY")
    if ledger and not key:
        raise Broken("set PENSTOCK_FINGERPRINT_KEY too: without the key of the installation, no row can be verified")
    dsn = ledger or str(folder.state()["database"])
    try:
        return dsn, decoded_key(key or folder.key("fingerprint"))
    except ValueError as error:
        raise Broken(f"PENSTOCK_FINGERPRINT_KEY {error}") from None


def _document(seen: Verification, known: Anchor | None, exported: Anchor | None, limit: int) -> dict[str, object]:
    return {
        "object": "journal_verification",
        "at": seen.at.isoformat(),
        "took_s": round(seen.took_s, 3),
        "holds": not seen.wrong,
        "payments": seen.payments,
        "rows": seen.rows,
        "verified": seen.verified,
        "found": seen.wrong,
        "findings": [
            {"payment": each.payment, "sequence": each.sequence, "fault": each.fault, "detail": each.detail}
            for each in seen.findings[:limit]
        ],
        "anchor": None if known is None else {**_about(known), "compared": seen.anchored},
        "exported": None if exported is None else _about(exported),
        "unseen": list(_UNSEEN),
    }


def _about(anchor: Anchor) -> dict[str, object]:
    return {
        "file": str(anchor.path),
        "taken_at": anchor.taken_at.isoformat(),
        "payments": anchor.payments,
        "digest": anchor.digest,
    }


def _print(seen: Verification, known: Anchor | None, exported: Anchor | None, limit: int) -> None:
    from ops.terminal import in_colour, print_table

    if seen.findings:
        print_table(
            ("payment", "row>", "fault", "what is wrong"),
            [
                (each.payment, str(each.sequence or "-"), in_colour(each.fault, "bad"), each.detail)
                for each in seen.findings[:limit]
            ],
        )
    if seen.wrong > limit:
        typer.echo(f"and {seen.wrong - limit:,} more: --limit shows them")
    typer.echo(
        f"{seen.verified:,} of {seen.rows:,} rows of {seen.payments:,} payments verify, in {seen.took_s:.1f} s: "
        + (f"{seen.wrong:,} found wrong" if seen.wrong else "each chain holds")
    )
    if known is not None:
        typer.echo(f"{seen.anchored:,} heads compared with the anchor of {known.taken_at.isoformat()}")
    if exported is not None:
        typer.echo(f"{exported.path}: {exported.payments:,} heads; keep its digest elsewhere: {exported.digest}")
    if seen.wrong:
        typer.echo(
            "What to do: keep this database as it is, find out who wrote to it, and compare the payments named here "
            "with a backup and with the bank's statement. No command of Penstock mends a journal."
        )
    typer.echo("\nWhat this cannot see:\n" + "\n".join(f"  * {each}" for each in _UNSEEN))
