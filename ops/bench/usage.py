"""What the processes of a stack cost: CPU seconds and memory per kind, each with its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from ops.stack.ephemeral_stack import Process

BANK_POSTGRES = "bank_postgres"
MIB = 1 << 20


def cpu_s(processes: Sequence[Process], bank_database: str) -> dict[str, float]:
    """CPU seconds used so far per kind. What Postgres spends for the bank's database is told apart by its name.

    Children that have ended count where their parent has reaped them.
    """
    spent: dict[str, float] = {}
    for process in processes:
        for member in _tree(process.pid):
            try:
                kind = _kind(member, process.role, bank_database)
                times = member.cpu_times()
            except psutil.Error:
                continue  # ended between the two looks
            spent[kind] = spent.get(kind, 0.0) + sum(times[:4])  # own user and system, those of reaped children
    return spent


def memory_mib(processes: Sequence[Process]) -> dict[str, float]:
    """Memory per kind. Pages shared between processes count once, where the system can tell (Linux)."""
    held: dict[str, float] = {}
    for process in processes:
        for member in _tree(process.pid):
            try:
                held[process.role] = held.get(process.role, 0.0) + _held(member) / MIB
            except psutil.Error:
                continue
    return {kind: round(mib, 1) for kind, mib in held.items()}


def per_thousand(before: Mapping[str, float], after: Mapping[str, float], payments: int) -> dict[str, float]:
    """CPU seconds per 1,000 payments per kind, between two looks."""
    if not payments:
        return {}
    return {kind: round((spent - before.get(kind, 0.0)) * 1000 / payments, 4) for kind, spent in after.items()}


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kind(member: psutil.Process, role: str, bank_database: str) -> str:
    """A Postgres backend shows whom it serves in its title: `postgres: user database ...`."""
    title = " ".join(member.cmdline()) if role == "postgres" else ""
    return BANK_POSTGRES if title.startswith("postgres: ") and bank_database in title.split() else role


def _held(member: psutil.Process) -> int:
    try:
        return int(member.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return int(member.memory_info().rss)
