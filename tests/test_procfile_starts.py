"""The Procfile and .env.example start as they are: every line, by a shell, with the variables of the file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ops.assembly.settings import EXAMPLE_KEYS, SettingsError, load_settings
from ops.stack.address import any_free_port
from ops.stack.embedded import EmbeddedPostgres
from support.gateway import a_payment, eventually

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / ".env.example"
LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(.+)$")  # as honcho and foreman read it
COMMANDS = {found[1]: found[2] for line in (ROOT / "Procfile").read_text().splitlines() if (found := LINE.match(line))}


def variables() -> dict[str, str]:
    """As a shell reads them: `set -a; . ./.env.example`."""
    sourced = subprocess.run(
        ["/bin/sh", "-c", f"set -a; . {EXAMPLE}; env"], env={}, check=True, capture_output=True, text=True
    ).stdout
    return {
        name: value for name, _, value in (line.partition("=") for line in sourced.splitlines()) if "PENSTOCK" in name
    }


def test_the_example_is_read_alike_by_a_shell_and_by_docker() -> None:
    plain = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]

    assert dict(line.split("=", 1) for line in plain) == variables()


def test_the_example_is_whole_for_this_machine_and_refused_in_production() -> None:
    given = variables()

    assert load_settings(given).env == "local"
    assert {given["PENSTOCK_MASTER_KEY"], given["PENSTOCK_FINGERPRINT_KEY"]} == EXAMPLE_KEYS
    with pytest.raises(SettingsError, match=r"\.env\.example, which everybody knows"):
        load_settings({**given, "PENSTOCK_ENV": "production", "PENSTOCK_BANK_URL": "https://bank.internal"})


@contextmanager
def started(environ: dict[str, str], folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """All lines at once, as a runner starts them. The bank's port in the Procfile is fixed: ours is free."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    running = {}
    try:
        for name, command in COMMANDS.items():
            words = command.replace("PORT=8787", f"PORT={environ['PENSTOCK_BANK_URL'].rpartition(':')[2]}")
            with (folder / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    words,
                    shell=True,
                    cwd=ROOT,
                    env={"PATH": path, "HOME": str(folder), **environ},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        yield running
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.mark.slow
def test_all_of_the_procfile_starts_takes_a_payment_and_ends(
    postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    # Only where the stores are, and ports that others may have, differ from the file.
    bank, edge = any_free_port(), any_free_port()
    environ = {
        **variables(),
        "PENSTOCK_REDIS_URL": redis_url,
        "PENSTOCK_DATABASE_URL": postgres.dsn("procfile"),
        "PENSTOCK_BANK_DATABASE_URL": postgres.dsn("procfile_bank"),
        "PENSTOCK_BANK_URL": f"http://127.0.0.1:{bank}",
        "PENSTOCK_EDGE_PORT": str(edge),
        "PENSTOCK_EDGE_LINGER_S": "0",
        "FAILURE_RATE": "0",
        "MAX_LATENCY_MS": "100",
    }
    url = f"http://127.0.0.1:{edge}"
    with started(environ, tmp_path) as running:

        def ready() -> bool:
            for name, process in running.items():
                assert process.poll() is None, f"{name}: {(tmp_path / f'{name}.log').read_text()[-2000:]}"
            try:
                return bool(httpx.get(f"{url}/readyz", timeout=5).json()["status"] == "ready")
            except httpx.HTTPError:
                return False

        eventually(ready, "the edge is ready and somebody takes work", 90)
        headers = {"X-API-Key": "sk_local_merchant", "Idempotency-Key": "first", "Prefer": "wait=20"}
        paid = httpx.post(f"{url}/v1/payments", json=a_payment("4111111111111111"), headers=headers, timeout=40)
        for name in ("edge", "worker", "dispatcher", "auditor", "bank"):
            os.kill(running[name].pid, signal.SIGTERM)
        codes = {name: process.wait(60) for name, process in running.items()}

    assert (paid.status_code, paid.json()["status"]) == (201, "authorized")
    assert codes == dict.fromkeys(COMMANDS, 0)
