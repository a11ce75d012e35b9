"""What an audit found, for people and for scripts. Every breach comes with its ids and with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from ops.audit.breach import Breach, InvariantResult, Report
from ops.audit.invariant import Weight
from ops.terminal import print_table


def print_report(report: Report) -> None:
    """A line for each invariant, then what stands against them, then the verdict."""
    print_table(("", "invariant", "found>"), [_row(found) for found in report.found])
    for found in report.found:
        if found.breaches:
            typer.echo("\n".join(_told(found)))
    typer.echo(report.unsettled.in_words())
    broken = len(report.breached)
    typer.echo(
        f"{len(report.found)} invariants in {report.took_s:.1f} s: "
        + ("each holds" if not broken else f"{broken} do not hold" if broken > 1 else "one does not hold")
    )


def document(report: Report) -> dict[str, object]:
    """The same as JSON takes it."""
    return {
        "object": "audit",
        "at": report.at.isoformat(),
        "took_s": round(report.took_s, 3),
        "holds": not report.breached,
        "operations": report.unsettled.document(),
        "invariants": [
            {
                "number": found.invariant.number,
                "name": found.invariant.name,
                "weight": found.invariant.weight,
                "means": found.invariant.means,
                "remedy": found.invariant.remedy,
                "found": len(found.breaches),
                "more": found.more,
                "breaches": [_facts(each) for each in found.breaches],
            }
            for found in report.found
        ],
    }


def _row(found: InvariantResult) -> tuple[str, str, str]:
    number = f"{len(found.breaches)}{' or more' if found.more else ''}" if found.breaches else "-"
    apart = ", counted apart" if found.breaches and found.invariant.weight is Weight.APART else ""
    return found.invariant.number, found.invariant.name, number + apart


def _told(found: InvariantResult) -> Iterator[str]:
    invariant = found.invariant
    yield f"{invariant.number} {invariant.name}: {invariant.means}"
    for each in found.breaches:
        ids = " ".join(part for part in (each.payment, each.operation) if part is not None)
        yield f"  {ids}{': ' if ids else ''}{each.detail}"
    if found.more:
        yield "  and perhaps more: --limit shows them"
    yield f"  What to do: {invariant.remedy}\n"


def _facts(each: Breach) -> dict[str, object]:
    at = None if each.at is None else each.at.isoformat()
    return {"payment": each.payment, "operation": each.operation, "at": at, "detail": each.detail}
