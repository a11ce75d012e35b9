"""`penstock up` as a person meets it: one command, a curl that works, nothing lost and nothing left behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PENSTOCK = (sys.executable, "-P", "-m", "ops.cli.main")
CALM = ("--bank-failure-rate", "0", "--bank-latency-ms", "0-1", "--edge-port", "0", "--bank-port", "0")
WITHIN_S = 75.0  # above the patience of the stack itself, which then says what was not ready
CURL = re.compile(r"^curl .*?\}\}'$", re.MULTILINE | re.DOTALL)
# Whoever runs the tests may have variables set; the stack under test must not see them.
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


def penstock(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*PENSTOCK, *arguments], env=PLAIN, capture_output=True, text=True, timeout=60)


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """What `look` finds, asked again until it finds something."""
    patience = time.monotonic() + WITHIN_S
    while time.monotonic() < patience:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {WITHIN_S:.0f} s: {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """`penstock up` in a folder."""

    folder: Path
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def state(self) -> dict[str, Any] | None:
        """What `penstock status --json` prints, None while it exits 1."""
        told = penstock("status", "--data-dir", self.folder, "--json")
        return json.loads(told.stdout) if told.returncode == 0 else None

    def ready(self) -> dict[str, Any]:
        """Its state once it is ready. Should it end instead, that fails with what it said."""

        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"the stack ended:\n{self.said}"
            return self.state()

        found: dict[str, Any] = wait_for(look, "a ready stack")
        return found

    def pay(self) -> dict[str, Any]:
        """Run the curl that it printed, as pasted into a shell."""
        if shutil.which("curl") is None:
            pytest.skip("there is no curl on this machine to paste into")
        curl = CURL.search(self.said)
        assert curl is not None, self.said
        script = curl[0] + " -w '\\n%{http_code}'"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
        body, _, code = done.stdout.rpartition("\n")
        return {**json.loads(body), "http_status": int(code)}


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    """A stack that is stopped, and if need be killed, at the end."""
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*PENSTOCK, "up", "--data-dir", folder, *CALM, *options],
            env=PLAIN,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Up(folder=folder, log=log, process=process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other accounts reach: run by root, Postgres is `nobody`."""
    with tempfile.TemporaryDirectory(prefix="penstock-up-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def stack(place: Path) -> Iterator[Up]:
    with up(place / "shared") as running:
        running.ready()
        yield running


def family(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """A process with all it started, however deep."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def test_status_tells_where_everything_is(stack: Up) -> None:
    state = stack.ready()

    assert list(state) == ["edge", "bank", "redis", "database", "bank_database", "processes", "operations"]
    assert list(state["operations"]) == ["in_doubt", "in_doubt_oldest_s", "review"]
    assert {frozenset(each) for each in state["processes"]} == {frozenset(("role", "pid", "port"))}
    roles = sorted(each["role"] for each in state["processes"])
    assert roles == ["auditor", "bank", "dispatcher", "edge", "postgres", "redis", "worker", "worker"]
    assert all(psutil.pid_exists(each["pid"]) for each in state["processes"])


def test_the_table_names_every_process_and_no_password(stack: Up) -> None:
    state = stack.ready()

    for name in ("edge", "bank", "auditor", "worker-1", "worker-2", "redis", "postgres"):
        assert re.search(rf"^ +{name} ", stack.said, re.MULTILINE), name
    password = state["database"].split(":")[2].split("@")[0]
    assert password not in stack.said


def test_the_curl_it_prints_authorizes_a_payment(stack: Up) -> None:
    stack.ready()

    payment = stack.pay()

    assert (payment["http_status"], payment["status"]) == (201, "authorized")


def test_what_is_in_doubt_and_in_review_is_in_the_status(stack: Up) -> None:
    stack.ready()
    stack.pay()

    told = penstock("status", "--data-dir", stack.folder).stdout

    assert re.search(r"^in doubt: \d+.*, in review: 0", told, re.MULTILINE), told


def test_secrets_are_sealed_anew_with_the_keys_of_the_stacks_folder(stack: Up) -> None:
    stack.ready()

    done = penstock("master-key", "reseal", "--data-dir", stack.folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 webhook secrets and stored answers were sealed anew\n"


def test_it_says_how_to_reach_the_command_from_another_terminal(stack: Up) -> None:
    stack.ready()

    assert "In another terminal" in stack.said
    assert re.search(r"^  \S*penstock status$", stack.said, re.MULTILINE)
    assert "\ncurl -sS -w '\\n' " in stack.said, "the prompt that follows an answer is on a line of its own"


def test_keys_are_for_their_owner_only(stack: Up) -> None:
    for name in ("master.key", "fingerprint.key", "state.json"):
        assert (stack.folder / name).stat().st_mode & 0o777 == 0o600


def test_the_streams_are_shown_and_empty_when_all_is_done(stack: Up) -> None:
    stack.ready()
    stack.pay()

    def drained() -> list[dict[str, Any]] | None:
        rows = json.loads(penstock("streams", "--data-dir", stack.folder, "--json").stdout)
        return rows if all(row["backlog"] == row["pending"] == row["lag"] == 0 for row in rows) else None

    rows = wait_for(drained, "empty streams")

    assert len(rows) == 16
    assert wait_for(lambda: all(row["owner"] for row in drained() or [{"owner": None}]), "an owner for each partition")


@pytest.mark.parametrize("role", ["worker", "redis"])
def test_a_killed_process_is_started_again_and_said_so(stack: Up, role: str) -> None:
    killed = next(each for each in stack.ready()["processes"] if each["role"] == role)
    told_before = stack.said.count("is ready again")

    os.kill(killed["pid"], signal.SIGKILL)

    wait_for(lambda: stack.said.count("is ready again") > told_before, f"word of a {role} that is ready again")
    assert re.search(rf"^{role}\S* died", stack.said, re.MULTILINE)
    now = stack.ready()["processes"]
    assert killed["pid"] not in [each["pid"] for each in now]
    assert killed["port"] in [each["port"] for each in now]
    assert stack.pay()["status"] == "authorized"


def test_a_second_stack_in_the_same_folder_is_refused(stack: Up) -> None:
    stack.ready()

    refused = penstock("up", "--data-dir", stack.folder, *CALM)

    assert refused.returncode == 1
    assert f"already runs in {stack.folder} (pid {stack.process.pid})" in refused.stderr
    assert stack.state() is not None


@pytest.mark.parametrize("option", ["--edge-port", "--bank-port"])
def test_a_taken_port_that_was_asked_for_is_an_error_that_names_the_option(place: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        refused = penstock("up", "--data-dir", place / "taken", *CALM, option, str(port))

    assert refused.returncode == 1
    assert f"port {port} is taken" in refused.stderr
    assert option in refused.stderr


def test_data_survives_and_ctrl_c_leaves_nothing_behind(place: Path) -> None:
    with up(place / "again") as first:
        first.ready()
        payment = first.pay()
        everybody = family(first.process)
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(60) == 0
        assert [each for each in everybody if each.is_running()] == []
        assert first.state() is None

    with up(place / "again") as second:
        edge = second.ready()["edge"]
        url = f"{edge}/v1/payments/{payment['id']}"
        asked = subprocess.run(
            ["curl", "-sS", url, "-H", "X-API-Key: sk_local_merchant"], capture_output=True, text=True, timeout=30
        )
        assert json.loads(asked.stdout)["status"] == "authorized"


def test_a_killed_supervisor_takes_everybody_along(place: Path) -> None:
    with up(place / "orphans", "--workers", "1") as stack:
        stack.ready()
        everybody = family(stack.process)

        stack.process.kill()
        stack.process.wait()

        wait_for(lambda: not [each for each in everybody if each.is_running()], "the end of all processes")
        assert stack.state() is None
