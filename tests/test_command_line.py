"""Every command's parser, tried with everything that is wrong: a sentence and exit code 2, and no store is asked."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from ops.cli.command_group import Elsewhere
from ops.cli.main import app

# Nobody listens on port 1 of this machine: whoever gets so far ends with 1, and not with 2.
NOWHERE = {
    "PENSTOCK_DATABASE_URL": "postgresql://127.0.0.1:1/penstock",
    "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0",
    "PENSTOCK_BANK_URL": "http://127.0.0.1:1",
    "PENSTOCK_BANK_DATABASE_URL": "postgresql://127.0.0.1:1/bank",
}
RIGHT = {  # an argument or option that is needed, and a value that passes
    "payment": "pay_" + "0" * 26,
    "letter": "dl_1-1-1",
    "hold": "auth_2f1c6f0e-8f0b-4c5e-9a43-0d6a2b1c7e55",
    "name": "FicMart",
    "merchant": "mer_local",
    "key": "key_local_other",
    "reason": "a test",
    "outcome": "approved",
    "reference": "auth_1",
    "shell": "bash",
}
BEYOND = 10**40
PROCESSES = ("edge", "worker", "auditor", "dispatcher", "bank", "migrate")  # they take no options, and would run
Path_ = tuple[str, ...]


def commands(command: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """All commands without those below them, with the names that lead there."""
    if isinstance(command, Elsewhere):
        for mode in command.places:
            yield (*path, *([mode] if mode else [])), command.found([mode] if mode else [])[1]
    elif not getattr(command, "commands", None):
        yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


ROOT = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT))
GROUPS: dict[Path_, Any] = {(): ROOT} | {
    (name,): each
    for name, each in ROOT.commands.items()  # type: ignore[attr-defined]
    if getattr(each, "commands", None)
}


def needed(command: Any, *, but: str = "") -> list[str]:
    """Right values for all that the command needs."""
    words = []
    for param in command.params:
        if param.required and param.name != but:
            words += [*([param.opts[0]] if option(param) else []), RIGHT[param.name]]
    return words


def option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def wrong_values(param: Any) -> list[str]:
    """What this parameter cannot mean, by its own type and bounds."""
    kind = param.type_descriptor
    wrong = ["two\nlines", "\x1b[2J", "nul\0", "\udcff", ""]
    if kind.annotation in (int, float):
        wrong += ["many", "1e", "0x10", "nan", "inf", "-inf", "1 2"]
        wrong += [str(param.min - 1)] if param.min is not None else []
        wrong += [str(param.max + 1)] if param.max is not None else []
    elif getattr(kind, "is_choice", False):
        wrong += ["perhaps"]
    return wrong


def lines() -> Iterator[tuple[str, ...]]:
    """Wrong command lines of every command."""
    for path, command in COMMANDS.items():
        if path[0] in PROCESSES and path[0] != "migrate":
            yield (*path, "--port", "1")
            yield (*path, "more")
            continue
        yield (*path, *needed(command), "--no-such-option")
        yield (*path, *needed(command), "one", "argument", "too", "many")
        for param in command.params:
            if not param.required and not option(param):
                continue
            if param.required:
                yield (*path, *needed(command, but=param.name))
            if not option(param) or param.is_flag:
                continue
            yield (*path, *needed(command, but=param.name), param.opts[0])
            for value in wrong_values(param):
                yield (*path, *needed(command, but=param.name), f"{param.opts[0]}={value}")
                if value[:1] != "-":
                    yield (*path, *needed(command, but=param.name), param.opts[0], value)
        for position, param in enumerate(each for each in command.params if not option(each)):
            for value in ("two\nlines", "\x07", "\udcff", ""):
                yield (*path, *(RIGHT.get(param.name, "x") for _ in range(position)), value, *needed(command)[1:])


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str


def ended(*arguments: str) -> Ended:
    """The command, in this process; anything but an orderly end fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit) as end,
    ):
        for name, value in NOWHERE.items():
            patch.setenv(name, value)
        ROOT.main(list(arguments), prog_name="penstock")
    return Ended(exit_code=end.value.code or 0, stdout=out.getvalue(), stderr=err.getvalue())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_what_no_command_line_can_mean_is_2_with_a_sentence_and_asks_nobody(path: Path_) -> None:
    tried = [line for line in lines() if line[: len(path)] == path]

    for line in tried:
        done = ended(*line)
        assert done.exit_code == 2, (line, done)
        assert done.stderr.strip() and "Traceback" not in done.stderr, line
        assert "\x1b" not in done.stderr and "\0" not in done.stderr, line
    assert tried


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_number_has_bounds(path: Path_) -> None:
    unbounded = [
        param.opts[0]
        for param in COMMANDS[path].params
        if param.type_descriptor.annotation in (int, float) and None in (param.min, param.max)
    ]

    assert unbounded == [], "nan and inf pass where there is no bound, and no store takes a number of 40 digits"


# fmt: off
CONTRADICTIONS = [
    ("payment", "list", "--in-doubt", "--review"),
    ("payment", "resolve", RIGHT["payment"], "--reason", "r", "--outcome", "refused", "--reference", "auth_1"),
    ("payment", "resolve", RIGHT["payment"], "--reason", "r", "--outcome", "refused", "--auth-code", "A1"),
    ("verify-journal", "--payment", RIGHT["payment"], "--export", "anchor"),
    ("verify-journal", "--force"),
    ("key", "create"),
    ("key", "create", "--scope", "merchant"),
    ("listen", "--keep"),
    ("up", "--bank-latency-ms", "200-100"),
]
# fmt: on


@pytest.mark.parametrize("line", CONTRADICTIONS, ids=" ".join)
def test_options_that_contradict_each_other_are_2_and_named(line: tuple[str, ...]) -> None:
    done = ended(*line)

    assert done.exit_code == 2, done
    assert "--" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (("stauts",), "status"),
        (("payments", "list"), "payment"),
        (("payment", "lsit"), "list"),
        (("merchant", "enabel"), "enable"),
        (("payment", "list", "--in-dout"), "--in-doubt"),
        (("bench", "--rat", "1"), "--rate"),
        (("chaos", "--sed", "1"), "--seed"),
        (("listen", "--regster"), "--register"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_what_may_be_meant(line: tuple[str, ...], meant: str) -> None:
    done = ended(*line)

    assert done.exit_code == 2
    assert meant in done.stderr


@pytest.mark.parametrize("path", [*COMMANDS, *GROUPS], ids=" ".join)
def test_every_command_answers_h_and_version(path: Path_) -> None:
    short, long = ended(*path, "-h"), ended(*path, "--help")
    version = ended(*path, "--version")

    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert f"Usage: penstock {' '.join(path)}".rstrip() in short.stdout
    assert (version.exit_code, version.stdout.split()[:2]) == (0, ["penstock", metadata.version("penstock")])


def completed(shell: str, line: str) -> set[str]:
    """What a shell's completion function is given for this line, in which the cursor stands at the end."""
    words = line.split(" ")
    environ = {
        "_PENSTOCK_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [penstock_script()], env={**os.environ, **environ}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.replace('"', " ").replace("\t", " ").replace(":", " ").split())


def penstock_script() -> str:
    """The command as it was installed: shells complete a command by its name."""
    return str(Path(sys.executable).with_name("penstock"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("penstock pay", {"payment"}),
        ("penstock payment ", {"list", "show", "timeline", "retry", "resolve", "correct"}),
        ("penstock payment list --in", {"--in-doubt"}),
        ("penstock payment list --state ca", {"captured"}),
        ("penstock bench --ra", {"--rate"}),
        ("penstock bench webhooks --disp", {"--dispatchers"}),
        ("penstock key create --scope op", {"operator"}),
    ],
)
def test_shells_complete_commands_options_and_values(shell: str, line: str, offered: set[str]) -> None:
    assert offered <= completed(shell, line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_one_that_the_shell_takes(shell: str, tmp_path: Path) -> None:
    script = ended("completion", shell).stdout
    assert "_PENSTOCK_COMPLETE" in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine: apt-get install {shell}")
    (tmp_path / "script").write_text(script)

    done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, timeout=30)

    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_a_line_with_the_script() -> None:
    words = (
        'COMP_WORDS=(penstock payment list --rev); COMP_CWORD=3; _penstock_completion penstock; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(penstock_script()).parent}:{os.environ['PATH']}"

    done = subprocess.run(
        ["bash", "-c", f"source <(penstock completion bash); {words}"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.split() == ["--review"], done.stderr
