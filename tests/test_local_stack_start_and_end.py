"""How a stack starts on ports that are taken or on old data, and how it ends when nobody wants to wait."""

import os
import pty
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import Broken
from ops.stack.address import Port, any_free_port, chosen_port
from ops.stack.shutdown import alone_in_the_foreground
from test_local_stack import CALM, PENSTOCK, PLAIN, Up, family, penstock, up, wait_for


@pytest.fixture
def folder(store_folder: Path) -> Iterator[Path]:
    """For one stack, where the account that runs Postgres reaches it."""
    folder = store_folder / "local-stack"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_fresh_starts_over_where_old_data_would_refuse_other_partitions(folder: Path) -> None:
    with up(folder, "--partitions", "4", "--workers", "1") as first:
        first.ready()
        kept = (folder / "master.key").read_text()

    refused = penstock("up", "--data-dir", folder, *CALM, "--partitions", "8")
    assert refused.returncode == 1
    assert "initialised with 4 partitions, not 8" in refused.stderr
    assert (folder / "master.key").read_text() == kept

    with up(folder, "--partitions", "8", "--workers", "1", "--fresh") as second:
        second.ready()
        assert second.pay()["status"] == "authorized"
        assert (folder / "master.key").read_text() != kept


def test_a_usual_port_that_is_taken_is_exchanged_and_said_so() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        chosen = chosen_port(Port(number=port, given=False), "--edge-port", told.append)

        assert chosen != port
        assert told == [f"port {port} is taken by another program: using {chosen} instead (choose with --edge-port)"]
    assert chosen_port(Port(number=port, given=False), "--edge-port", told.append) == port


def test_edge_and_bank_never_get_the_same_port() -> None:
    free = any_free_port()

    assert chosen_port(Port(number=free, given=False), "--bank-port", print, not_this=free) != free
    with pytest.raises(Broken, match="--bank-port"):
        chosen_port(Port(number=free, given=True), "--bank-port", print, not_this=free)


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_who_hangs(folder: Path) -> None:
    with up(folder, "--workers", "1") as stack:
        state = stack.ready()
        everybody = family(stack.process)
        worker = next(each["pid"] for each in state["processes"] if each["role"] == "worker")
        os.kill(worker, signal.SIGSTOP)

        stack.process.send_signal(signal.SIGINT)
        wait_for(lambda: re.search("^stopping", stack.said, re.MULTILINE), "the end beginning")
        stack.process.send_signal(signal.SIGINT)

        stack.process.wait(10)  # the worker's own patience is longer
        assert [each for each in everybody if each.is_running()] == []


@pytest.mark.slow
def test_whoever_is_killed_comes_back_to_the_same_address(folder: Path) -> None:
    with up(folder, "--workers", "1") as stack:
        before = stack.ready()
        for role in ("edge", "bank", "postgres"):
            killed = next(each["pid"] for each in before["processes"] if each["role"] == role)

            os.kill(killed, signal.SIGKILL)
            wait_for(lambda role=role: has_returned(stack, role), f"word of the {role} that is back")

            after = wait_for(stack.state, "a ready stack")
            assert {**after, "processes": None} == {**before, "processes": None}
            assert killed not in [each["pid"] for each in after["processes"]]
            assert stack.pay()["status"] == "authorized"


def has_returned(stack: Up, role: str) -> bool:
    return re.search(rf"^{role}\S* is ready again", stack.said, re.MULTILINE) is not None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")
def test_ctrl_c_of_a_make_in_a_terminal_is_an_orderly_end_for_make_too(folder: Path, tmp_path: Path) -> None:
    command = " ".join(map(str, [*PENSTOCK, "up", "--data-dir", folder, *CALM, "--workers", "1"]))
    (tmp_path / "Makefile").write_text(f"run:\n\t@{command}\n\t@echo goes on\n")

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("make", ["make", "-C", str(tmp_path), "--no-print-directory", "run"], PLAIN)
    said, pressed = "", 0
    with suppress(OSError):  # Linux says so when nobody has the other end any more
        while part := os.read(terminal, 4096).decode(errors="replace"):
            said += part
            if not pressed and "Ctrl-C stops it all" in said:
                pressed = os.write(terminal, b"\x1a\x03")  # Ctrl-Z first: whoever pauses would not hear Ctrl-C
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, said
    assert "\nstopped" in said and "goes on" in said
    assert "make: ***" not in said and "Error" not in said


def test_without_make_or_a_terminal_the_process_group_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    before = os.getpgrp()

    with alone_in_the_foreground():  # pytest's stdin is no terminal
        assert os.getpgrp() == before
    assert os.getpgrp() == before
