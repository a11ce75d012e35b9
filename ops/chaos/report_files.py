"""The evidence of a breach: for each id that is named, its rows in the ledger and every line of every log about it."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from ops.chaos.check import Verdict
from ops.statement import statement

FILE = "evidence.txt"
BREACHES_MAX = 50
_ID = re.compile(r"(?:pay|op)_[0-9A-HJKMNP-TV-Z]{26}")


def write_evidence(ledger_dsn: str, folder: Path, verdict: Verdict) -> None:
    """Into the campaign's folder, beside the logs."""
    with (folder / FILE).open("w", encoding="utf-8") as file, psycopg.connect(ledger_dsn) as ledger:
        for breach in verdict.breaches[:BREACHES_MAX]:
            file.write(f"# {breach.promise}: {breach.evidence}\n")
            ids = sorted(set(_ID.findall(breach.evidence)))
            found = {"ids": ids}
            for row in ledger.execute(statement("campaign_evidence"), found).fetchall():
                ids += [row[1]] if row[1] not in ids else []
                file.write(f"  {row[0]}\n")
            for log in sorted(folder.glob("*.log")):
                for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                    if any(each in line for each in ids):
                        file.write(f"  {log.name}: {line}\n")
            file.write("\n")
