"""`penstock down` and `restart` end a local stack in good order from another terminal; make's verbs do as named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.stack.address import any_free_port
from ops.stack.data_dir import DataDir
from ops.stack.local_stack import options_of
from support.gateway import eventually

ROOT = Path(__file__).parent.parent


def penstock(*words: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli.main", *words]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "MAKE", "MFLAGS"))}


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(90)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_stack_is_restarted_with_its_options_and_ended_from_elsewhere(
    store_folder: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    folder, port = store_folder / "restarted", any_free_port()
    options = ["--data-dir", str(folder), "--edge-port", str(port), "--bank-port", "0", "--dispatchers", "0"]

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = penstock(*words)
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
        running.append(process)
        return process

    first = start("up", *options, "--workers", "2")
    eventually(lambda: (folder / "state.json").exists(), "the stack is ready", 120)
    second = start("restart", "--data-dir", str(folder), "--workers", "1")
    assert first.wait(120) == 0
    eventually(lambda: (folder / "state.json").exists(), "it is ready again", 120)

    state = DataDir(folder).state()
    holder = DataDir(folder).holder()
    down = subprocess.run(
        penstock("down", "--data-dir", str(folder)), env=environment(), capture_output=True, text=True
    )
    nothing = subprocess.run(
        penstock("down", "--data-dir", str(folder)), env=environment(), capture_output=True, text=True
    )

    roles = [each["role"] for each in state["processes"]]
    assert (state["edge"], roles.count("worker"), roles.count("dispatcher")) == (f"http://127.0.0.1:{port}", 1, 0)
    assert (holder, second.wait(10)) == (second.pid, 0)
    assert (down.returncode, "has ended" in down.stdout) == (0, True)
    assert (nothing.returncode, "nothing runs in" in nothing.stderr) == (1, True)


def test_a_restart_does_not_wipe_data_again() -> None:
    assert options_of(["penstock", "up", "--fresh", "--workers", "4"]) == ["--workers", "4"]
    assert options_of(["pytest"]) == []


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What git has of the project, with the .venv of here, which `make` may use and not set up."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in files:
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    folder = tmp_path / "clone"
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / "ops" / "setup.sh").write_text('#!/bin/sh\necho "$1" >> set-up\n')
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def made(clone: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", verb, *words],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_make_hooks_checks_before_each_commit(clone: Path) -> None:
    told = made(clone, "hooks")

    assert told.returncode == 0, told.stderr
    assert "pre-commit" in (clone / ".git" / "hooks" / "pre-commit").read_text()


def test_make_install_installs_what_running_needs(clone: Path) -> None:
    assert made(clone, "install").returncode == 0
    assert (clone / "set-up").read_text() == "local\n"


@pytest.mark.parametrize("verb", ["ps", "restart", "down"])
def test_make_asks_the_local_stack_when_there_is_one(clone: Path, verb: str) -> None:
    (clone / ".penstock").mkdir()
    state = {"supervisor": 2**22 + 1, "processes": [], "edge": "", "bank": "", "redis": "", "database": ""}
    (clone / ".penstock" / "state.json").write_text(json.dumps(state))

    told = made(clone, verb)

    assert told.returncode != 0
    assert "was killed" in told.stderr if verb == "ps" else "nothing runs in" in told.stderr


@pytest.mark.slow
def test_make_build_makes_the_wheel(clone: Path) -> None:
    told = made(clone, "build")

    if told.returncode != 0 and "hatchling" in told.stderr:
        pytest.skip("the build backend cannot be fetched here")
    assert told.returncode == 0, told.stderr
    assert [path.suffix for path in (clone / "dist").iterdir()] == [".whl"]
