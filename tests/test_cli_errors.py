"""The command line in trouble: a sentence on stderr, never a traceback; 2 for a wrong command, 1 for the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
# Nobody listens on port 1 of this machine.
NOWHERE = {"PENSTOCK_DATABASE_URL": "postgresql://127.0.0.1:1/penstock", "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0"}


def penstock(*arguments: str | Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "ops.cli.main", *arguments]
    return subprocess.run(command, env={**PLAIN, **environ}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("up", "--no-such-option"),
        ("up", "--workers", "0"),
        ("up", "--workers", "two"),
        ("up", "--edge-port", "65536"),
        ("up", "--bank-port", "-1"),
        ("up", "--partitions", "1025"),
        ("up", "--bank-failure-rate", "1.5"),
        ("up", "--bank-latency-ms", "5"),
        ("up", "--bank-latency-ms", "200-100"),
        ("up", "--bank-extra-cards", "-1"),
        ("up", "--appendfsync", "never"),
        ("up", "--connector", "stripe"),
        ("edge", "--port", "1"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_starts_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "stack"
    more = ("--data-dir", folder) if arguments[0] == "up" else ()

    told = penstock(*arguments, *more)

    assert told.returncode == 2
    assert told.stderr
    assert "Traceback" not in told.stderr
    assert not folder.exists()


def test_fresh_never_wipes_stores_that_run_elsewhere(tmp_path: Path) -> None:
    told = penstock("up", "--fresh", "--data-dir", tmp_path, **NOWHERE)

    assert told.returncode == 2
    assert "--fresh" in told.stderr


def test_fresh_never_wipes_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    told = penstock("up", "--fresh", "--data-dir", tmp_path)

    assert told.returncode == 1
    assert "will not wipe" in told.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        (("up",), {"PENSTOCK_LEASE_MS": "soon"}, "PENSTOCK_LEASE_MS"),
        (("up",), {"PENSTOCK_NOPE": "1"}, "PENSTOCK_NOPE"),
        (("up",), {"PENSTOCK_MASTER_KEY": "short"}, "PENSTOCK_MASTER_KEY"),
        (("up",), NOWHERE, "cannot be reached"),
        (("bank",), {"FAILURE_RATE": "7"}, "FAILURE_RATE"),
        (("migrate",), NOWHERE, "cannot be reached"),
        (("migrate",), {"PENSTOCK_PARTITIONS": "0"}, "PENSTOCK_PARTITIONS"),
        (("streams",), NOWHERE, "PENSTOCK_REDIS_URL"),
        (("merchant", "list"), NOWHERE, "cannot be reached"),
        (("streams",), {}, "penstock up"),
        (("status", "--json"), {}, "penstock up"),
    ],
)
def test_a_failure_is_told_in_words_with_exit_code_1(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], told: str
) -> None:
    local = () if arguments[0] in ("bank", "migrate") else ("--data-dir", tmp_path / "stack")
    ports = ("--edge-port", "0", "--bank-port", "0") if arguments[0] == "up" else ()

    failed = penstock(*arguments, *local, *ports, **environ)

    assert failed.returncode == 1
    assert failed.stderr.startswith("penstock: ")
    assert told in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("command", ["up", "status", "streams", "edge", "worker", "bank", "migrate", "merchant", "key"])
def test_every_command_teaches(command: str) -> None:
    told = penstock(command, "--help")

    assert told.returncode == 0
    assert ("Example" in told.stdout) == (command not in ("merchant", "key"))


def test_help_brings_none_of_the_engine_along() -> None:
    script = (
        "import sys, ops.cli.main; print([name for name in ('psycopg', 'uvicorn', 'aiohttp') if name in sys.modules])"
    )

    told = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
